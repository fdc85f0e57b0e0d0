"""The penalty is found through a response that is trained, and not without one."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import self_tuning_networks as paper


def test_exact_ridge():
    data = paper.make_data(100)
    x, y = data["x"].astype(float), data["y"]
    rows = np.concatenate([x, np.exp(-1) * np.sqrt(len(x)) * np.eye(x.shape[1])])
    w = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)[0]
    want = np.mean((data["x_valid"] @ w - data["y_valid"]) ** 2)
    np.testing.assert_allclose(paper.ridge_error(data, -2.0), want, rtol=1e-6)


def test_reproduce_shortened(monkeypatch):
    """Without perturbation, h stops early: on seed 102 already after a quarter of the rounds."""
    monkeypatch.setattr(paper, "ROUNDS", 1000)
    result = paper.reproduce(seed=102, seeds=1)
    assert result.holds
    assert Result.from_json(result.to_json()) == result
