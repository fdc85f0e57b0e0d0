"""Losses over pairs with mixed examples against loops, and their limits on clean ones."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax import losses, metrics


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10)


def pairs(seed=0, a=4, v=6):
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 0.3, 0.8, 1.0], (a, v))
    return rng.uniform(-1, 1, (a, v)), y, rng.uniform(size=(a, v)) < 0.7


def test_mix_features():
    rng = np.random.default_rng(0)
    x, y, each = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2)), rng.uniform(size=(2, 3, 2))
    with jax.enable_x64(True):
        close(losses.mix_features(x, y, 0.25), 0.25 * x + 0.75 * y)
        # A share above one leads away from the other, on their line.
        row = np.array([0.1, 1.7])
        got = losses.mix_features(x, y, row)
        for i in range(2):
            close(got[i] - y[i], row[i] * (x[i] - y[i]))
        close(losses.mix_features(x, y, each), each * x + (1 - each) * y)


def test_targets():
    labels, first, second = np.array([0, 1, 2]), np.array([0, 1, 2, 0]), np.array([1, 1, 0, 2])
    got = losses.mixed_pair_targets(labels, first, second, np.array([0.25, 0.5, 0.75, 1.0]))
    want = [[0.25, 0, 0.25, 1], [0.75, 1, 0, 0], [0, 0, 0.75, 0]]
    np.testing.assert_array_equal(got, np.array(want, np.float32))
    np.testing.assert_array_equal(
        losses.mixed_pair_targets(labels, first, second, 1),
        np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32),
    )


def test_against_loops():
    s, y, where = pairs()
    multi = {"positive_scale": 3.0, "negative_scale": 7.0, "base": 0.4}
    want = np.zeros((4, 4))
    for a in range(4):
        there = [v for v in range(6) if where[a, v]]
        near = [-y[a, v] * s[a, v] for v in there]
        far = [(1 - y[a, v]) * max(s[a, v] - 0.2, 0) for v in there]
        pull = sum(y[a, v] * np.exp(-3 * (s[a, v] - 0.4)) for v in there)
        push = sum((1 - y[a, v]) * np.exp(7 * (s[a, v] - 0.4)) for v in there)
        want[:, a] = (
            sum(near) + sum(far),
            (sum(near) + sum(far)) / len(there),
            sum(sum(c) / max(sum(v > 0 for v in c), 1) for c in (near, far)),
            np.log1p(pull) / 3 + np.log1p(push) / 7,
        )

    @jax.jit
    def everything(s, y, where):
        loss = losses.interpolated_contrastive_loss
        out = [loss(s, y, margin=0.2, reduction=r, where=where) for r in ("sum", "mean", "active")]
        return *out, losses.interpolated_multi_similarity_loss(s, y, where=where, **multi)

    with jax.enable_x64(True):
        close(everything(s, y, where), want)
        assert not np.any(everything(s, y, np.zeros_like(where)))


def test_clean_pairs_give_the_clean_losses():
    """Labels of zero and one: the same numbers as the engine's losses on the same pairs."""
    x, c = np.random.default_rng(1).normal(size=(6, 3)), np.array([0, 0, 1, 1, 1, 2])
    other = ~np.eye(6, dtype=bool)
    multi = {"positive_scale": 3.0, "negative_scale": 7.0, "base": 0.4}

    @jax.jit
    def both(x, c):
        y = losses.mixed_pair_targets(c, c, c[::-1], 1.0)
        s, d = losses.pairwise_cosine(x, x), losses.pairwise_euclidean(x, x)
        got = losses.interpolated_multi_similarity_loss(s, y, where=other, **multi)
        kw = {"margin": -2.0, "reduction": "active", "where": other}
        far = losses.interpolated_contrastive_loss(-d, y, **kw)
        want = losses.multi_similarity_loss(x, c, mining_margin=None, **multi)
        kw = {"negative_margin": 2.0, "power": 1, "reduction": "active"}
        return (got, far), (want, losses.contrastive_loss(x, c, **kw))

    with jax.enable_x64(True):
        close(*both(x, c))


def test_gradient_of_a_mixture_is_shared():
    """What pulls a mixture pulls its parts, by their shares."""
    rng = np.random.default_rng(2)
    anchors, x, z = rng.normal(size=(3, 5, 4))
    share = rng.uniform(size=5)

    def loss(mixed):
        s = losses.pairwise_cosine(anchors, mixed)
        return jnp.sum(losses.interpolated_contrastive_loss(s, jnp.full((5, 5), 0.5)))

    @jax.jit
    def slopes(x):
        mix = lambda x: losses.mix_features(x, z, share)  # noqa: E731
        return jax.grad(lambda x: loss(mix(x)))(x), jax.grad(loss)(mix(x))

    with jax.enable_x64(True):
        of_x, whole = slopes(x)
        close(of_x, share[:, None] * whole)


def test_utilization():
    rng = np.random.default_rng(3)
    q, x = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    measure = jax.jit(lambda q, x: metrics.utilization(q, x, chunk_size=3))
    with jax.enable_x64(True):
        got = measure(q, x)
        close(got, ((q[:, None] - x) ** 2).sum(-1).min(1))
        fewer = measure(q, np.repeat(x[:1], 7, 0))
        assert np.all(got <= fewer)
        assert np.any(got < fewer)
        assert not np.any(measure(x[:5], x))
