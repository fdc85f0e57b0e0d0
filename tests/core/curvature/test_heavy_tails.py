"""Windows against slices in NumPy, and the exponent of samples whose tail is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.curvature import farms_eigenvalues, hill_exponent, power_law_fit

RNG = np.random.default_rng(0)
hill = jax.jit(hill_exponent, static_argnames="tail")
power = jax.jit(power_law_fit, static_argnames=("candidates", "bins"))


def squares(window):
    return np.linalg.eigvalsh(
        window @ window.T if len(window) < len(window.T) else window.T @ window
    )


@pytest.mark.parametrize(
    ("shape", "options", "tops", "lefts", "height", "width"),
    [
        ((9, 6), {"size": 4, "windows": 3}, (0, 2, 4), (0, 1, 2), 4, 4),
        ((11, 5), {"size": 3, "windows": 2, "aspect": 1.5}, (0, 8), (0, 1), 3, 4),
        ((7, 5), {"size": 100}, (0, 1, 2), (0,), 5, 5),  # no larger than the matrix
        ((4, 9), {"size": 2, "stride": 2}, (0, 2), (0, 2, 4, 6), 2, 2),  # side by side
        ((6, 5), {"size": 3, "windows": 1}, (0,), (0,), 3, 3),
    ],
)
def test_windows(shape, options, tops, lefts, height, width):
    weights = RNG.normal(size=(2, *shape))
    with jax.enable_x64(True):
        got = farms_eigenvalues(jnp.asarray(weights), **options)
    want = [squares(w[r : r + height, c : c + width]) for w in weights for r in tops for c in lefts]
    np.testing.assert_allclose(got, np.sort(np.concatenate(want)), atol=1e-10)


def test_against_the_authors_formula():
    """The transcription of `fix_fingers="median"`, of an odd number of values."""
    values = RNG.lognormal(size=(2, 31))
    for row, got in zip(values, hill(jnp.asarray(values, jnp.float32))):
        logs = np.log(np.sort(row))[31 // 2 :]
        np.testing.assert_allclose(
            got, 1 + len(logs) / (logs.sum() - len(logs) * logs[0]), rtol=1e-4
        )


def test_pareto():
    """Within three standard errors, (alpha - 1) / sqrt(k), and whatever the scale."""
    for alpha in (1.5, 2.5, 4.0):
        values = jnp.asarray((1 - RNG.uniform(size=20000)) ** (-1 / (alpha - 1)), jnp.float32)
        for tail in (1.0, 0.5, 0.1):
            got = float(hill(values, tail=tail))
            assert abs(got - alpha) < 3 * (alpha - 1) / np.sqrt(20000 * tail)
        np.testing.assert_allclose(hill(1e3 * values), hill(values), rtol=1e-4)


def test_a_power_law_behind_other_values():
    """1200 values of a law that starts at 2, behind 800 that are smaller and follow none."""
    law = 2 * (1 - RNG.uniform(size=1200)) ** (-1 / 1.5)
    values = jnp.asarray(np.concatenate([RNG.uniform(0.2, 2, 800), law]), jnp.float32)
    found = power(jnp.stack([values, 1e3 * values]))
    assert abs(float(found.exponent[0]) - 2.5) < 0.15
    assert 1.8 < float(found.start[0]) < 2.8
    assert float(found.distance[0]) < 0.03
    np.testing.assert_allclose(found.exponent[1], found.exponent[0], rtol=1e-3)
    np.testing.assert_allclose(found.start[1], 1e3 * found.start[0], rtol=1e-3)


def test_power_laws_of_values_that_are_equal_or_zero():
    some = jnp.array([0.0, 0, 0, 1, 1, 2, 5, 9])
    values = jnp.stack([jnp.ones(8), jnp.zeros(8), some])
    for candidates in ("all", "peak"):
        found = power(values, candidates=candidates)
        assert np.isfinite(found).all()
        assert float(found.start[2]) > 0  # zeros start no tail
    assert np.isfinite(power(jnp.ones(1))).all()


def test_values_that_are_equal_or_zero():
    assert 1e6 < float(hill(jnp.ones(8))) < 1e8
    assert np.isfinite(hill(jnp.zeros(8)))
    one = hill(jnp.ones(1))
    assert np.isfinite(one)


def test_the_shape_of_noise_does_not_matter():
    wide, square = (jnp.asarray(RNG.normal(size=(n, 96)), jnp.float32) for n in (480, 96))
    windows = [float(hill(farms_eigenvalues(w, size=48, windows=3))) for w in (wide, square)]
    whole = [float(hill(jnp.linalg.svd(w, compute_uv=False) ** 2)) for w in (wide, square)]
    assert abs(windows[0] - windows[1]) < 0.15
    assert whole[0] - whole[1] > 1
