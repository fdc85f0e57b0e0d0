"""Fixed class vectors: their cosines, the descent that finds them and the loss, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.losses import equiangular_basis_loss, equiangular_basis_vectors, simplex_etf


def test_a_simplex_has_equal_cosines_and_sums_to_zero():
    with jax.enable_x64(True):
        for classes, features in ((2, 1), (5, 4), (4, 9)):
            frame = np.asarray(
                simplex_etf(
                    jax.random.key(3), classes=classes, features=features, dtype=jnp.float64
                )
            )
            want = np.full((classes, classes), -1 / (classes - 1))
            np.fill_diagonal(want, 1)
            np.testing.assert_allclose(frame @ frame.T, want, atol=1e-14)
            np.testing.assert_allclose(frame.sum(0), 0, atol=1e-14)


def test_the_descent_is_that_of_its_loss():
    """Against a loop over pairs."""
    with jax.enable_x64(True):
        key, rate, threshold = jax.random.key(1), 0.02, 0.3

        def ours(steps):
            return equiangular_basis_vectors(
                key,
                classes=5,
                features=3,
                threshold=threshold,
                learning_rate=rate,
                steps=steps,
                dtype=jnp.float64,
            )

        b = np.asarray(ours(0).vectors)
        for _ in range(4):
            slope = np.zeros_like(b)
            for i, j in np.ndindex(5, 5):
                cosine = b[i] @ b[j]
                if i != j and abs(cosine) > threshold:
                    slope[i] += np.sign(cosine) * b[j]
                    slope[j] += np.sign(cosine) * b[i]
            b = b - rate * slope
            b /= np.linalg.norm(b, axis=1, keepdims=True)
        got = ours(4)
        np.testing.assert_allclose(got.vectors, b, atol=1e-12)
        np.testing.assert_allclose(got.max_cosine, abs(b @ b.T - np.eye(5)).max(), atol=1e-12)
        assert got.steps == 4


def test_it_stops_at_the_threshold_and_not_below_the_bound_of_welch():
    def find(threshold):
        return equiangular_basis_vectors(
            jax.random.key(0), classes=30, features=15, threshold=threshold, steps=3000
        )

    found, impossible = find(0.28), find(0.15)  # the bound is sqrt(15 / (15 * 29)) = 0.186
    assert found.steps < 3000
    assert found.max_cosine <= 0.2801 + 1e-6
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)
    assert impossible.steps == 3000
    assert impossible.max_cosine > 0.186


def test_loss():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, b, y = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), rng.integers(5, size=6)
        z = (x / np.linalg.norm(x, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
        z /= 0.2
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        want = -(0.7 * log_p[np.arange(6), y] + 0.3 * log_p.mean(1))
        loss = lambda x, b: equiangular_basis_loss(  # noqa: E731
            x, jnp.asarray(y), b, temperature=0.2, label_smoothing=0.3
        )
        np.testing.assert_allclose(loss(x, b), want, rtol=1e-12)
        np.testing.assert_allclose(loss(7 * x, b), want, rtol=1e-12)
        assert not jax.grad(lambda b: loss(x, b).sum())(b).any()


def test_sizes_may_be_integers_of_numpy():
    classes = np.max([0, 2, 1]) + 1
    frame = simplex_etf(jax.random.key(0), classes=classes, features=np.int32(4))
    assert frame.shape == (3, 4)
    with pytest.raises(ValueError, match="key: got int"):
        simplex_etf(0, classes=3, features=4)
