"""Moved queries are farther from the key, and what is made of them is something else."""

from papyrax.papers import Result
from papyrax.papers import hallucinator as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "SIZE", 128)
    monkeypatch.setitem(paper.STEPS, "quick", 30)
    monkeypatch.setattr(paper, "probe", lambda *_: 0.5)
    # One program to compile, not two.
    monkeypatch.setattr(paper, "train", lambda key, x, made, steps: train(key, x, True, steps))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    gain, farther, alike = result.measures
    assert gain.method == gain.baseline
    assert not gain.holds
    assert farther.holds
    # At first it has nothing to do with the query.
    made = result.figure.lines[2]
    assert abs(made.y[0][0]) < 0.4
    assert alike.method[0] > made.y[0][0]
