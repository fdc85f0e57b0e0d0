"""Places close by look alike; the embeddings of two views learn to meet."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import sample4geo as paper


def test_draw():
    first, second, places = paper.draw(100)
    assert first.shape == second.shape == (paper.TRAIN + paper.TEST, 64)
    near = paper.location_neighbours(places, count=1)[:, 0]
    apart = np.linalg.norm(first - first[near], axis=1).mean()
    assert apart < 0.8 * np.linalg.norm(first - np.roll(first, 1, 0), axis=1).mean()


def test_reproduce_shortened(monkeypatch):
    small = {"TRAIN": 256, "TEST": 64, "BATCH": 32, "SELECT": 8, "EPOCHS": 2, "NOISE": 0.02}
    for name, value in small.items():
        monkeypatch.setattr(paper, name, value)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    recall, hardest = result.measures
    assert recall.method[0] > 0.06  # one in 64 by chance
    assert -1 < hardest.method[0] < 1
