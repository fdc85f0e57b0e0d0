"""A short fine-tuning closes the gap; without its share it stays open."""

from papyrax.papers import Result
from papyrax.papers import cma as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "train", lambda k, w, x, y, known, _: train(k, w, x, y, known, 200))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    assert result.measures[0].holds
    assert result.measures[1].method[0] < 0.5 * result.measures[1].baseline[0]
    monkeypatch.setattr(
        paper, "train", lambda k, w, x, y, known, _: train(k, 0 * w, x, y, known, 200)
    )
    assert not paper.reproduce(seed=100, seeds=1).holds
