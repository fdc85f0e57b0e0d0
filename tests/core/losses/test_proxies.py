"""Losses with one proxy a class against loops, and their margins."""

import brute_pairs as brute
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

N, D, C = 7, 4, 5


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    x, p = rng.normal(size=(N, D)), rng.normal(size=(C, D))
    labels = np.array([0, 0, 1, 2, 2, 2, 4])  # class 3 is absent
    x[6] = -p[4] + 0.01 * rng.normal(size=D)  # its angle is nearly pi
    return x, labels, p


def softmax_loss(logits, label):
    return -np.log(np.exp(logits[label]) / np.exp(logits).sum())


def run(f, data, **kw):
    return np.asarray(f(*map(jnp.asarray, data), **kw))


def cosines(x, p):
    return np.array([[brute.cosine(a, b) for b in p] for a in x])


@pytest.mark.parametrize(
    ("name", "angular", "additive", "kw"),
    [
        ("normalized_softmax_loss", 0.0, 0.0, {"scale": 8.0}),
        ("arcface_loss", 0.5, 0.0, {"scale": 8.0}),
        ("cosface_loss", 0.0, 0.35, {"scale": 8.0}),
    ],
)
def test_margin_softmax(data, name, angular, additive, kw):
    x, labels, p = data
    cos = cosines(x, p)
    want = []
    for row, y in zip(cos, labels):
        row = row.copy()
        angle = np.arccos(row[y])
        if angle + angular <= np.pi:
            row[y] = np.cos(angle + angular) - additive
        else:
            row[y] = row[y] - angular * np.sin(angular) - additive
        want.append(softmax_loss(8 * row, y))
    with jax.enable_x64(True):
        np.testing.assert_allclose(run(getattr(losses, name), data, **kw), want, rtol=1e-10)


def test_arcface_stays_decreasing_past_pi():
    """The logit of the right class falls with the angle, the whole way round."""
    angle = np.linspace(0, np.pi, 200)
    x = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], -1))
    logits = losses.margin_cosines(x, jnp.zeros(200, int), jnp.eye(2), angular_margin=0.5)
    assert np.all(np.diff(np.asarray(logits)[:, 0]) < 1e-6)


def test_proxy_nca(data):
    x, labels, p = data
    d = 2 - 2 * cosines(x, p)
    rows = range(N)
    others = [sum(np.exp(-d[i, c]) for c in range(C) if c != labels[i]) for i in rows]
    with jax.enable_x64(True):
        want = [d[i, labels[i]] + np.log(others[i]) for i in rows]
        np.testing.assert_allclose(run(losses.proxy_nca_loss, data), want, rtol=1e-10)
        want = [softmax_loss(-9 * d[i], labels[i]) for i in rows]
        got = run(losses.proxy_nca_loss, data, scale=9.0, include_positive=True)
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_proxy_anchor_is_the_papers_sum(data):
    x, labels, p = data
    cos = cosines(x, p)
    attract = {
        c: np.log1p(sum(np.exp(-32 * (cos[i, c] - 0.1)) for i in range(N) if labels[i] == c))
        for c in set(labels)
    }
    repel = [
        np.log1p(sum(np.exp(32 * (cos[i, c] + 0.1)) for i in range(N) if labels[i] != c))
        for c in range(C)
    ]
    want = sum(attract.values()) / len(attract) + sum(repel) / C
    with jax.enable_x64(True):
        got = run(losses.proxy_anchor_loss, data)
        np.testing.assert_allclose(got.mean(), want, rtol=1e-10)
        np.testing.assert_allclose(got[3], repel[3], rtol=1e-10)


def test_adacos(data):
    x, labels, p = data
    cos = cosines(x, p)
    s = np.sqrt(2) * np.log(C - 1)
    for previous in (None, 3.0):
        s = s if previous is None else previous
        b = np.mean(
            [sum(np.exp(s * cos[i, c]) for c in range(C) if c != labels[i]) for i in range(N)]
        )
        angle = np.median([np.arccos(cos[i, labels[i]]) for i in range(N)])
        want = np.log(b) / np.cos(min(np.pi / 4, angle))
        with jax.enable_x64(True):
            got = run(losses.adacos_scale, data, scale=previous)
            np.testing.assert_allclose(got, want, rtol=1e-10)


def test_box_whisker():
    rng = np.random.default_rng(4)
    v = np.concatenate([rng.normal(size=30), [50.0, -50.0]])
    where = rng.uniform(size=32) < 0.8
    for whisker in (0.0, 1.5, 1e6):
        kept = np.sort(v[where])
        q1, q3 = kept[int(0.25 * len(kept))], kept[int(0.75 * len(kept))]
        low, high = q1 - whisker * (q3 - q1), q3 + whisker * (q3 - q1)
        with jax.enable_x64(True):
            got = losses.box_whisker_mask(jnp.asarray(v), jnp.asarray(where), whisker=whisker)
        np.testing.assert_array_equal(got, where & (v >= low) & (v <= high))


def test_unified_negative_pairs(data):
    x, labels, p = data
    cos = cosines(x, p)
    pairs = sorted(
        brute.cosine(x[i], x[j])
        for i in range(N)
        for j in range(i + 1, N)
        if labels[i] != labels[j]
    )
    q1, q3 = pairs[int(0.25 * len(pairs))], pairs[int(0.75 * len(pairs))]
    kept = [v for v in pairs if q1 - 0.5 * (q3 - q1) <= v <= q3 + 0.5 * (q3 - q1)]
    assert len(kept) < len(pairs)
    want = []
    for row, y in zip(cos, labels):
        row = row.copy()
        row[y] -= 0.35
        want.append(softmax_loss(np.concatenate([8 * row, 8 * np.array(kept)]), y))
    kw = {"margin": 0.0, "cosine_margin": 0.35, "scale": 8.0, "whisker": 0.5}
    with jax.enable_x64(True):
        got = run(losses.unified_negative_pair_loss, data, **kw)
        np.testing.assert_allclose(got, want, rtol=1e-10)
        base = run(losses.cosface_loss, data, scale=8.0)
        assert np.all(got > base)
        # One class has no negative pair: the loss of the base.
        same = (x, np.zeros(N, int), p)
        got = run(losses.unified_negative_pair_loss, same, **kw)
        np.testing.assert_allclose(got, run(losses.cosface_loss, same, scale=8.0), rtol=1e-10)
