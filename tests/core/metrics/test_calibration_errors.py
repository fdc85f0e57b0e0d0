"""Calibration errors against loops over bins in NumPy, and what they are zero for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import recorded

from papyrax import metrics


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5) * 0.6, 203)
    p[0], p[1] = [0, 0, 1, 0, 0], [0.2] * 5
    return p, rng.integers(0, 5, 203), rng.uniform(size=203) < 0.8


def binned(confidence, right, bins):
    """Gaps and shares of bins that hold their upper edge; the first holds zero as well."""
    edges = np.linspace(0, 1, bins + 1)
    out = []
    for low, high in itertools.pairwise(edges):
        inside = ((confidence > low) | (low == 0)) & (confidence <= high)
        if inside.any():
            out.append((abs(confidence[inside].mean() - right[inside].mean()), inside.mean()))
    return np.array(out).T


def by_rank(confidence, right, bins):
    order, n = np.argsort(confidence, kind="stable"), len(confidence)
    parts = [[i for rank, i in enumerate(order) if rank * bins // n == b] for b in range(bins)]
    return sum(abs(confidence[i].sum() - right[i].sum()) for i in parts if i) / n


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_against_loops(data, bins):
    p, y, _ = data
    confidence, right = p.max(-1), p.argmax(-1) == y
    gaps, shares = binned(confidence, right, bins)
    classes = [binned(p[:, k], y == k, bins) for k in range(5)]
    with jax.enable_x64(True):
        got = [
            f(jnp.asarray(p), y, bins=bins)
            for f in (
                metrics.expected_calibration_error,
                metrics.maximum_calibration_error,
                metrics.adaptive_calibration_error,
                metrics.classwise_calibration_error,
            )
        ]
    want = [(gaps * shares).sum(), gaps.max(), by_rank(confidence, right, bins)]
    want.append(np.mean([(g * s).sum() for g, s in classes]))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_authors():
    """Of the code of two papers on calibration."""
    data = recorded("calibration", "metrics")
    z, y = np.array(data["logits"]), np.array(data["labels"])
    errors = [getattr(metrics, name) for name in data["entries"]]
    want = [entry["value"] for entry in data["entries"].values()]
    with jax.enable_x64(True):
        got = jax.jit(lambda p: [f(p, y, bins=data["bins"]) for f in errors])(jax.nn.softmax(z))
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_scores(data):
    p, y, _ = data
    p = 0.99 * p + 0.002
    with jax.enable_x64(True):
        x = jnp.asarray(p)
        np.testing.assert_allclose(
            metrics.brier_score(x, y), ((p - np.eye(5)[y]) ** 2).sum(-1).mean(), rtol=1e-12
        )
        np.testing.assert_allclose(
            metrics.negative_log_likelihood(x, y), -np.log(p[range(203), y]).mean(), rtol=1e-12
        )
        for k in (1, 2, 5, 9):
            best = np.argsort(-p, -1, kind="stable")[:, :k]
            np.testing.assert_allclose(
                metrics.top_k_accuracy(x, y, k=k), (best == y[:, None]).any(-1).mean(), rtol=1e-12
            )


NAMES = sorted(set(metrics.calibration.__dict__) & set(metrics.__all__) - {"Reliability"})


@pytest.mark.parametrize("name", NAMES)
def test_absent_examples_are_left_out(data, name):
    p, y, there = data
    measure = getattr(metrics, name)
    with jax.enable_x64(True):
        p = jnp.asarray(p) + 1e-9
        want, labels = measure(p[there], y[there]), np.where(there, y, -100)
        padded = jnp.where(there[:, None], p, jnp.nan)
        got = measure(padded, labels, where=jnp.asarray(there))
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-12)
        for leaf in jax.tree.leaves(measure(p, y, where=jnp.zeros(203, bool))):
            assert (leaf == 0).all()


def test_a_wrong_label_or_score_is_not_right():
    p, y = jnp.full((4, 3), 1 / 3), np.array([0, -1, 3, -100])
    assert float(metrics.top_k_accuracy(p, y, k=3)) == 0.25
    assert np.isnan(metrics.negative_log_likelihood(p[1:2], y[1:2]))
    assert float(metrics.top_k_accuracy(p.at[0].set(jnp.nan), y, k=2)) == 0
    assert float(metrics.expected_calibration_error(p[1:], y[1:])) == pytest.approx(1 / 3)


def test_a_calibrated_forecast_has_no_error():
    """Labels drawn so often as the forecast says; in a constant forecast exactly so often."""
    p = jnp.broadcast_to(jnp.array([0.5, 0.3, 0.2]), (10, 3))
    y = np.repeat([0, 1, 2], [5, 3, 2])
    for name in ("expected", "maximum", "classwise"):
        assert abs(float(getattr(metrics, f"{name}_calibration_error")(p, y))) < 1e-6
    assert abs(float(metrics.adaptive_calibration_error(p, y, bins=1))) < 1e-6


def test_reliability(data):
    p, y, _ = data
    out = metrics.reliability_bins(jnp.asarray(p, jnp.float32), y, bins=10)
    assert out.share.sum() == pytest.approx(1)
    full = np.asarray(out.share) > 0
    edges = np.linspace(0, 1, 11)
    assert (np.asarray(out.confidence)[full] > edges[:-1][full] - 1e-6).all()
    assert (np.asarray(out.confidence)[full] <= edges[1:][full] + 1e-6).all()
    assert out.accuracy @ out.share == pytest.approx((p.argmax(-1) == y).mean(), abs=1e-6)
