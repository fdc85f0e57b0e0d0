"""ELR against a transcription and its gradient in closed form; dropout and selection by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from papyrax import losses


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4)) * 2, rng.integers(0, 4, 5)


def slow_elr(z, y, target, strength, momentum):
    p = np.clip(softmax(z), 1e-4, 1 - 1e-4)
    target = momentum * target + (1 - momentum) * p / p.sum()
    return -np.log(softmax(z)[y]) + strength * np.log(1 - (target * p).sum()), target


def test_elr_steps(data):
    z, y = data
    indices, table = np.array([3, 0, 6, 2, 5]), np.zeros((7, 4))
    with jax.enable_x64(True):
        state = losses.ElrState(jnp.asarray(table))
        for step in range(3):
            x = z * (step + 1)  # the last step clips
            loss, state = losses.elr_loss(
                state, jnp.asarray(x), y, indices, strength=2.0, momentum=0.6
            )
            for i, n in enumerate(indices):
                want, table[n] = slow_elr(x[i], y[i], table[n], 2.0, 0.6)
                np.testing.assert_allclose(loss[i], want, rtol=1e-9)
        np.testing.assert_allclose(state.targets, table, rtol=1e-9)
        assert (state.targets[jnp.array([1, 4])] == 0).all()


def test_elr_gradient(data):
    """The closed form of the paper, where nothing is clipped; none through the targets."""
    z, y = data
    p, t = softmax(z, -1), np.random.default_rng(1).dirichlet(np.ones(4), 5)
    agreement = (t * p).sum(-1, keepdims=True)
    want = p * (agreement - t) / (1 - agreement)
    with jax.enable_x64(True):
        x, target = jnp.asarray(z), jnp.asarray(t)
        f = lambda x, t: losses.elr_regularizer(x, t).sum()  # noqa: E731
        np.testing.assert_allclose(jax.grad(f)(x, target), want, rtol=1e-9)
        assert (jax.grad(f, 1)(x, target) == 0).all()
        state = losses.ElrState(target)
        g = jax.grad(lambda x: losses.elr_loss(state, x, y, jnp.arange(5), momentum=1.0)[0].sum())
        np.testing.assert_allclose(g(x), p - np.eye(4)[y] + 3 * want, rtol=1e-9)


def test_elr_limits(data):
    z, y = data
    state, index = losses.elr_init(5, 4), jnp.arange(5)
    x = jnp.asarray(z, jnp.float32)
    xent = -jax.nn.log_softmax(x)[index, y]
    for off in ({"strength": 0.0}, {"momentum": 1.0}):
        loss, _ = losses.elr_loss(state, x, y, index, **off)
        np.testing.assert_allclose(loss, xent, rtol=1e-5)
    sure = losses.elr_regularizer(1e4 * jnp.eye(4), jnp.eye(4))
    np.testing.assert_allclose(sure, np.log(1e-4), rtol=1e-3)


def test_nested_dropout_keeps_a_prefix_of_the_right_law():
    x = jnp.ones((2, 6))
    draw = jax.jit(jax.vmap(lambda key: losses.nested_dropout(key, x, std=2.5, mean=1.0)))
    out = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    kept = out.sum(-1)
    assert (kept[:, 0] == kept[:, 1]).all(), "one width for the batch"
    assert (np.diff(out, axis=-1) <= 0).all(), "a prefix"
    law = np.exp(-(((np.arange(1, 7) - 1.0) / 2.5) ** 2))
    got = np.bincount(kept[:, 0].astype(int), minlength=7)[1:] / len(out)
    np.testing.assert_allclose(got, law / law.sum(), atol=0.015)


def test_selected_width():
    rng = np.random.default_rng(2)
    x, w, b = rng.normal(size=(40, 7)), rng.normal(size=(7, 3)), rng.normal(size=3)
    y = (x[:, :4] @ w[:4] + b).argmax(-1)  # the first four features say it all
    width, accuracy = losses.select_nested_width(*map(jnp.asarray, (x, y, w, b)))
    want = [((x[:, :k] @ w[:k] + b).argmax(-1) == y).mean() for k in range(1, 8)]
    np.testing.assert_allclose(accuracy, want, rtol=1e-6)
    assert width == 4
    # Equal accuracies: fewer features.
    assert losses.select_nested_width(jnp.ones((3, 5)), jnp.zeros(3, int), jnp.ones((5, 1)))[0] == 1


def test_small_losses():
    rng = np.random.default_rng(3)
    values = rng.uniform(size=11)
    for rate in (0.0, 0.2, 0.35, 1.0):
        mask = np.asarray(losses.small_loss_mask(jnp.asarray(values), forget_rate=rate))
        kept = int((1 - rate) * 11)
        assert sorted(np.flatnonzero(mask)) == sorted(np.argsort(values)[:kept])
    assert losses.small_loss_mask(jnp.ones(5)).sum() == 4
