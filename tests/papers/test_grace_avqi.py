"""The geometry finds the layers that tell, and lets fewer attacks through."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import grace_avqi as paper


def test_attack_goes_towards_the_nearest_safe_answer():
    safe = np.array([[[0.0], [10.0]]])
    hidden = np.stack([safe, safe, np.array([[[9.0], [1.0]]])])
    np.testing.assert_allclose(paper.attack(hidden), [[[9.3], [0.7]]])


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "train", lambda k, h, kind, _: train(k, h, kind, 150))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    attacks, _, weight, *_ = result.measures
    assert attacks.method[0] < 0.5 * attacks.baseline[0]
    assert weight.method[0] > 0.4
