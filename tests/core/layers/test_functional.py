"""A module and a loss as one function of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import papyrax
from papyrax.layers import functional

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.arange(8) % 3


class Network(nnx.Module):
    """Everything that has a state of its own."""

    def __init__(self, rngs, rate=0.5):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=0.5, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(rate, rngs=rngs) for _ in range(2)])
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.drops[0](nnx.relu(self.norm(self.first(x))))
        return self.drops[1](self.last(x))


def loss(module, x, y):
    return jnp.mean(papyrax.losses.stablemax_cross_entropy(module(x), y))


def equal(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_value_gradient_and_state_are_those_of_flax():
    """But for the random draws: there are none here."""
    module = Network(nnx.Rngs(0), rate=0.0)
    fun, params, state, merge = functional(module, loss)
    (value, after), grads = jax.value_and_grad(fun, has_aux=True)(params, X, Y)
    wanted = nnx.value_and_grad(loss)(module, X, Y)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
    equal(grads, nnx.to_pure_dict(wanted[1]), rtol=1e-4, atol=1e-6)
    moments = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))["norm"]
    equal(after["norm"], moments, rtol=1e-5)  # flax has changed its module, and we have not
    assert not np.allclose(state["norm"]["mean"], after["norm"]["mean"])
    merged = merge(params, after)
    merged.eval(), module.eval()
    np.testing.assert_allclose(merged(X), module(X), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"microbatches": 2}, {"fraction": 0.5}], ids=str)
def test_curvature_in_parts_carries_the_state(options):
    """Random draws are new in every step, and the state has its types from the start."""
    fun, params, first, _ = functional(Network(nnx.Rngs(0)), loss)
    oracle = papyrax.curvature.value_grad_and_diag(fun, has_aux=True, **options)
    oracle = jax.jit(oracle, static_argnames="refresh")
    values, state = [], first
    for _ in range(3):
        (value, state), _, curvature = oracle(params, X, Y, key=jax.random.key(1), state=state)
        values.append(float(value))
    assert oracle._cache_size() == 1
    assert jax.tree.map(jnp.shape, curvature.diag) == jax.tree.map(jnp.shape, params)
    fixed = state | {"norm": first["norm"]}
    moved = oracle(params, X, Y, key=jax.random.key(1), state=fixed)[0][0]
    assert len({*values, float(moved)}) == 4


def test_moments_are_the_mean_over_the_parts():
    fun, params, state, _ = functional(Network(nnx.Rngs(0)), loss)
    key = jax.random.key(0)
    oracle = papyrax.curvature.value_grad_and_diag(fun, has_aux=True, microbatches=2)
    (_, after), _, _ = oracle(params, X, Y, key=key, state=state)
    parts = [fun(params, X[i::2], Y[i::2])[1]["norm"] for i in range(2)]
    equal(after["norm"], jax.tree.map(lambda a, b: (a + b) / 2, *parts), rtol=1e-6)


def test_an_auxiliary_output_comes_beside_the_state():
    def with_logits(module, x, y):
        logits = module(x)
        return jnp.mean(papyrax.losses.stablemax_cross_entropy(logits, y)), {"logits": logits}

    fun, params, state, _ = functional(Network(nnx.Rngs(0)), with_logits, has_aux=True)
    _, (after, aux) = fun(params, X, Y, state=state)
    assert aux["logits"].shape == (8, 3)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_adahessian_trains_a_module_with_dropout_and_moments():
    fun, params, state, merge = functional(Network(nnx.Rngs(0), rate=0.1), loss)
    oracle = papyrax.curvature.value_grad_and_diag(fun, has_aux=True)
    tx = papyrax.optim.adahessian(0.1)

    def step(carry, key):
        params, state, slow = carry
        (value, state), grads, curvature = oracle(params, X, Y, key=key, state=state)
        updates, slow = tx.update(grads, slow, params, curvature=curvature)
        return (optax.apply_updates(params, updates), state, slow), value

    keys = jax.random.split(jax.random.key(0), 60)
    (params, state, _), values = jax.lax.scan(step, (params, state, tx.init(params)), keys)
    assert np.mean(values[-10:]) < 0.5 * values[0]
    module = merge(params, state)
    module.eval()
    assert np.mean(np.argmax(module(X), -1) == Y) > 0.8
