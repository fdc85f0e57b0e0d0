"""A short run: the ways of training differ, and start from the same student."""

from papyrax.papers import Result
from papyrax.papers import dhkd as paper


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 20)
    monkeypatch.setattr(paper, "TEACHER_STEPS", 20)
    monkeypatch.setattr(paper, "DRAWS", 1)
    result = paper.reproduce(seed=9, seeds=2)
    one_head, plain = result.measures
    assert one_head.method == plain.method
    assert one_head.baseline != plain.baseline
    assert {line.name for line in result.figure.lines} == set(paper.WAYS)
    assert Result.from_json(result.to_json()) == result
