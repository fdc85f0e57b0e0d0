"""Documents have the labels they mix; batches of clusters have harder negatives from the first."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import ngame as paper


def test_relevant():
    got = paper.relevant(np.array([[0, 2, 2], [1, 1, 1]]), np.array([0, 1, 2]))
    assert np.array_equal(got, [[True, False, True], [False, True, False]])


def test_draw():
    labels, documents, mine = paper.draw(100)
    assert documents.shape == (paper.TRAIN + paper.TEST, paper.WIDTH)
    assert np.all(mine % paper.TOPICS == mine[:, :1] % paper.TOPICS)
    assert {len(set(row)) for row in mine[:100]} == {1, 2, 3}
    assert labels.shape == (paper.LABELS, paper.WIDTH)


def test_reproduce_shortened(monkeypatch):
    small = {"LABELS": 400, "TOPICS": 40, "TRAIN": 1024, "TEST": 100, "SIZES": (1, 32)}
    for name, value in small.items():
        monkeypatch.setattr(paper, name, value)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    precision, near = result.measures
    assert precision.method[0] > 0.1
    assert near.method[0] > near.baseline[0] + 0.02
