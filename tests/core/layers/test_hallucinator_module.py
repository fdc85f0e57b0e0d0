"""The module against its formula in NumPy, and what no gradient reaches."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from papyrax.layers import Hallucinator
from papyrax.losses import info_nce_loss


def test_against_numpy():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 4, 3)).astype(np.float32)
    module = Hallucinator(3, rngs=nnx.Rngs(0))
    for amount in (0.0, 0.07):
        away = q + amount * (q - k)
        hidden = np.concatenate([q, away], 1).astype(np.float64)
        for layer in (module.first, module.second):
            hidden = np.maximum(hidden @ np.asarray(layer.kernel) + np.asarray(layer.bias), 0)
        want = hidden @ np.asarray(module.last.kernel) + np.asarray(module.last.bias)
        got = module(q, k, amount)
        np.testing.assert_array_equal(got[:4], q)
        np.testing.assert_allclose(got[4:], want, rtol=1e-5, atol=1e-6)


def test_gradients_and_mean():
    """The loss is the mean over both halves; keys learn nothing, the module's weights do."""
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(2, 4, 3)).astype(np.float32)
    queue = rng.normal(size=(6, 3)).astype(np.float32)
    graph, weights = nnx.split(Hallucinator(3, rngs=nnx.Rngs(0)))

    @jax.jit
    def both(weights, q, k):
        def loss(weights, q, k):
            out = nnx.merge(graph, weights)(q, k, 0.1)
            fixed = jax.lax.stop_gradient(jnp.concatenate([k, k]))
            return jnp.mean(info_nce_loss(out, fixed, queue)), out

        (value, out), slopes = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(weights, q, k)
        halves = [jnp.mean(info_nce_loss(x, k, queue)) for x in (out[:4], out[4:])]
        return value, halves, slopes

    value, halves, (of_weights, of_q, of_k) = both(weights, q, k)
    np.testing.assert_allclose(value, np.mean(halves), rtol=1e-6)
    assert not np.any(of_k)
    assert np.all(np.any(np.asarray(of_q), 1))
    assert all(np.any(np.asarray(g)) for g in jax.tree.leaves(of_weights))
