"""Losses of episodes, hard negatives and several heads against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9)


def brute_icnn(x, y, k, reach, eps=1e-7):
    n = len(x)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1) + 1e-6)
    near = [sorted((j for j in range(n) if j != i), key=lambda j, i=i: d[i, j]) for i in range(n)]
    largest = max([d[i, j] for i in range(n) for j in near[i][:k] if y[j] != y[i]], default=0)
    same, different, pure = [], [], []
    for i in range(n):
        foreign = [d[i, j] for j in near[i][:reach] if y[j] != y[i]]
        r = [d[i, j] / (min(foreign) + eps) if foreign else 0 for j in near[i][:k]]
        r = [v / max(1, *r) for v in r]
        own = [v for v, j in zip(r, near[i]) if y[j] == y[i]]
        other = [d[i, j] / (largest + eps) for j in near[i][:k] if y[j] != y[i]]
        if own:
            same.append(sum(own) / (len(own) + eps))
        if other:
            different.append(sum(other) / (len(other) + eps))
        pure.append(len(own) / k)
    lam = 1 - sum(same) / (len(same) + eps) if same else 0
    lam += sum(different) / (len(different) + eps) if different else 1
    return -np.log((lam / 2 + np.mean(pure)) / 2)


def test_icnn():
    rng = np.random.default_rng(0)
    run = jax.jit(losses.icnn_loss, static_argnames=("neighbours", "reach"))
    with jax.enable_x64(True):
        for spread, reach in ((0.3, None), (1.0, None), (3.0, 8)):
            y = rng.integers(0, 3, 12)
            x = np.eye(3)[y] * 2 + spread * rng.normal(size=(12, 3))
            got = run(x, y, neighbours=3, reach=reach or 4)
            close(got, np.full(12, brute_icnn(x, y, 3, reach or 4)))
        # All neighbours of one's own class: nothing to learn; all of another: still a number.
        assert np.all(run(x, np.zeros(12, int), neighbours=3, reach=4) < 1e-6)
        close(run(x, np.arange(12), neighbours=3, reach=4)[0], brute_icnn(x, range(12), 3, 4))
        # A rotation and a shift change nothing.
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        close(run(x @ turn + 5, y, neighbours=3, reach=4), run(x, y, neighbours=3, reach=4))


def test_prototype_triplet():
    rng = np.random.default_rng(1)
    x, c, y = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.integers(0, 4, 7)
    want = []
    for z, label in zip(x, y):
        d = np.sqrt(np.sum((z - c) ** 2, 1) + 1e-6)
        want.append(max(0, d[label] - min(np.delete(d, label)) + 0.3))
    with jax.enable_x64(True):
        close(losses.prototype_triplet_loss(x, y, c, margin=0.3), want)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_hard_negative_triplet(temperature):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 6, 3))
    relevant = rng.random((6, 6)) < 0.4
    relevant[2] = True  # no negative
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    s, want = u @ v.T, []
    for i in range(6):
        top = sorted((s[i, j] for j in range(6) if j != i and not relevant[i, j]), reverse=True)[:3]
        cost = np.array([max(0, t - s[i, i] + 0.4) for t in top])
        weight = np.ones(len(top))
        if temperature:
            e = np.exp(np.where(cost > 0, top, 0) / temperature)
            weight = e / e.sum()
        want.append((cost * weight).sum() / max(len(top), 1))
    with jax.enable_x64(True):
        loss = losses.hard_negative_triplet_loss
        kw = {"margin": 0.4, "negatives": 3, "temperature": temperature}
        close(loss(jnp.asarray(x), jnp.asarray(y), jnp.asarray(relevant), **kw), want)
        # The hardest alone is the batch-hard triplet, with cosines for distances.
        one = loss(jnp.asarray(x), jnp.asarray(y), margin=0.4, negatives=1, temperature=temperature)
        hard = np.where(np.eye(6), -np.inf, s).max(1)
        close(one, np.maximum(hard - np.diagonal(s) + 0.4, 0))


def test_multi_head():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 2, 4, 3))
    t = rng.uniform(0.2, 2, (2, 8, 8))
    z = np.concatenate([x, y], 1)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    omega = 1.5 * np.log(t) + 1 / t
    terms = z @ np.swapaxes(z, 1, 2) / t - 0.3 * omega
    smooth, hard = np.zeros(8), np.zeros(8)
    for h in range(2):
        for i in range(8):
            others = [terms[h, i, j] for j in range(8) if j % 4 != i % 4]
            near = terms[h, i, (i + 4) % 8]
            smooth[i] += np.log(np.sum(np.exp(others))) - near
            hard[i] += max(others) - near
    with jax.enable_x64(True):
        loss = losses.multi_head_contrastive_loss
        run = jax.jit(loss, static_argnames=("regularization", "is_smooth"))
        got = run(x, y, t, regularization=0.3)
        close(got, (smooth[:4] + smooth[4:]) / 2)
        least = run(x, y, t, regularization=0.3, is_smooth=False)
        close(least, (hard[:4] + hard[4:]) / 2)
        assert np.all(least <= got)
        assert np.all(got <= least + 2 * np.log(6))
        # One head, one temperature, no regularization: NT-Xent without the positive below.
        got = loss(x[:1], y[:1], 0.5, regularization=0.0)
        want = losses.decoupled_contrastive_loss(
            jnp.asarray(x[0]), jnp.asarray(y[0]), temperature=0.5
        )
        close(got, want)
        # The temperature that fits a pair at a distance.
        o = jax.grad(lambda t: -0.2 / t + 1.5 * jnp.log(t) + 1 / t)
        assert abs(o(2 * (1 - 0.2) / 3)) < 1e-12
