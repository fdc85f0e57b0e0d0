"""Exact steps of a factored layer under spherical losses against dense SGD on all weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import recorded
from jax.sharding import Mesh, PartitionSpec
from linear_layers import assert_equal
from spherical_members import DENSE, MEMBERS, MOMENTS

from papyrax.losses import (
    factored_layer_condition,
    factored_layer_init,
    factored_layer_kernel,
    factored_layer_refresh,
    factored_spherical_step,
    squared_error_of_moments,
    z_loss_of_moments,
)

P = PartitionSpec
STEPS = 200
RATES = {"z": 0.5, "taylor": 0.3, "spherical": 0.2, "squared": 0.02}


def batches(features, batch, classes):
    rng = np.random.default_rng(1)
    kernel = jnp.asarray(rng.normal(size=(features, classes)) / features**0.5)
    h = jnp.asarray(rng.normal(size=(STEPS, batch, features)) + 0.3)
    return kernel, h, jnp.asarray(rng.integers(classes, size=(STEPS, batch)))


def sgd(name):
    """Dense SGD: the kernel after all steps, and every loss and gradient by the inputs."""

    def step(kernel, batch):
        h, y = batch
        mean = lambda w, h: (lambda v: (v.mean(), v))(DENSE[name](h @ w, y))  # noqa: E731
        (by_w, by_h), losses = jax.grad(mean, (0, 1), has_aux=True)(kernel, h)
        return kernel - RATES[name] * by_w, (losses, by_h)

    return jax.jit(lambda kernel, h, y: jax.lax.scan(step, kernel, (h, y)))


def factored(name, axis_name=None):
    """The same by factored steps."""

    def run(kernel, h, y):
        def step(state, batch):
            losses, gradient, state = factored_spherical_step(
                state,
                *batch,
                learning_rate=RATES[name],
                loss=MOMENTS[name],
                axis_name=axis_name,
            )
            return state, (losses, gradient)

        state = factored_layer_init(kernel, axis_name=axis_name)
        state, out = jax.lax.scan(step, state, (h, y))
        return state, factored_layer_kernel(state), out

    return run


@pytest.mark.parametrize("name", MEMBERS)
def test_factored_steps_are_those_of_dense_sgd(name):
    with jax.enable_x64(True):
        # Batches below and above the number of features, with labels that occur twice.
        for batch in (3, 8) if name == "z" else (3,):
            kernel, h, y = batches(5, batch, 11)
            state, end, out = jax.jit(factored(name))(kernel, h, y)
            want, trace = sgd(name)(kernel, h, y)
            assert np.abs(np.asarray(want - kernel)).max() > 0.1
            assert_equal((end, out), (want, trace), rtol=1e-8)
            again = jax.jit(factored_layer_refresh)(state)
            assert_equal(again.gram, state.gram, rtol=1e-8)
            assert_equal((again.mean, factored_layer_kernel(again)), (state.mean, end), rtol=1e-8)
            assert factored_layer_condition(state) > 1 + 1e-6
            np.testing.assert_allclose(factored_layer_condition(again), 1, rtol=1e-12)


@pytest.mark.parametrize("loss", [z_loss_of_moments, squared_error_of_moments])
def test_authors(loss):
    """Ten steps of their C++ code, every batch with a label twice; they sum over the batch."""
    data = recorded("factored_layer")
    entry, batch = data["entries"][loss.__name__], np.shape(data["hidden"])[1]
    with jax.enable_x64(True):
        kernel, h, y = (jnp.asarray(np.array(data[k])) for k in ("kernel", "hidden", "labels"))

        def step(state, examples):
            rate = batch * entry["learning_rate"]
            values, gradient, state = factored_spherical_step(
                state, *examples, learning_rate=rate, loss=loss
            )
            return state, (batch * values.mean(), batch * gradient)

        run = jax.jit(lambda w: jax.lax.scan(step, factored_layer_init(w), (h, y)))
        state, (values, gradients) = run(kernel)
        np.testing.assert_allclose(values, entry["losses"], rtol=1e-10)
        assert_equal(gradients, np.array(entry["gradients"]), rtol=1e-10)
        assert_equal(factored_layer_kernel(state).T, np.array(entry["end"]), rtol=1e-10)


def test_factored_steps_with_rows_on_eight_devices():
    with jax.enable_x64(True):
        kernel, h, y = batches(5, 3, 16)
        mesh = Mesh(np.array(jax.devices()[:8]), ("vocabulary",))
        split = P(None, "vocabulary")
        run = jax.shard_map(
            lambda *a: factored("z", "vocabulary")(*a)[1:],
            mesh=mesh,
            in_specs=(split, P(), P()),
            out_specs=(split, P()),
        )
        assert_equal(jax.jit(run)(kernel, h, y), sgd("z")(kernel, h, y), rtol=1e-8)


def test_refreshing_restores_what_float32_has_lost():
    """Steps that squeeze all rows along the inputs: without, the inverse loses its digits."""
    kernel, h, y = (np.asarray(a) for a in batches(5, 3, 11))
    h = (h * np.array([1.5, 1, 1, 1, 0.2]))[:100].astype(np.float32)
    y, rate = y[:100].astype(np.int32), 0.03
    step = functools.partial(factored_spherical_step, learning_rate=rate, loss=MOMENTS["squared"])
    step, refresh = jax.jit(step), jax.jit(factored_layer_refresh)
    once = often = factored_layer_init(jnp.asarray(kernel, jnp.float32))
    exact = kernel.astype(np.float32).astype(float)
    for i in range(len(h)):
        once, often = step(once, h[i], y[i])[2], step(often, h[i], y[i])[2]
        if i % 10 == 9:
            often = refresh(often)
        x = h[i].astype(float)
        exact = exact - rate * 2 / 3 * x.T @ (x @ exact - np.eye(11)[y[i]])
    error = [float(np.abs(factored_layer_kernel(s) - exact).max()) for s in (once, often)]
    assert factored_layer_condition(once) > 1e4
    assert error[1] < 1e-6 < 1e-3 < error[0]


def test_steps_take_no_time_or_memory_of_the_vocabulary():
    """XLA counts the operations: as many for 50,000 classes as for 500, and no copy of the rows."""

    def cost(classes):
        state = jax.eval_shape(factored_layer_init, jax.ShapeDtypeStruct((8, classes), jnp.float32))
        step = functools.partial(factored_spherical_step, learning_rate=0.1)
        compiled = (
            jax.jit(step, donate_argnums=0)
            .lower(state, jax.ShapeDtypeStruct((4, 8), jnp.float32), jnp.zeros(4, jnp.int32))
            .compile()
        )
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    assert cost(500) == cost(50_000)
