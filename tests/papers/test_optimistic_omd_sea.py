"""Regret is measured against the best point, and the verdict follows the numbers."""

import numpy as np
import pytest
from scipy.optimize import minimize

from papyrax.papers import Result
from papyrax.papers import optimistic_omd_sea as paper


def test_regret_of_gradient_descent(monkeypatch):
    """A few rounds against a loop; the best point in hindsight lies on the border here."""
    monkeypatch.setattr(paper, "ROUNDS", (6, 6, 6))
    points = 3 * paper.targets(100, 0.5)
    monkeypatch.setattr(paper, "targets", lambda *_: points)
    wanted = []
    for sequence in points:
        x, total = np.zeros(5), 0.0
        for b in sequence:
            total += ((x - b) ** 2).sum() / 2
            x = x - 2 / (2.5 * np.sqrt(6)) * (x - b)
            x = x / max(1, np.linalg.norm(x))
        cost = lambda u, b=sequence: ((u - b) ** 2).sum() / 2  # noqa: E731
        ball = {"type": "ineq", "fun": lambda u: 1 - u @ u}
        best = minimize(cost, np.zeros(5), method="SLSQP", constraints=[ball], tol=1e-12)
        assert best.x @ best.x > 0.999
        wanted.append(total - best.fun)
    got = paper.measure(100, 0.5, "gradient descent")
    np.testing.assert_allclose(got, np.full(3, np.mean(wanted)), rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_verdict(monkeypatch, power):
    def measured(seed, sigma, name):
        own = power if name == "convex" and sigma else {"gradient descent": 0.5}.get(name, 0.0)
        return [max(sigma, 0.1) * t**own for t in paper.ROUNDS]

    monkeypatch.setattr(paper, "measure", measured)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [True, power == 0.5, True, True]
    assert Result.from_json(result.to_json()) == result
