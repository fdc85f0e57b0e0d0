"""Each method trains in its own way, and the record is complete."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import rankmixup as paper


def test_data_is_split():
    x, y, x_test, y_test = paper.make_data(3)
    assert x.shape == (800, 64)
    assert x_test.shape == (997, 64)
    assert not set(map(bytes, x)) & set(map(bytes, x_test))
    assert (np.bincount(y, minlength=10) > 50).all()
    assert len(y_test) == 997


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 40)
    result = paper.reproduce(seed=9, seeds=1)
    ours, theirs = result.measures[2].method[0], result.measures[2].baseline[0]
    assert ours > 0.5
    assert theirs > 0.5
    assert ours != theirs
    assert len({line.y for line in result.figure.lines}) == 3
    assert Result.from_json(result.to_json()) == result
