"""Measures of retrieval, clusters and representations against scikit-learn, SciPy and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as sk

from papyrax import metrics

Q, N = 6, 9


@pytest.fixture
def ranked():
    rng = np.random.default_rng(0)
    targets = rng.uniform(size=(Q, N)) < 0.4
    targets[3] = False
    return rng.normal(size=(Q, N)), targets


def order(scores):
    return np.argsort(-scores, axis=1, kind="stable")


def test_ranking_against_loops(ranked):
    scores, targets = ranked
    args = (jnp.asarray(scores), jnp.asarray(targets))
    for k in (1, 3, N):
        for i in range(Q):
            hits = [targets[i, j] for j in order(scores)[i][:k]]
            count = targets[i].sum()
            assert metrics.precision_at_k(*args, k=k)[i] == pytest.approx(sum(hits) / k)
            assert metrics.recall_at_k(*args, k=k)[i] == pytest.approx(sum(hits) / max(count, 1))
            assert metrics.hit_at_k(*args, k=k)[i] == any(hits)
    for i in range(Q):
        count = int(targets[i].sum())
        hits = [bool(targets[i, j]) for j in order(scores)[i]][:count]
        assert metrics.r_precision(*args)[i] == pytest.approx(sum(hits) / max(count, 1))
        ap = sum(hits[r] * sum(hits[: r + 1]) / (r + 1) for r in range(count)) / max(count, 1)
        assert metrics.map_at_r(*args)[i] == pytest.approx(ap)


def test_ndcg_is_that_of_scikit_learn(ranked):
    scores, targets = ranked
    gains = targets * np.random.default_rng(1).uniform(1, 3, targets.shape)
    for k in (1, 4, N):
        got = metrics.ndcg_at_k(jnp.asarray(scores), jnp.asarray(gains), k=k)
        for i in range(Q):
            want = sk.ndcg_score(gains[i : i + 1], scores[i : i + 1], k=k)
            np.testing.assert_allclose(got[i], want, rtol=1e-5)


def test_propensities(ranked):
    scores, targets = ranked
    counts = np.random.default_rng(2).integers(0, 50, N)
    c = (np.log(200) - 1) * (1.5 + 1) ** 0.55
    want = 1 / (1 + c * np.exp(-0.55 * np.log(counts + 1.5)))
    p = metrics.label_propensities(jnp.asarray(counts), examples=200)
    np.testing.assert_allclose(p, want, rtol=1e-5)
    got = metrics.propensity_scored_precision_at_k(
        jnp.asarray(scores), jnp.asarray(targets), p, k=3
    )
    for i in range(Q):
        gain = sum(targets[i, j] / want[j] for j in order(scores)[i][:3])
        best = sum(sorted(targets[i] / want, reverse=True)[:3])
        np.testing.assert_allclose(got[i], gain / best if best else 0.0, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_retrieval_among_themselves(chunk_size):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.integers(0, 4, 12)
    got = metrics.retrieval_scores(jnp.asarray(x), jnp.asarray(y), k=(1, 3), chunk_size=chunk_size)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = unit @ unit.T
    np.fill_diagonal(s, -np.inf)
    relevant = (y[:, None] == y) & ~np.eye(12, dtype=bool)
    args = (jnp.asarray(s), jnp.asarray(relevant))
    for row, k in enumerate((1, 3)):
        np.testing.assert_array_equal(got.hit_at_k[row], metrics.hit_at_k(*args, k=k))
    np.testing.assert_allclose(got.map_at_r, metrics.map_at_r(*args), rtol=1e-6)
    np.testing.assert_allclose(got.r_precision, metrics.r_precision(*args), rtol=1e-6)
    np.testing.assert_array_equal(got.relevant, relevant.sum(1))


def test_clusters_against_scikit_learn():
    rng = np.random.default_rng(4)
    draws = [(rng.integers(0, 5, 40), rng.integers(0, 6, 40)) for _ in range(5)]
    a = rng.integers(0, 5, 40)
    draws += [(a, (a + 2) % 5), (a, a * 0), (a * 0, a * 0), (a, np.where(a > 2, 2, a))]
    accuracy = jax.jit(lambda a, b: metrics.clustering_accuracy(a, b, count=6))
    for a, b in draws:
        table = np.zeros((6, 6))
        np.add.at(table, (a, b), 1)
        rows, columns = linear_sum_assignment(-table)
        args = (jnp.asarray(a), jnp.asarray(b))
        np.testing.assert_allclose(accuracy(*args), table[rows, columns].sum() / 40, rtol=1e-6)
        got = metrics.normalized_mutual_information(*args, count=6)
        np.testing.assert_allclose(got, sk.normalized_mutual_info_score(a, b), atol=2e-6)
        got = metrics.adjusted_rand_index(*args, count=6)
        np.testing.assert_allclose(got, sk.adjusted_rand_score(a, b), atol=2e-6)


def test_uniformity_alignment_tolerance():
    rng = np.random.default_rng(5)
    x, y, labels = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng.integers(0, 3, 8)
    u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    with jax.enable_x64(True):
        a, b = jnp.asarray(x), jnp.asarray(y)
        want = np.log(np.mean([np.exp(-3 * ((u[i] - u[j]) ** 2).sum()) for i, j in pairs]))
        for chunk in (None, 3):
            got = metrics.uniformity(a, scale=3.0, chunk_size=chunk)
            np.testing.assert_allclose(got, want, rtol=1e-10)
        want = np.mean([u[i] @ u[j] * (labels[i] == labels[j]) for i, j in pairs])
        got = metrics.tolerance(a, jnp.asarray(labels))
        np.testing.assert_allclose(got, want, rtol=1e-10)
        want = np.linalg.norm(u - v, axis=1) ** 3
        np.testing.assert_allclose(metrics.alignment(a, b, power=3.0), want, rtol=1e-10)


def test_rankme():
    rng = np.random.default_rng(6)
    q = np.linalg.qr(rng.normal(size=(20, 5)))[0]
    assert metrics.rankme(jnp.asarray(q, jnp.float32)) == pytest.approx(5, abs=1e-3)
    one = np.outer(rng.normal(size=20), rng.normal(size=5))
    assert metrics.rankme(jnp.asarray(one, jnp.float32)) == pytest.approx(1, abs=1e-3)
    x = rng.normal(size=(20, 5))
    s = np.linalg.svd(x, compute_uv=False)
    p = s / s.sum() + 1e-7
    with jax.enable_x64(True):
        for scale in (1.0, 1e8):
            got = metrics.rankme(jnp.asarray(scale * x))
            np.testing.assert_allclose(got, np.exp(-(p * np.log(p)).sum()), rtol=1e-10)


def test_threshold_inconsistency_against_loops():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    x += 1.5 * np.eye(4)[y] * np.array([0.3, 1.0, 2.0, 3.0])[y][:, None]
    y[0] = 5  # a class of one, and class 4 absent: neither counts
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.arccos(np.clip(unit @ unit.T, -1, 1))
    pairs = [(i, j) for i in range(30) for j in range(30) if i != j]
    apart = np.sort([d[i, j] for i, j in pairs if y[i] != y[j]])
    ends = [apart[int(np.ceil(f * len(apart))) - 1] for f in (0.02, 0.3)]
    utility = []
    for t in np.linspace(*ends, 11):
        row = []
        for c in range(4):
            hit = np.mean([d[i, j] <= t + 1e-12 for i, j in pairs if y[i] == c and y[j] == c])
            false = np.mean([d[i, j] <= t + 1e-12 for i, j in pairs if y[i] == c and y[j] != c])
            row.append(2 * hit * (1 - false) / (hit + 1 - false))
        utility.append(row)
    utility = np.array(utility)
    spread = ((utility - utility.mean(1, keepdims=True)) ** 2).mean(0)
    kw = {"classes": 6, "false_accept_range": (0.02, 0.3), "thresholds": 11}
    with jax.enable_x64(True):
        args = (jnp.asarray(x), jnp.asarray(y))
        got = metrics.threshold_inconsistency(*args, **kw)
        np.testing.assert_allclose(got, spread.mean(), rtol=1e-10)
        got = metrics.threshold_inconsistency(*args, worst_share=0.5, **kw)
        worst = np.argsort(utility.mean(0))[:2]
        np.testing.assert_allclose(got, spread[worst].mean(), rtol=1e-10)
