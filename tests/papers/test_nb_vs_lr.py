"""Few examples are enough for naive Bayes; logistic regression is the one that is meant."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import nb_vs_lr as paper


def test_logistic_regression_is_at_its_minimum():
    """Where the gradient of the penalized sum, by NumPy, is zero."""
    x, y = paper.simulate(np.random.default_rng(0), 50, 24)
    x = x[:, :50]
    kernel, bias = jax.jit(paper.logistic_head)(x, y)
    logits = np.asarray(x @ kernel + bias, float)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = x.T @ (p - np.eye(3)[y]) + kernel
    assert np.abs(slope).max() < 1e-2 * np.abs(kernel).max()


def test_examples_needed(monkeypatch):
    monkeypatch.setattr(paper, "SIZES", (10, 20, 40))
    assert paper.examples_needed(np.array([0.01, 0.0, 0.0])) == 10
    assert paper.examples_needed(np.array([0.5, 0.03, 0.01])) == 20 * 2**0.5
    assert paper.examples_needed(np.array([0.5, 0.4, 0.3])) == np.inf


def test_reproduce_shortened(monkeypatch):
    """Of one draw, with 24 examples whatever is asked for."""
    monkeypatch.setattr(paper, "DRAWS", 1)
    original = paper.errors
    monkeypatch.setattr(paper, "errors", lambda *data, size: original(*data, size=24))
    result = paper.reproduce(seed=100, seeds=1)
    assert [m.holds for m in result.measures[:3]] == [True, True, False]
    assert Result.from_json(result.to_json()) == result
