"""UDIM against gradients of single examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import optim

RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(3, 4)), RNG.normal(size=4)
H, HS = RNG.normal(size=(2, 5, 3))
Y = np.array([0, 1, 2, 3, 1])


def example(head, h, y):
    logits = h @ head["w"] + head["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def test_inconsistency_equals_that_of_gradients_of_single_examples():
    with jax.enable_x64(True):
        head = {"w": jnp.asarray(W), "b": jnp.asarray(B)}
        each = jax.vmap(jax.grad(example), (None, 0, 0))
        original, perturbed = (each(head, jnp.asarray(h), jnp.asarray(Y)) for h in (H, HS))
        got = optim.udim_inconsistency(
            jnp.asarray(H), jnp.asarray(H @ W + B), jnp.asarray(HS), jnp.asarray(HS @ W + B), Y
        )
    both, norm = [], 0.0
    for name in ("w", "b"):
        g, s = (np.asarray(x[name]).reshape(5, -1) for x in (original, perturbed))
        both.append((np.mean((g - g.mean(0)) ** 2, 0), np.mean((s - g.mean(0)) ** 2, 0)))
        norm += np.mean(np.sum(s**2, 1)) / s.shape[1]
    v, w = (np.concatenate(part) for part in zip(*both))
    middle = (v + w) / 2
    penalty = (np.mean((v - middle) ** 2) + np.mean((w - middle) ** 2)) / 2
    np.testing.assert_allclose(got, penalty + norm, rtol=1e-12)


@pytest.mark.parametrize("over", ["example", "batch"])
def test_perturbation_climbs_the_loss_at_the_worst_weights(over):
    rho, size = 0.3, 0.01

    def loss(head, h, y):
        return jax.vmap(example, (None, 0, 0))(head, h, y).mean()

    def worst(head, h, y):
        grads = jax.grad(loss)(head, h, y)
        norm = optax.tree.norm(grads)
        return loss(jax.tree.map(lambda p, g: p + rho * g / norm, head, grads), h, y)

    with jax.enable_x64(True):
        head, y = {"w": jnp.asarray(W), "b": jnp.asarray(B)}, jnp.asarray(Y)
        h = jnp.asarray(H)
        moved = optim.udim_perturb(loss, head, h, y, rho=rho, step_size=size, over=over)
        sharp = lambda h: loss(head, h, y) + rho * optax.tree.norm(jax.grad(loss)(head, h, y))  # noqa: E731
        slope = np.asarray(jax.grad(sharp)(h))
        assert worst(head, moved, y) > worst(head, h, y)
        zero = jax.grad(lambda h: jnp.sum(optim.udim_perturb(loss, head, h, y) - h))(h)
    step = np.asarray(moved) - H
    axis = 1 if over == "example" else 0
    np.testing.assert_allclose(np.linalg.norm(step, axis=axis), size, rtol=1e-9)
    want = slope / np.linalg.norm(slope, axis=axis, keepdims=True)
    np.testing.assert_allclose(step / size, want, rtol=1e-9)
    np.testing.assert_allclose(zero, -1)
