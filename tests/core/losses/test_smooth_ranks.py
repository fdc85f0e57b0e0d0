"""Smooth rankings against the rankings themselves, and proxies against what they reduce to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from papyrax import losses

N = 10
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])


def jitted(name, **static):
    return jax.jit(functools.partial(getattr(losses, name), **static))


@pytest.fixture(scope="module")
def ranked():
    """Embeddings, their cosines (no two within 0.003), and the positives of each anchor."""
    x = np.random.default_rng(105).normal(size=(N, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x, unit @ unit.T, (LABELS[:, None] == LABELS) & ~np.eye(N, dtype=bool)


def others(i):
    return np.arange(N) != i


def test_cold_sigmoids_give_average_precision(ranked):
    x, s, near = ranked
    with jax.enable_x64(True):
        alone, itself = (
            np.asarray(jitted("smooth_ap_loss", temperature=1e-5, includes_anchor=b)(x, LABELS))
            for b in (False, True)
        )
    for i in range(N):
        if near[i].any():
            want = 1 - average_precision_score(near[i][others(i)], s[i][others(i)])
            np.testing.assert_allclose(alone[i], want, atol=1e-9)
            want = 1 - average_precision_score(near[i] | ~others(i), s[i])
            np.testing.assert_allclose(itself[i], want, atol=1e-9)
        else:
            assert alone[i] == itself[i] == 0


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_fast_ap(ranked, chunk_size):
    x, s, near = ranked
    want = np.zeros(N)
    for i in np.nonzero(near.any(1))[0]:
        hist = np.zeros((2, 7))
        for j in np.nonzero(others(i))[0]:
            place = (2 - 2 * s[i, j]) / 4 * 6
            low = int(place)
            hist[int(near[i, j]), low] += 1 - (place - low)
            hist[int(near[i, j]), low + 1] += place - low
        below, all_below = np.cumsum(hist[1]), np.cumsum(hist.sum(0))
        terms = [h * b / a for h, b, a in zip(hist[1], below, all_below, strict=True) if a]
        want[i] = 1 - sum(terms) / near[i].sum()
    with jax.enable_x64(True):
        got = jitted("fast_ap_loss", bins=6, chunk_size=chunk_size)(x, LABELS)
        np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("variant", ["O", "Iu", "Ib", "Ds", "Dq"])
def test_pnp_counts_negatives_before_positives(ranked, variant):
    x, s, near = ranked
    cost = {
        "O": lambda r: r,
        "Iu": lambda r: (1 + r) * np.log(1 + r),
        "Ib": lambda r: (3 * r - np.log(1 + 3 * r)) / 9,
        "Ds": lambda r: np.log(1 + r),
        "Dq": lambda r: 1 - 1 / (1 + r) ** 2,
    }[variant]
    far = LABELS[:, None] != LABELS
    with jax.enable_x64(True):
        run = jitted("pnp_loss", variant=variant, temperature=1e-5, scale=3.0, power=2.0)
        got = run(x, LABELS)
    for i in range(N):
        costs = [cost(np.sum(s[i][far[i]] > s[i, p])) for p in np.nonzero(near[i])[0]]
        np.testing.assert_allclose(got[i], np.mean(costs) if costs else 0, atol=1e-9)


def test_histogram_loss_is_the_probability_of_a_wrong_order(ranked):
    x, s, near = ranked
    pairs = np.triu_indices(N, 1)
    want = 1 - roc_auc_score(near[pairs], s[pairs])
    with jax.enable_x64(True):
        run = jitted("histogram_loss", bins=2000, chunk_size=4)
        np.testing.assert_allclose(jnp.mean(run(x, LABELS)), want, atol=1e-9)
        same = jitted("histogram_loss", bins=7)
        chunked = jitted("histogram_loss", bins=7, chunk_size=3)
        np.testing.assert_allclose(same(x, LABELS), chunked(x, LABELS), rtol=1e-10)
        assert not np.any(same(x, np.zeros(N, int)))
        assert not np.any(same(x, np.arange(N)))


def every_pair_at_every_node(x, bins):
    """The histogram loss by its definition."""
    unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    near = (LABELS[:, None] == LABELS) & ~np.eye(N, dtype=bool)
    far = LABELS[:, None] != LABELS
    nodes = jnp.linspace(-1, 1, bins + 1)
    pulse = jax.nn.relu(1 - jnp.abs((unit @ unit.T)[..., None] - nodes) * bins / 2)
    h_near = jnp.einsum("ij,ijr->r", near, pulse) / near.sum()
    h_far = jnp.einsum("ij,ijr->ir", far, pulse) / (far.sum() / N)
    return h_far @ jnp.cumsum(h_near)


@pytest.mark.parametrize("ties", [False, True])
def test_histogram_loss_to_second_order(ranked, ties):
    """Also where values lie at nodes: there of equal, opposite and orthogonal vectors."""
    x = ranked[0].copy()
    if ties:
        x[:4] = [[1, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0]]
    weights, along = np.random.default_rng(0).normal(size=(2, N, 4))

    def derivatives(loss):
        gradient = jax.grad(lambda x: loss(x) @ weights[:, 0])
        return jax.jit(lambda x: (loss(x), *jax.jvp(gradient, (x,), (along,))))

    with jax.enable_x64(True):
        got = derivatives(lambda x: losses.histogram_loss(x, LABELS, bins=4))(x)
        want = derivatives(lambda x: every_pair_at_every_node(x, 4))(x)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_histograms_need_no_array_of_pairs_at_all_nodes():
    def gradient(x):
        return jax.grad(lambda x: losses.histogram_loss(x, labels).sum())(x)

    x, labels = jax.ShapeDtypeStruct((256, 8), np.float32), np.arange(256) // 4
    need = jax.jit(gradient).lower(x).compile().memory_analysis().temp_size_in_bytes
    assert need < 0.3 * 256 * 256 * 101 * 4


def test_histograms_hide_no_nan():
    x = np.eye(3)
    x[0] = np.nan
    assert np.isnan(jitted("histogram_loss", bins=4)(x, np.array([0, 0, 1]))).any()


def test_one_center_a_class():
    rng = np.random.default_rng(1)
    x, p = rng.normal(size=(N, 4)), rng.normal(size=(4, 1, 4))
    with jax.enable_x64(True):
        got = jitted("sub_center_arcface_loss", scale=8.0)(x, LABELS, p)
        want = jitted("arcface_loss", scale=8.0)(x, LABELS, p[:, 0])
        np.testing.assert_allclose(got, want, rtol=1e-12)
        got = jitted("soft_triple_loss", scale=8.0, margin=0.2)(x, LABELS, p)
        want = jitted("cosface_loss", scale=8.0, margin=0.2)(x, LABELS, p[:, 0])
        np.testing.assert_allclose(got, want, rtol=1e-12)
        assert not np.any(losses.center_merging_penalty(jnp.asarray(p)))
        # With a low temperature every class has the center that is nearest.
        p = rng.normal(size=(4, 3, 4))
        got = jitted("soft_triple_loss", scale=8.0, margin=0.0, temperature=1e-6)(x, LABELS, p)
        want = jitted("sub_center_arcface_loss", scale=8.0, margin=0.0)(x, LABELS, p)
        np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_multiplied_angle(margin):
    """`cos(m theta)` where that falls, and falling on; two classes at a right angle to see it."""
    theta = np.linspace(0.01, np.pi - 0.01, 60)
    x = 3 * np.stack([np.cos(theta), np.sin(theta), 0 * theta], 1)
    proxies = np.array([[2.0, 0, 0], [0, 0, 5.0]])
    k = np.floor(theta * margin / np.pi)
    psi = (-1) ** k * np.cos(margin * theta) - 2 * k
    with jax.enable_x64(True):
        labels = np.zeros(60, int)
        loss = jitted("sphereface_loss", margin=margin)(x, labels, proxies)
        np.testing.assert_allclose(loss, np.log1p(np.exp(-3 * psi)), rtol=1e-9)
        assert np.all(np.diff(loss) > 0)
        loss = jitted("sphereface_loss", margin=margin, normalize_proxies=False)(x, labels, proxies)
        np.testing.assert_allclose(loss, np.log1p(np.exp(-6 * psi)), rtol=1e-9)
        loss = jitted("sphereface_loss", margin=margin, annealing=3.0)(x, labels, proxies)
        eased = (3 * np.cos(theta) + psi) / 4
        np.testing.assert_allclose(loss, np.log1p(np.exp(-3 * eased)), rtol=1e-9)
