"""Ends of training are measured by their formulas, and the verdict follows the numbers."""

import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import sgd_dynamical_stability as paper


def test_dense_threshold_of_one_dimension():
    """1 - 2 r E[a^2] + r^2 E[a^4] = 1."""
    a = np.array([[1.0], [2.0], [-0.5]])
    np.testing.assert_allclose(
        paper.largest_stable_rate(a), 2 * np.mean(a**2) / np.mean(a**4), rtol=1e-6
    )


def test_gradient_descent_ends_where_it_is_stable(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", {"GD": 600})
    monkeypatch.setattr(paper, "RATES", {"GD": (0.2, 50.0)})  # the second diverges
    found = paper.ends(100, "GD")
    assert found["rate"].tolist() == [0.2]
    # At least twice the sum of the product's magnitudes, each with the square of its input.
    x, target = paper.make_data(100)
    assert found["trace"][0] > 0.2 * 2 * np.abs(target).sum() * (x**2).mean(0).min()
    assert found["critical"][0] > found["trace"][0]
    monkeypatch.setattr(paper, "RATES", {"GD": (50.0, 60.0)})
    with pytest.raises(RuntimeError, match="seed 100: GD reached zero loss at no"):
        paper.ends(100, "GD")


@pytest.mark.parametrize("trace", [1.6, 2.5])
def test_verdict(monkeypatch, trace):
    def measured(seed, name):
        rate = np.array([0.1, 0.2, 0.3][: 3 - seed % 2])
        high = trace if name == "SGD" else 2 * trace
        error = 1.0 if name == "SGD" else 2.5
        return {
            "rate": rate,
            "error": error - rate,
            "trace": high * rate / rate.max(),
            "critical": high * rate,
        }

    monkeypatch.setattr(paper, "ends", measured)
    stable = {"SGD": 1.0, "dense": 1.0, "bound": 1.2, "GD": 3.5 if trace < 2 else 2.9}
    monkeypatch.setattr(paper, "least_squares", lambda seed: stable)
    result = paper.reproduce(seed=100, seeds=2)
    good = trace < 2
    assert [m.holds for m in result.measures] == [True, True, good, good and 2 * trace > 3, True]
    assert all(len(line.x) == 2 for line in result.figure.lines)
    assert Result.from_json(result.to_json()) == result
