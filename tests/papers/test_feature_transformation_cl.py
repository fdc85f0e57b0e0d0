"""Moved positives score lower at every step, and what they train soon scores high."""

from papyrax.papers import Result
from papyrax.papers import feature_transformation_cl as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "SIZE", 128)
    monkeypatch.setitem(paper.STEPS, "quick", 40)
    # One program to compile, not four.
    monkeypatch.setattr(paper, "train", lambda key, x, **_: train(key, x, True, False, 40))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    lower, ends, *_ = result.measures
    assert lower.holds
    assert ends.method[0] > 0.85
    assert not ends.holds  # not above itself
