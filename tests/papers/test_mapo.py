"""The ring, the distance, and a short run."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import mapo as paper


def test_ring_and_distance():
    a = np.asarray(paper.ring(jax.random.key(0), 500, 3.0, 0.5))
    np.testing.assert_allclose(np.linalg.norm(a, axis=1).mean(), 3, atol=0.05)
    angle = np.arctan2(a[:, 1], a[:, 0]) * 8 / (2 * np.pi)
    assert np.abs(angle % 1 - 0.5).max() < 0.3
    b = np.asarray(paper.ring(jax.random.key(1), 500, 3.0, 0.5))
    near, far = (float(paper.energy_distance(a, x)) for x in (b, 2 * b))
    assert 0 <= near < 0.1 < far


def test_reproduce(monkeypatch):
    for name, value in {
        "STEPS_OF_NOISE": 5,
        "PRETRAIN": 3,
        "ALIGN": 3,
        "SAMPLES": 16,
        "POOL": 256,
    }.items():
        monkeypatch.setattr(paper, name, value)
    result = paper.reproduce(seed=9, seeds=2)
    margin, tuned = result.measures
    assert margin.method == tuned.method
    assert margin.baseline != tuned.baseline
    assert Result.from_json(result.to_json()) == result
