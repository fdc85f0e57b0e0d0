"""The faces are what they say, and a short run."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import kd_loss_landmarks as paper


def test_data():
    x, true, given = paper.make_data(5)
    assert x.shape == (3000, 64)
    assert true.shape == (3000, 20)
    wrong = np.mean(true != given)
    assert 0.04 < wrong < 0.06


def test_smoothing_keeps_what_most_shapes_share():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 8))
    noisy = plane + 0.05 * rng.normal(size=plane.shape)
    smooth = paper.smooth_shapes(noisy, keep=0.99)
    assert np.linalg.matrix_rank(smooth - smooth.mean(0), tol=1e-6) == 2
    assert np.abs(smooth - plane).mean() < np.abs(noisy - plane).mean()


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 20)
    result = paper.reproduce(seed=9, seeds=2)
    assert result.measures[0].method != result.measures[0].baseline
    assert Result.from_json(result.to_json()) == result
