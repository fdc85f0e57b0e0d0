"""Energy confusion against loops, and what its gradient is known for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.losses import energy_confusion_loss

Y = np.array([0, 0, 1, 1, 1, 2])


def energy(x, same):
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and (Y[i] == Y[j]) == same]
    return np.mean([np.sum((x[i] - x[j]) ** 2) for i, j in pairs])


def test_against_loops():
    x = np.random.default_rng(0).normal(size=(6, 3))
    with jax.enable_x64(True):
        for logarithm in (True, False):
            for same in (True, False):
                loss = functools.partial(
                    energy_confusion_loss, logarithm=logarithm, same_class=same
                )
                got, chunked = jax.jit(lambda x, f=loss: (f(x, Y), f(x, Y, chunk_size=4)))(x)
                want = energy(x, False) + same * energy(x, True)
                want = np.log(want) if logarithm else want
                np.testing.assert_allclose(got, np.full(6, want), rtol=1e-10)
                np.testing.assert_allclose(chunked, got, rtol=1e-12)


def test_gradient():
    """Descent moves each example toward the mean of the other classes, at any scale alike."""
    x = np.random.default_rng(1).normal(size=(6, 3))
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(lambda x: jnp.mean(energy_confusion_loss(x, Y))))
        g = np.asarray(slope(x))
        np.testing.assert_allclose(np.sum(g * x), 2, rtol=1e-10)
        np.testing.assert_allclose(np.asarray(slope(10 * x)) * 10, g, rtol=1e-9)
        np.testing.assert_allclose(slope(x + 3), g, rtol=1e-9, atol=1e-12)
        for i in range(6):
            others = x[Y[i] != Y]
            away = len(others) * (x[i] - others.mean(0))
            np.testing.assert_allclose(g[i] / np.linalg.norm(g[i]), away / np.linalg.norm(away))
        # One class, or equal examples: nothing to confuse.
        assert not np.any(slope(np.ones((6, 3))))
        alone = jax.jit(lambda x: energy_confusion_loss(x, jnp.zeros(6, int)))
        assert not np.any(alone(x))


def test_on_devices():
    """Gathered or in a ring, the loss of the whole batch."""
    x = np.random.default_rng(2).normal(size=(8, 3)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 1, 0, 3])
    mesh = jax.sharding.Mesh(jax.devices()[:4], "d")
    rows = jax.sharding.PartitionSpec("d")
    want, slope = jax.jit(jax.value_and_grad(lambda x: jnp.mean(energy_confusion_loss(x, y))))(x)
    for ring in (False, True):
        part = jax.shard_map(
            functools.partial(energy_confusion_loss, axis_name="d", ring=ring),
            mesh=mesh,
            in_specs=(rows, rows),
            out_specs=rows,
        )
        value, grad = jax.jit(jax.value_and_grad(lambda x, p=part: jnp.mean(p(x, y))))(x)
        np.testing.assert_allclose(value, want, rtol=1e-5)
        np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-6)
