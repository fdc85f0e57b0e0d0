"""Measures against scikit-learn, and what other libraries gave in float64.

Measures of ranking answer in float32 whatever the scores are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import recorded
from hypothesis import given, settings, strategies
from sklearn import metrics as sk

from papyrax import metrics

RANKING = recorded("ranking", "metrics")
RETRIEVAL = recorded("retrieval", "metrics")
RANK = {
    name: jax.jit(getattr(metrics, name), static_argnames="k")
    for name in ("precision_at_k", "recall_at_k", "hit_at_k", "ndcg_at_k")
}
PSP = jax.jit(metrics.propensity_scored_precision_at_k, static_argnames=("k", "is_normalized"))


def test_extreme_classification():
    """Means over the queries, of which one has no label and one has all."""
    scores, targets, counts = (np.array(RANKING[k]) for k in ("scores", "targets", "counts"))
    p = metrics.label_propensities(counts, examples=RANKING["examples"])
    np.testing.assert_allclose(1 / p, RANKING["inverse_propensities"], rtol=1e-6)
    best = jnp.asarray(targets / p)
    for k in (1, 3, 5):
        for name in ("precision_at_k", "recall_at_k", "ndcg_at_k"):
            got = RANK[name](scores, targets, k=k).mean()
            np.testing.assert_allclose(got, RANKING[name][k - 1], rtol=1e-6, err_msg=name)
        got, most = (PSP(s, targets, p, k=k, is_normalized=False).sum() for s in (scores, best))
        want = RANKING["propensity_scored_precision_at_k"][k - 1]
        np.testing.assert_allclose(got / most, want, rtol=1e-6)


def test_ratio_of_each_query():
    scores, targets = (np.array(RANKING[k]) for k in ("scores", "targets"))
    p = 1 / np.array(RANKING["inverse_propensities"])
    p = p.astype(np.float32)
    got, most = (PSP(s, targets, p, k=3, is_normalized=False) for s in (scores, targets / p))
    want = np.where(most > 0, got / np.where(most > 0, most, 1), 0)
    np.testing.assert_allclose(PSP(scores, targets, p, k=3), want, rtol=1e-6)


@pytest.mark.parametrize("name", RETRIEVAL["retrieval"]["value"])
def test_torchmetrics(name):
    entry = RETRIEVAL["retrieval"]
    measure, *k = name.split()
    targets = np.array(entry["gains" if measure == "ndcg_at_k" else "targets"])
    scores = np.array(entry["scores"])
    got = RANK[measure](scores, targets, k=int(k[0])) if k else metrics.r_precision(scores, targets)
    np.testing.assert_allclose(got, entry["value"][name], rtol=1e-6)


@pytest.mark.parametrize("name", RETRIEVAL["calibration"]["value"])
def test_calibration_of_torchmetrics(name):
    entry = RETRIEVAL["calibration"]
    measure, *k = name.split()
    kw = {"k": int(k[0])} if k else {"bins": 7}
    with jax.enable_x64(True):
        p, labels = np.array(entry["probabilities"]), np.array(entry["labels"])
        got = getattr(metrics, measure)(p, labels, **kw)
        # It adds up in float32.
        np.testing.assert_allclose(got, entry["value"][name], rtol=1e-7)


@pytest.mark.parametrize("name", ["own", "other"])
def test_accuracy_calculator(name):
    """It leaves out queries without a relevant reference; here they are zero."""
    entry = RETRIEVAL["accuracy_calculator"]
    x, y, r, ry = (
        np.array(entry[k]) for k in ("queries", "labels", "references", "reference_labels")
    )
    args = (x, y) if name == "own" else (x, y, r, ry)
    got = metrics.retrieval_scores(*args, k=(1,))
    count = np.sum(got.relevant > 0)
    assert count < len(x)
    for ours, theirs in (
        (got.precision_at_1, "precision_at_1"),
        (got.r_precision, "r_precision"),
        (got.map_at_r, "mean_average_precision_at_r"),
    ):
        np.testing.assert_allclose(ours.sum() / count, entry[name][theirs], rtol=1e-6)


EXAMPLES, CLASSES = 12, 5
LABELS = strategies.lists(strategies.integers(0, CLASSES - 1), min_size=EXAMPLES, max_size=EXAMPLES)
SCORES = strategies.lists(strategies.integers(-3, 3), min_size=EXAMPLES, max_size=EXAMPLES)
AGREEMENT = {
    "normalized_mutual_information": sk.normalized_mutual_info_score,
    "adjusted_rand_index": sk.adjusted_rand_score,
    "adjusted_mutual_information": sk.adjusted_mutual_info_score,
}
JITTED = {name: jax.jit(getattr(metrics, name), static_argnames="count") for name in AGREEMENT}
AREA, ERRORS = jax.jit(metrics.roc_auc), jax.jit(metrics.verification_errors)


@pytest.mark.parametrize("name", AGREEMENT)
@given(labels=LABELS, clusters=LABELS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_clusters(name, labels, clusters):
    labels, clusters = np.array(labels), np.array(clusters)
    with jax.enable_x64(True):
        got = JITTED[name](labels, clusters, count=CLASSES)
        np.testing.assert_allclose(got, AGREEMENT[name](labels, clusters), atol=1e-10)


@given(scores=SCORES, labels=LABELS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_areas_and_errors(scores, labels):
    """With ties, and with examples of one kind alone, for which scikit-learn has no area."""
    scores, match = np.array(scores) / 4, np.array(labels) < 2
    with jax.enable_x64(True):
        area = AREA(scores, match)
        errors = jax.tree.map(np.asarray, ERRORS(scores, match))
        if not 0 < match.sum() < EXAMPLES:
            assert area == 0
            return
        np.testing.assert_allclose(area, sk.roc_auc_score(match, scores), rtol=1e-12)
        # From the lowest score on, each threshold once.
        fpr, fnr, thresholds = sk.det_curve(match, scores, drop_intermediate=False)
        for t, accept, reject in zip(thresholds, fpr, fnr, strict=True):
            here = np.nonzero(errors.thresholds == t)[0]
            if len(here):
                np.testing.assert_allclose(errors.false_accept[here], accept, rtol=1e-12)
                np.testing.assert_allclose(errors.false_reject[here], reject, rtol=1e-12)


def test_scores_of_scikit_learn():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(CLASSES) * 0.7, 40), rng.integers(0, CLASSES - 1, 40)
    names = np.arange(CLASSES)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            metrics.negative_log_likelihood(p, y), sk.log_loss(y, p, labels=names), rtol=1e-10
        )
        want = sum(sk.brier_score_loss(y == c, p[:, c]) for c in names)
        np.testing.assert_allclose(metrics.brier_score(p, y), want, rtol=1e-10)
        for k in (1, 3):
            want = sk.top_k_accuracy_score(y, p, k=k, labels=names)
            np.testing.assert_allclose(metrics.top_k_accuracy(p, y, k=k), want, rtol=1e-12)
        assert metrics.top_k_accuracy(p, y, k=CLASSES + 2) == 1
