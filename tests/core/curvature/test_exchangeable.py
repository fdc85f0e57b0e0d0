"""XTrace and XDiag against their definition, one QR for every probe left out, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import curvature

DIM = 20
RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0]
DECAYING = Q @ np.diag(2.0 ** -np.arange(DIM)) @ Q.T
MIXED = Q @ np.diag(np.concatenate([[-3.0, 9.0], RNG.uniform(-0.1, 0.1, DIM - 2)])) @ Q.T
LOW = Q[:, :4] @ np.diag([1.0, 2.0, 3.0, -50.0]) @ Q[:, :4].T
LIKE = {"a": np.zeros((4, 4), np.float32), "n": np.int32(3), "b": np.zeros(4, np.float32)}
KEYS = jax.random.split(jax.random.key(0), 40)


def both(matrix, key, n_samples):
    def apply(tree):
        out = matrix @ jnp.concatenate([tree["a"].reshape(-1), tree["b"]])
        return {"a": out[:16].reshape(4, 4), "n": tree["n"], "b": out[16:]}

    like = jax.tree.map(lambda x: x.astype(matrix.dtype) if x.dtype != np.int32 else x, LIKE)
    trace = curvature.xtrace(apply, like, key=key, n_samples=n_samples)
    diag = curvature.xdiag(apply, like, key=key, n_samples=n_samples)
    return trace, jnp.concatenate([diag["a"].reshape(-1), diag["b"]])


six = jax.jit(lambda m, key: both(m, key, 6))
many = jax.jit(lambda m: jax.vmap(lambda key: both(m, key, 6))(KEYS))


@pytest.mark.parametrize("matrix", [DECAYING, MIXED], ids=["decaying", "mixed"])
def test_definition(matrix):
    with jax.enable_x64(True):
        trace, diag = six(jnp.asarray(matrix), KEYS[0])
        probes = curvature.rademacher_like(KEYS[0], jnp.zeros((6, DIM)))
    traces, diags = [], []
    for i, w in enumerate(np.asarray(probes)):
        others = np.delete(np.asarray(probes), i, axis=0)
        basis = np.linalg.qr(matrix @ others.T)[0]
        rest = np.eye(DIM) - basis @ basis.T
        traces.append(np.trace(basis.T @ matrix @ basis) + w @ rest @ matrix @ rest @ w)
        diags.append(np.diag(basis @ basis.T @ matrix) + w * (rest @ matrix @ w))
    np.testing.assert_allclose(trace.value, np.mean(traces), rtol=1e-10)
    np.testing.assert_allclose(trace.standard_error, np.std(traces, ddof=1) / 6**0.5, rtol=1e-8)
    np.testing.assert_allclose(diag, np.mean(diags, axis=0), atol=1e-10)


def test_exact_for_low_rank_in_float32():
    """R is singular then, which the definition leaves open."""
    trace, diag = six(jnp.asarray(LOW, jnp.float32), KEYS[0])
    np.testing.assert_allclose(trace.value, LOW.trace(), rtol=1e-5)
    np.testing.assert_allclose(diag, LOW.diagonal(), atol=1e-4)
    trace, diag = six(jnp.zeros((DIM, DIM), jnp.float32), KEYS[0])
    assert float(trace.value) == 0
    assert not np.any(diag)


def test_better_than_what_came_before_with_as_many_products():
    like = jnp.zeros(DIM)
    matrix = jnp.asarray(DECAYING, jnp.float32)
    traces, diags = many(matrix)

    @jax.jit
    @jax.vmap
    def before(key):
        plus = curvature.hutch_plus_plus_trace(lambda v: matrix @ v, like, key=key, n_samples=4)
        z = curvature.rademacher_like(key, jnp.zeros((12, DIM)))
        return plus.value, jnp.mean(z * (z @ matrix), axis=0)

    plus, hutchinson = before(KEYS)
    root = lambda x: float(np.sqrt(np.mean(np.square(x))))  # noqa: E731
    assert root(traces.value - DECAYING.trace()) < 0.7 * root(plus - DECAYING.trace())
    assert root(diags - DECAYING.diagonal()) < 0.2 * root(hutchinson - DECAYING.diagonal())


def test_unbiased():
    traces, diags = many(jnp.asarray(MIXED, jnp.float32))
    error = np.std(traces.value) / 40**0.5
    assert abs(np.mean(traces.value) - MIXED.trace()) < 4 * error
    error = np.std(diags, axis=0) / 40**0.5
    assert np.all(np.abs(np.mean(diags, axis=0) - MIXED.diagonal()) < 4 * error)
