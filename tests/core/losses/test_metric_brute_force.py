"""Losses over pairs against loops over pairs and triplets, for every kind of label set."""

import functools

import brute_pairs as brute
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

N, D = 9, 5


def label_sets():
    rng = np.random.default_rng(3)
    return {
        "random": rng.integers(0, 3, N),
        "with classes of one": np.array([0, 0, 1, 1, 1, 2, 3, 4, 4]),
        "all equal": np.zeros(N, int),
        "all different": np.arange(N),
    }


def embeddings(kind):
    x = np.random.default_rng(1).normal(size=(N, D))
    if kind == "duplicates":
        x[4], x[7] = x[1], x[1]
    return x * 0.7


@functools.cache
def jitted(name, **static):
    return jax.jit(functools.partial(getattr(losses, name), **static))


def one(name, slow, slow_kw=None, **static):
    return pytest.param(name, slow, slow_kw or {}, static, id=f"{name}-{static}")


CASES = [
    one("contrastive_loss", brute.contrastive),
    one(
        "contrastive_loss",
        brute.contrastive,
        {"reduce": brute.active, "m_p": 0.4, "m_n": 2.0, "k": 1},
        reduction="active",
        positive_margin=0.4,
        negative_margin=2.0,
        power=1,
    ),
    one("contrastive_loss", brute.contrastive, {"reduce": sum}, reduction="sum"),
    one("triplet_loss", brute.triplet_hard),
    one("triplet_loss", brute.triplet_hard, {"margin": None}, margin=None),
    one("triplet_loss", brute.triplet_all, mining="all"),
    one("triplet_loss", brute.triplet_all, {"reduce": sum}, mining="all", reduction="sum"),
    one(
        "triplet_loss",
        brute.triplet_all,
        {"reduce": brute.active},
        mining="all",
        reduction="active",
    ),
    one("triplet_loss", brute.triplet_semi_hard, mining="semi_hard"),
    one(
        "triplet_loss",
        brute.triplet_semi_hard,
        {"reduce": brute.active},
        mining="semi_hard",
        reduction="active",
    ),
    one("n_pair_loss", brute.n_pair),
    one("multi_similarity_loss", brute.multi_similarity),
    one("multi_similarity_loss", brute.multi_similarity, {"eps": None}, mining_margin=None),
    one("circle_loss", brute.circle, {"m": 0.25, "g": 16.0}, margin=0.25, scale=16.0),
    one("threshold_consistent_margin_loss", brute.tcm),
    one("supervised_contrastive_loss", brute.supcon),
    one("lifted_structure_loss", brute.lifted),
    one(
        "lifted_structure_loss",
        brute.lifted_pairs,
        {"m_n": 2.0, "m_p": 0.1},
        is_pairwise=True,
        negative_margin=2.0,
        positive_margin=0.1,
    ),
    one("margin_loss", brute.margin_based),
    one("margin_loss", brute.margin_based, {"reduce": brute.mean}, reduction="mean"),
    one("ranked_list_loss", brute.ranked_list),
    one(
        "ranked_list_loss",
        brute.ranked_list,
        {"t_p": 2.0, "t_n": 3.0, "share": 0.3},
        positive_scale=2.0,
        negative_scale=3.0,
        negative_weight=0.3,
    ),
    one("tuplet_margin_loss", brute.tuplet, {"s": 8.0}, scale=8.0),
    one("intra_pair_variance_loss", brute.intra_pair_variance),
    one("nca_loss", brute.nca, {"s": 2.0}, scale=2.0),
    one("angular_loss", brute.angular),
    one("angular_loss", brute.angular, {"degrees": 36.0}, angle=36.0),
]
# What needs all pairs at once.
DENSE = {"angular_loss"}
# First derivatives will do for those whose sums are of the kinds that others have.
FIRST_ORDER = {
    "margin_loss",
    "ranked_list_loss",
    "tuplet_margin_loss",
    "intra_pair_variance_loss",
    "nca_loss",
}


@pytest.mark.parametrize(("name", "slow", "slow_kw", "static"), CASES)
def test_equals_loops(name, slow, slow_kw, static):
    with jax.enable_x64(True):
        fast = jitted(name, **static)
        for kind in ("random", "duplicates"):
            x = embeddings(kind)
            for label, y in label_sets().items():
                want = slow(x, y, **slow_kw)
                got = fast(jnp.asarray(x), jnp.asarray(y))
                np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10, err_msg=label)


@pytest.mark.parametrize("name", sorted({c.values[0] for c in CASES}))
def test_chunks_memory_masks_and_sets_change_nothing(name):
    """Other ways to say the same: chunks, the batch as references, masks, sets of one label."""
    x, y = embeddings("random"), label_sets()["with classes of one"]
    with jax.enable_x64(True):
        x, y = jnp.asarray(x), jnp.asarray(y)
        f = getattr(losses, name)
        want = jitted(name)(x, y)
        sets = jax.nn.one_hot(y, 5) > 0
        np.testing.assert_allclose(jax.jit(f)(x, sets), want, rtol=1e-12, atol=1e-12)
        masks = losses.pair_masks(y)
        np.testing.assert_allclose(jax.jit(f)(x, masks, x), want, rtol=1e-12, atol=1e-12)
        if name in DENSE:
            return

        def derivatives(chunk):
            def total(x):
                return jnp.sum(jnp.cos(jnp.arange(N)) * f(x, y, chunk_size=chunk))

            slope = jax.value_and_grad(total)
            if name in FIRST_ORDER:
                return jax.tree.leaves(jax.jit(slope)(x))
            curve = jax.jit(lambda x: jax.jvp(slope, (x,), (jnp.sin(3 * x),)))
            return jax.tree.leaves(curve(x))

        for a, b in zip(derivatives(4), derivatives(None)):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_references_are_a_memory():
    """Anchors against other embeddings: no pair is left out, and labels decide."""
    x, memory = embeddings("random")[:4], embeddings("random")[4:]
    y = label_sets()["random"]
    with jax.enable_x64(True):
        got = losses.supervised_contrastive_loss(
            jnp.asarray(x), jnp.asarray(y[:4]), jnp.asarray(memory), jnp.asarray(y[4:])
        )
    for i in range(4):
        s = [brute.cosine(x[i], m) / 0.1 for m in memory]
        near = [v for v, label in zip(s, y[4:]) if label == y[i]]
        want = np.mean([brute.lse(s) - v for v in near]) if near else 0.0
        np.testing.assert_allclose(got[i], want, rtol=1e-10)


def test_several_labels():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    masks = losses.pair_masks(jnp.asarray(sets))
    want = (sets.astype(int) @ sets.T > 0) & ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(masks.positive, want)
    np.testing.assert_array_equal(masks.negative, ~want & ~np.eye(4, dtype=bool))


def test_triplet_distances():
    """Squared and normalized distances, and a function of one's own."""
    x, y = embeddings("random"), label_sets()["random"]
    with jax.enable_x64(True):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        got = losses.triplet_loss(
            jnp.asarray(x), jnp.asarray(y), distance="normalized_euclidean", mining="all"
        )
        np.testing.assert_allclose(got, brute.triplet_all(unit, y), rtol=1e-10, atol=1e-12)
        got = losses.triplet_loss(
            jnp.asarray(x),
            jnp.asarray(y),
            distance=lambda a, b: 2 * losses.pairwise_euclidean(a, b),
        )
        np.testing.assert_allclose(got, brute.triplet_hard(2 * x, y), rtol=1e-10, atol=1e-12)


def test_gradient_through_the_selected_pair_alone():
    """Batch-hard: only the anchor, its farthest positive and its nearest negative move."""
    x, y = embeddings("random"), label_sets()["random"]
    with jax.enable_x64(True):
        grad = jax.grad(lambda x: losses.triplet_loss(x, jnp.asarray(y), margin=5.0)[0])(
            jnp.asarray(x)
        )
    d = np.array([brute.euclidean(x[0], b) for b in x])
    near = [j for j in range(1, N) if y[j] == y[0]]
    far = [j for j in range(N) if y[j] != y[0]]
    chosen = {0, max(near, key=d.__getitem__), min(far, key=d.__getitem__)}
    assert set(np.flatnonzero(np.abs(np.asarray(grad)).sum(1) > 1e-12)) == chosen


WITH_PAIRS = {
    "contrastive": losses.contrastive_loss,
    "triplet": losses.triplet_loss,
    "lifted structure": losses.lifted_structure_loss,
    "multi-similarity": losses.multi_similarity_loss,
    "margin": losses.margin_loss,
    "ranked list": losses.ranked_list_loss,
    "tuplet margin": losses.tuplet_margin_loss,
    "nca": losses.nca_loss,
    "energy confusion": losses.energy_confusion_loss,
    "decoupled": lambda x, _: losses.decoupled_contrastive_loss(x, x),
    "hard": lambda x, _: losses.hard_contrastive_loss(x, x),
}


def test_nan_is_not_taken_for_a_small_distance():
    y = jnp.array([0, 0, 1, 1])
    every = jax.jit(lambda x: {name: loss(x, y) for name, loss in WITH_PAIRS.items()})
    for name, values in every(jnp.full((4, 3), jnp.nan)).items():
        assert np.isnan(values).all(), name


def test_distances_of_nan_are_nan():
    x, y = jnp.array([[0.1, 0.2, 0.4]]), jnp.array([[jnp.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])
    names = ("euclidean", "squared_euclidean", "snr", "poincare", "lorentz", "cosine", "dot")
    every = jax.jit(lambda: [getattr(losses, f"pairwise_{name}")(x, y) for name in names])()
    for name, out in zip(names, every):
        np.testing.assert_array_equal(np.isnan(out), [[True, False]], err_msg=name)
