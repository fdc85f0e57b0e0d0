"""Mixed operations: coefficients, which gradients go where, and what a search trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from papyrax.layers import Architecture, MixedOperation

RNG = np.random.default_rng(0)
LOGITS, X = RNG.normal(size=3), RNG.normal(size=(4, 3)).astype(np.float32)
OPERATIONS = (jnp.sin, jnp.square, jnp.negative)


def mixed(logits=LOGITS, **options):
    module = MixedOperation(OPERATIONS[: len(logits)], **options)
    module.logits[...] = jnp.asarray(logits, jnp.float32)
    return module


def test_coefficients():
    w = np.exp(LOGITS) / np.exp(LOGITS).sum()
    np.testing.assert_allclose(mixed(weighting="softmax").coefficients(), w, rtol=1e-5)
    np.testing.assert_allclose(mixed().coefficients(), 1 - w.max() + w, rtol=1e-5)
    np.testing.assert_allclose(mixed(LOGITS + 7).coefficients(), 1 - w.max() + w, rtol=1e-4)
    np.testing.assert_array_equal(mixed(np.zeros(3)).coefficients(), 1)
    outputs = np.stack([np.sin(X), X**2, -X])
    want = np.einsum("o,o...->...", 1 - w.max() + w, outputs)
    np.testing.assert_allclose(mixed()(X), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed([2.0])(X), np.sin(X), rtol=1e-6)


def test_the_likeliest_has_no_merit_of_its_own():
    """What it returns does not move the logits under Max-W, and does under softmax."""
    best = int(np.argmax(LOGITS))

    def slope(weighting, factor):
        operations = [f if i != best else lambda x: factor * x for i, f in enumerate(OPERATIONS)]

        def total(logits):
            module = MixedOperation(operations, weighting=weighting)
            module.logits[...] = logits
            return jnp.sum(module(X))

        return np.asarray(jax.jit(jax.grad(total))(jnp.asarray(LOGITS, jnp.float32)))

    np.testing.assert_allclose(slope("max_w", 1.0), slope("max_w", 50.0), rtol=1e-5)
    assert np.abs(slope("softmax", 1.0) - slope("softmax", 50.0)).max() > 1


def test_parameters_and_architecture_are_apart():
    module = MixedOperation([nnx.Linear(3, 3, rngs=nnx.Rngs(0)), jnp.sin])
    for wrt, moves in ((Architecture, "logits"), (nnx.Param, "operations")):
        optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=wrt)
        before = nnx.to_pure_dict(nnx.state(module))
        grads = nnx.jit(
            nnx.grad(lambda m: jnp.sum(jnp.square(m(X) - 1)), argnums=nnx.DiffState(0, wrt))
        )(module)
        optimizer.update(module, grads)
        after = nnx.to_pure_dict(nnx.state(module))
        for name in before:
            pairs = zip(*map(jax.tree.leaves, (before[name], after[name])), strict=True)
            assert (name == moves) == any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
