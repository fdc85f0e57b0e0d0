"""Mined pairs against the miners of pytorch-metric-learning, and how random ones are spread."""

import functools

import jax
import numpy as np
import pytest
from authors_code import recorded
from scipy import stats

from papyrax import losses

ENTRIES = recorded("mining")
X, LABELS = np.array(ENTRIES["embeddings"]), np.array(ENTRIES["labels"])
N = len(X)


def static(name):
    kind, *rest = name.split()
    if kind == "margin_pairs":
        return kind, {"positive_margin": 1.1, "negative_margin": 1.3}
    if kind == "hard_pairs":
        return kind, {"share": float(rest[0])}
    return kind, dict(zip(("positive", "negative"), rest, strict=True))


@pytest.mark.parametrize("name", ENTRIES["masks"])
def test_masks(name):
    kind, kw = static(name)
    with jax.enable_x64(True):
        got = getattr(losses, kind)(X, LABELS, **kw)
    for mask, want in zip(got, ENTRIES["masks"][name], strict=True):
        np.testing.assert_array_equal(mask, [[c == "1" for c in row] for row in want])


def test_what_costs_nothing_is_not_missed():
    """The pairs beyond a loss's own margins are those that it would not count anyway."""
    kw = {"positive_margin": 1.1, "negative_margin": 1.3}
    run = functools.partial(
        losses.contrastive_loss, distance="normalized_euclidean", reduction="sum", **kw
    )
    with jax.enable_x64(True):
        masks = losses.margin_pairs(X, LABELS, **kw)
        np.testing.assert_allclose(run(X, masks), run(X, LABELS), rtol=1e-12)


def draws(count, **kw):
    """Masks of negatives for many keys, and those of positives for one."""
    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(jax.vmap(lambda key: losses.distance_weighted_pairs(key, X, LABELS, **kw)))
    near, far = run(keys)
    return np.asarray(near[0]), np.asarray(far)


def test_negatives_weighted_by_distance():
    """How often each is drawn, against the library's weights; none of a class, none twice."""
    count = 4000
    near, far = draws(count)
    np.testing.assert_array_equal(near, losses.pair_masks(LABELS).positive)
    for i, weights in enumerate(np.array(ENTRIES["weights"])):
        assert np.all(far[:, i].sum(1) == 1)
        assert np.isfinite(weights).all()
        seen, there = far[:, i].sum(0), weights > 0
        assert seen[~there].sum() == 0
        if there.sum() > 1:
            assert stats.chisquare(seen[there], count * weights[there]).pvalue > 1e-4
    _, three = draws(50, negatives=3)
    within = (np.array(ENTRIES["weights"]) > 0).sum(1)
    np.testing.assert_array_equal(three.sum(2), np.broadcast_to(np.minimum(within, 3), (50, N)))


def test_negatives_where_none_is_near():
    """Then all are as likely, and of a batch of one class none is drawn."""
    _, far = draws(2000, cutoff=0.01, farthest=0.02)
    for i in range(N):
        seen = far[:, i].sum(0)
        other = LABELS[i] != LABELS
        assert seen[~other].sum() == 0
        assert stats.chisquare(seen[other]).pvalue > 1e-4
    masks = losses.distance_weighted_pairs(jax.random.key(0), X, 0 * LABELS)
    assert not masks.negative.any()


def test_pairs_spread_over_bins():
    most = {"positives_per_bin": 2, "negatives_per_bin": 5}
    run = jax.jit(functools.partial(losses.histogram_pairs, bins=4, **most))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    with jax.enable_x64(True):
        got, other = (run(jax.random.key(k), X, LABELS) for k in (0, 1))
    for mask, again, whole, count in zip(
        got, other, losses.pair_masks(LABELS), most.values(), strict=True
    ):
        mask, whole = np.asarray(mask), np.asarray(whole)
        assert not np.any(mask & ~whole)
        edges = np.linspace(d[whole].min(), d[whole].max(), 5)
        number = np.clip(np.searchsorted(edges, d, side="right") - 1, 0, 3)
        for b in range(4):
            inside = whole & (number == b)
            assert mask[inside].sum() == min(inside.sum(), count)
        assert not np.array_equal(mask, again)
    assert not any(mask.any() for mask in run(jax.random.key(0), X, np.arange(N))[:1])
