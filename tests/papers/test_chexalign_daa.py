"""Samples have the log-probabilities that are said of them, the judge judges, and a short run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import chexalign_daa as paper


def test_log_probabilities_sum_to_one(monkeypatch):
    monkeypatch.setattr(paper, "MOST", 2)
    params = {"length": jnp.array([[0.3, -0.4]]), "finding": jnp.array([[0.1, 1.0, -0.5]])}
    reports = [(a, 0, 1) for a in range(3)]
    reports += [(a, b, 2) for a, b in itertools.product(range(3), repeat=2)]
    rows = np.array(reports)
    total = paper.log_probability(params, np.zeros(12, int), rows[:, :2], rows[:, 2])
    np.testing.assert_allclose(np.exp(total).sum(), 1, rtol=1e-5)


def test_judge():
    truth = jnp.arange(12)[None] < 4
    report = jnp.array([[0, 1, 1, 5, 6, 0, 0, 0, 0, 0]] * 2)
    got = paper.judge(truth, jnp.zeros(2, int), report, jnp.array([4, 1]))
    # Two of four findings and a false one; one of four findings.
    np.testing.assert_allclose(got, [2 / 5, 1 / 4], rtol=1e-6)


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 5)
    result = paper.reproduce(seed=9, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2] * 4
    assert Result.from_json(result.to_json()) == result
    for line in result.figure.lines:
        np.testing.assert_allclose(np.sum(line.y, -1), 1, rtol=1e-4)


def test_samples_follow_the_policy():
    params = {"length": jnp.zeros((1, 10)), "finding": jnp.log(jnp.arange(1.0, 13))[None]}
    report, count = paper.sample(params, jax.random.key(0), jnp.zeros(4000, int))
    np.testing.assert_allclose(np.mean(count), 5.5, atol=0.2)
    shares = np.bincount(np.asarray(report).ravel(), minlength=12) / report.size
    np.testing.assert_allclose(shares, np.arange(1, 13) / 78, atol=0.01)
