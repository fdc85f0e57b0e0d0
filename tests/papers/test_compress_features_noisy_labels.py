"""The three kinds of compression train, each in its way, and the record is complete."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import compress_features_noisy_labels as paper


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 3)
    monkeypatch.setattr(paper, "DRAWS", 1)
    result = paper.reproduce(seed=9, seeds=2)
    assert [len(m.method) for m in result.measures] == [2, 2]
    assert result.measures[0].baseline == result.measures[1].baseline
    curves = np.array([line.y for line in result.figure.lines])
    assert curves.shape == (3, 2, 3)
    assert len({tuple(c.ravel()) for c in curves}) == 3, "each kind trains differently"
    assert (curves[:, :, -1] > 0.3).all(), "each learns, also from 40% wrong labels"
    assert Result.from_json(result.to_json()) == result
