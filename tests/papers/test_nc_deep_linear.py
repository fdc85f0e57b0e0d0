"""Theory against brute force over the shares, and a short training."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import nc_deep_linear as paper


def test_optimum():
    """One class at a time, by a grid over the singular value of each factor."""
    counts, decay, total = (40, 20, 10, 5), 0.04, 75
    shares, value = paper.optimum(counts, decay)
    want = np.maximum(0, 1 - total * decay / np.sqrt(counts))
    np.testing.assert_allclose(shares, want, atol=1e-12)
    assert shares[-1] == 0
    grid = np.linspace(0, 3, 1501)
    w, h = grid[:, None], grid[None]
    brute = sum(
        (n * (w * h - 1) ** 2 / (2 * total) + decay * (w**2 + n * h**2) / 2).min() for n in counts
    )
    np.testing.assert_allclose(value, brute, rtol=1e-5)
    # Two layers: factors a, b and features h of a class.
    _, value = paper.optimum((5, 5), 0.01, 2)
    grid = np.linspace(0, 2, 161)
    a, b, h = grid[:, None, None], grid[None, :, None], grid[None, None]
    cost = 5 * (a * b * h - 1) ** 2 / 20 + 0.01 * (a**2 + b**2 + 5 * h**2) / 2
    np.testing.assert_allclose(value, 2 * cost.min(), rtol=1e-3)
    # So much regularization that nothing is learned.
    np.testing.assert_array_equal(paper.optimum((5, 5), 1.0, 2)[0], 0)
    np.testing.assert_allclose(paper.optimum((5, 5), 1.0, 2)[1], 0.5)


def test_reproduce(monkeypatch):
    """Two hundred steps are not enough, and the verdicts say so."""
    monkeypatch.setattr(paper, "STEPS", 200)
    result = paper.reproduce(seed=9, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert not any(m.holds for m in result.measures if m.name.startswith("excess"))
    assert all(np.isfinite(m.method).all() for m in result.measures)
