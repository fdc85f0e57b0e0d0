"""Traces, spectra and eigenpairs against dense linear algebra in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import curvature

DIM = 24
RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0]
EIGENVALUES = np.concatenate([[-3.0, -1.0], RNG.uniform(-0.1, 0.1, DIM - 4), [4.0, 9.0]])
MATRIX = Q @ np.diag(EIGENVALUES) @ Q.T
LIKE = {"a": np.zeros((4, 5)), "b": np.zeros(4), "n": np.int32(3)}
KEY = jax.random.key(0)


def matvec(matrix):
    def apply(tree):
        flat = jnp.concatenate([tree["a"].reshape(-1), tree["b"]])
        out = matrix.astype(flat.dtype) @ flat
        return {"a": out[:20].reshape(4, 5), "b": out[20:], "n": tree["n"]}

    return apply


def like():
    return jax.tree.map(jnp.asarray, LIKE)


def test_hutchinson_trace_and_its_error():
    """The estimate is within its standard error as often as a normal variable is."""

    def estimate(key):
        run = curvature.hutchinson_trace
        return run(matvec(jnp.asarray(MATRIX)), like(), key=key, n_samples=64)

    got = jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 400))
    z = (np.asarray(got.value) - MATRIX.trace()) / np.asarray(got.standard_error)
    assert abs(z.mean()) < 5 / np.sqrt(400)
    assert 0.8 < z.std() < 1.25


def test_hutch_plus_plus_is_exact_for_low_rank_and_better_for_decay():
    low = Q[:, :4] @ np.diag([1.0, 2.0, 3.0, 50.0]) @ Q[:, :4].T
    decaying = Q @ np.diag(2.0 ** -np.arange(DIM)) @ Q.T
    with jax.enable_x64(True):
        run = jax.jit(
            lambda m, key: curvature.hutch_plus_plus_trace(matvec(m), like(), key=key, n_samples=6)
        )
        np.testing.assert_allclose(run(jnp.asarray(low), KEY).value, 56, rtol=1e-10)
        plain = jax.jit(
            lambda m, key: curvature.hutchinson_trace(matvec(m), like(), key=key, n_samples=18)
        )
        keys = jax.random.split(KEY, 40)
        error = [
            np.sqrt(
                np.mean([(f(jnp.asarray(decaying), k).value - decaying.trace()) ** 2 for k in keys])
            )
            for f in (run, plain)
        ]
    assert error[0] < 0.1 * error[1]  # with the same 18 products
    everything = curvature.hutch_plus_plus_trace(
        matvec(jnp.asarray(MATRIX)), like(), key=KEY, n_samples=40
    )
    np.testing.assert_allclose(everything.value, MATRIX.trace(), rtol=1e-4)


def test_hessian_trace_is_hutchinsons_by_forward_passes():
    loss = lambda p, x: jnp.sum(jnp.cosh(x @ p["w"])) + jnp.sum(p["b"] ** 4)  # noqa: E731
    p = {"w": jnp.asarray(RNG.normal(size=(3, 2))), "b": jnp.asarray(RNG.normal(size=4))}
    x = jnp.asarray(RNG.normal(size=(5, 3)))
    got = jax.jit(curvature.hessian_trace(loss, n_samples=8))(p, x, key=KEY)
    want = curvature.hutchinson_trace(
        lambda v: curvature.hvp(loss)(p, v, x), p, key=KEY, n_samples=8
    )
    np.testing.assert_allclose(got.value, want.value, rtol=1e-4)
    exact = curvature.value_grad_and_diag(loss, estimator=curvature.exact_diagonal())
    diag = exact(p, x, key=KEY)[2].diag
    total = sum(float(d.sum()) for d in jax.tree.leaves(diag))
    assert abs(float(got.value) - total) < 6 * float(got.standard_error) + 1e-3


def test_full_order_gives_the_whole_spectrum():
    with jax.enable_x64(True):
        density = curvature.spectral_density(
            matvec(jnp.asarray(MATRIX)), like(), key=KEY, order=100, n_samples=3
        )
    assert density.nodes.shape == (3, DIM)
    for row in np.asarray(density.nodes):
        np.testing.assert_allclose(np.sort(row), np.sort(EIGENVALUES), atol=1e-9)
    np.testing.assert_allclose(np.asarray(density.weights).sum(1), 1, rtol=1e-12)


def test_moments_of_each_probe_are_exact_at_low_order():
    """A quadrature of order m has the first 2m - 1 moments of its own start."""
    with jax.enable_x64(True):
        matrix = jnp.asarray(MATRIX)
        density = curvature.spectral_density(matvec(matrix), like(), key=KEY, order=4, n_samples=2)
        for i, key in enumerate(jax.random.split(KEY, 2)):
            z = np.asarray(jax.random.normal(key, (DIM,), jnp.float32), np.float64)
            z /= np.linalg.norm(z)
            for power in range(8):
                want = z @ np.linalg.matrix_power(MATRIX, power) @ z
                got = np.sum(density.weights[i] * density.nodes[i] ** power)
                np.testing.assert_allclose(got, want, rtol=1e-8)


def test_smoothed_density_integrates_to_one():
    density = curvature.spectral_density(matvec(jnp.asarray(MATRIX)), like(), key=KEY, order=10)
    points = np.linspace(-6, 12, 2001)
    curve = np.asarray(density.smooth(points, 0.2), np.float64)
    np.testing.assert_allclose(np.trapezoid(curve, points), 1, rtol=1e-3)
    assert curve.argmax() == np.abs(points - points[curve.argmax()]).argmin()
    assert abs(points[curve.argmax()]) < 0.3  # the bulk


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_extreme_eigenpairs(which):
    with jax.enable_x64(True):
        matrix = jnp.asarray(MATRIX)
        run = jax.jit(
            lambda m: curvature.extreme_eigenpairs(
                matvec(m), like(), key=KEY, k=2, which=which, order=16
            )
        )
        values, vectors = run(matrix)
        want = np.sort(EIGENVALUES)[:2] if which == "smallest" else np.sort(EIGENVALUES)[:-3:-1]
        np.testing.assert_allclose(values, want, rtol=1e-8)
        flat = np.concatenate([vectors["a"].reshape(2, -1), vectors["b"]], axis=1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(2), atol=1e-10)
        np.testing.assert_allclose(MATRIX @ flat.T, flat.T * want, atol=1e-4)
        assert vectors["n"].shape == (2,)


@pytest.mark.parametrize("eigenvalues", [[0, 0, 0], [1, 1, 1], [4, 0, 0, 0], [-2, 1, 1, 1], [7]])
@pytest.mark.parametrize("unit", [1.0, 1e-25])
def test_lanczos_goes_on_where_its_space_ends(eigenvalues, unit):
    """Degenerate matrices, of which one start reaches a part, and ones whose squares underflow."""
    n = len(eigenvalues)
    turn = jnp.asarray(np.linalg.qr(RNG.normal(size=(n, n)))[0], jnp.float32)
    matrix = unit * (turn * jnp.asarray(eigenvalues, jnp.float32)) @ turn.T
    values, vectors = curvature.extreme_eigenpairs(lambda v: matrix @ v, jnp.zeros(n), key=KEY, k=n)
    np.testing.assert_allclose(values / unit, np.sort(eigenvalues)[::-1], atol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(n), atol=1e-5)


def test_trace_of_one_number_is_known():
    for estimate in (curvature.xtrace, curvature.hutch_plus_plus_trace, curvature.hutchinson_trace):
        got = estimate(lambda v: -3 * v, jnp.ones(1), key=KEY, n_samples=2)
        assert [float(x) for x in got] == [-3, 0]


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_lobpcg_finds_every_copy(which):
    """An eigenvalue of two dimensions, which Lanczos from one start finds once."""
    scale = jnp.asarray(RNG.permutation(np.r_[np.linspace(-1, 1, 20), 5, 5, 3, -6, -6, -4]))
    run = jax.jit(
        lambda scale: curvature.extreme_eigenpairs(
            lambda v: scale * v, scale, key=KEY, k=3, which=which, order=40, method="lobpcg"
        )
    )
    values, vectors = run(scale)
    want = np.array([5, 5, 3]) if which == "largest" else np.array([-6, -6, -4])
    np.testing.assert_allclose(values, want, rtol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(scale * vectors, want[:, None] * vectors, atol=2e-2)


def test_a_krylov_space_that_ends_early():
    """Two distinct eigenvalues: the space has two dimensions, however many steps are asked for."""
    scale = jnp.array([2.0, 2.0, 2.0, 7.0, 7.0])
    apply = lambda v: scale * v  # noqa: E731
    for which, wanted in (("largest", 7), ("smallest", 2)):
        values, vectors = curvature.extreme_eigenpairs(
            apply, scale, key=KEY, k=1, which=which, order=5
        )
        np.testing.assert_allclose(values, wanted, rtol=1e-5)
        np.testing.assert_allclose(jnp.linalg.norm(vectors[0]), 1, rtol=1e-5)
    density = curvature.spectral_density(apply, scale, key=KEY, order=5, n_samples=2)
    heavy = np.asarray(density.nodes)[np.asarray(density.weights) > 1e-4]
    assert np.all(np.minimum(np.abs(heavy - 2), np.abs(heavy - 7)) < 1e-4)
    zero = curvature.spectral_density(lambda v: 0 * v, scale, key=KEY, order=3)
    assert jnp.all(jnp.isfinite(zero.nodes))
    assert jnp.all(jnp.isfinite(zero.weights))


def test_the_program_does_not_grow_with_the_order():
    def size(order):
        run = lambda m: curvature.spectral_density(  # noqa: E731
            matvec(m), like(), key=KEY, order=order
        )
        return str(jax.make_jaxpr(run)(jnp.asarray(MATRIX))).count(" = ")

    assert size(20) == size(5)


def test_directional_sharpness():
    loss = lambda p: 0.5 * p["a"].reshape(-1) @ jnp.asarray(MATRIX[:20, :20]) @ p["a"].reshape(-1)  # noqa: E731
    p, u = {"a": jnp.ones((4, 5))}, {"a": jnp.asarray(RNG.normal(size=(4, 5)))}
    flat = np.asarray(u["a"], np.float64).reshape(-1)
    want = flat @ MATRIX[:20, :20] @ flat / (flat @ flat)
    sharpness = jax.jit(curvature.directional_sharpness(loss))
    np.testing.assert_allclose(sharpness(p, u), want, rtol=1e-4)
    assert sharpness(p, {"a": jnp.zeros((4, 5))}) == 0
    with pytest.raises(ValueError, match="direction: got a leaf of shape"):
        sharpness(p, {"a": jnp.zeros((4, 4))})


def test_wrong_arguments_are_named():
    apply = matvec(jnp.asarray(MATRIX))
    for function, bad in (
        (curvature.spectral_density, {"order": 0}),
        (curvature.spectral_density, {"n_samples": 1.5}),
        (curvature.extreme_eigenpairs, {"k": 0}),
        (curvature.extreme_eigenpairs, {"k": 40}),
        (curvature.extreme_eigenpairs, {"which": "both"}),
    ):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}: got"):
            function(apply, like(), key=KEY, **bad)
    with pytest.raises(ValueError, match="like: got no floating-point leaves"):
        curvature.spectral_density(lambda v: v, {"n": jnp.arange(3)}, key=KEY)
