"""Hard and simple contrastive losses, and the robust global loss with its stochastic algorithm."""

import brute_pairs as brute
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

N, D = 7, 4


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    return x, x + 0.5 * rng.normal(size=(N, D))


def test_hard_and_simple_losses(views):
    x, y = views
    s = np.array([[brute.cosine(a, b) for b in y] for a in x])
    with jax.enable_x64(True):
        args = tuple(map(jnp.asarray, views))
        for share, kept in ((None, N - 1), (1.0, N - 1), (0.5, 3), (1e-3, 1)):
            hard = losses.hard_contrastive_loss(*args, temperature=0.2, hard_share=share)
            simple = losses.simple_contrastive_loss(*args, negative_weight=0.3, hard_share=share)
            for i in range(N):
                far = sorted((s[i, j] for j in range(N) if j != i), reverse=True)[:kept]
                near = np.exp(s[i, i] / 0.2)
                want = -np.log(near / (near + sum(np.exp(v / 0.2) for v in far)))
                np.testing.assert_allclose(hard[i], want, rtol=1e-10)
                np.testing.assert_allclose(simple[i], 0.3 * sum(far) - s[i, i], rtol=1e-10)


def test_relative_penalty_is_the_ratio_of_gradients(views):
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, views)
        r = losses.relative_penalty(x, y, temperature=0.2)
        s = losses.pairwise_cosine(x, y)
        same = jnp.eye(N, dtype=bool)

        def loss(s):
            return jnp.sum(-jnp.diagonal(s / 0.2) + jax.nn.logsumexp(s / 0.2, -1))

        grad = jax.grad(loss)(s)
        want = jnp.where(same, 0, grad / -jnp.diagonal(grad)[:, None])
        np.testing.assert_allclose(r, want, rtol=1e-10)
        np.testing.assert_allclose(r.sum(-1), 1, rtol=1e-12)
        entropy = [
            -jnp.sum(jax.scipy.special.xlogy(p, p), -1)
            for p in (losses.relative_penalty(x, y, temperature=t) for t in (0.05, 0.2, 1.0))
        ]
        assert np.all(entropy[0] < entropy[1])
        assert np.all(entropy[1] < entropy[2])


def test_robust_loss_is_the_worst_weighting():
    """Its least value over the temperature is that of the constrained problem it is the dual of."""
    rng = np.random.default_rng(1)
    h = rng.normal(size=(1, 6)) - 1
    rho = 0.3
    with jax.enable_x64(True):
        t = jnp.geomspace(1e-3, 1e2, 20001)
        values = losses.robust_global_contrastive_loss(
            jnp.broadcast_to(jnp.asarray(h), (len(t), 6)), t, rho=rho
        )
    t, values = np.asarray(t), np.asarray(values)
    best = float(t[np.argmin(values)])
    p = np.exp(h[0] / best)
    p /= p.sum()
    assert (p * np.log(6 * p)).sum() == pytest.approx(rho, abs=1e-3)
    assert float(values.min()) == pytest.approx(p @ h[0], abs=1e-3)
    slopes = np.diff(values) / np.diff(t)
    assert np.all(np.diff(slopes)[t[2:] > 0.01] > -1e-9), "not convex"


def objective(x, y, t, rho):
    """What iSogCLR descends on a whole data set as one batch: both views as anchors."""
    z = jnp.concatenate([x, y])
    s = losses.pairwise_cosine(z, z)
    same = jnp.tile(jnp.eye(len(x), dtype=bool), (2, 2))
    tt = jnp.concatenate([t, t])
    terms = jnp.where(same, 0, jnp.exp(jnp.where(same, 0, s / tt[:, None])))
    mean = jnp.sum(terms, 1) / (2 * len(x) - 2)
    near = jnp.sum(s[: len(x), len(x) :] * jnp.eye(len(x)), 1)
    return t * jnp.log(mean).reshape(2, -1).mean(0) + t * rho - near


def test_isogclr_step_is_the_gradient_of_the_objective(views):
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, views)
        t = jnp.linspace(0.2, 0.6, N)
        state = losses.isogclr_init(N)._replace(temperature=t, velocity=jnp.zeros(N))
        state = state._replace(log_mean=state.log_mean.astype(t.dtype))
        index = jnp.asarray(np.random.default_rng(2).permutation(N))

        def loss(x, y):
            values, new = losses.isogclr_loss(
                state, x[index], y[index], index, averaging=1.0, momentum=1.0, learning_rate=0.1
            )
            return jnp.sum(values), new

        got, new = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, y)
        want = jax.grad(lambda x, y: jnp.sum(objective(x, y, t, 0.3)), argnums=(0, 1))(x, y)
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        slope = jax.grad(lambda t: jnp.sum(objective(x, y, t, 0.3)))(t)
        np.testing.assert_allclose(new.velocity, slope, rtol=1e-9)
        np.testing.assert_allclose(new.temperature, np.clip(t - 0.1 * slope, 0.05, 0.7), rtol=1e-9)


def test_isogclr_touches_the_batch_alone_and_averages(views):
    x, y = (jnp.asarray(v, jnp.float32) for v in views)
    index = jnp.arange(3)
    start = losses.isogclr_init(N)
    _, first = losses.isogclr_loss(start, x[:3], y[:3], index, averaging=0.4)
    for a, b in zip(start, first):
        np.testing.assert_array_equal(a[3:], b[3:])
        assert np.all(np.asarray(a[:3]) != np.asarray(b[:3]))
    frozen = first._replace(temperature=start.temperature)
    _, second = losses.isogclr_loss(frozen, y[:3], 2 * x[:3], index, averaging=0.4)
    # The same similarities again: the average stays what it was.
    np.testing.assert_allclose(second.log_mean[:3], first.log_mean[:3], rtol=1e-5)
