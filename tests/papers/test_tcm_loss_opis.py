"""A short run: the loss does what is claimed, and without it the verdict fails."""

from papyrax.papers import Result
from papyrax.papers import tcm_loss_opis as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train

    def short(key, weight, x, y, steps):
        return train(key, weight, x, y, 150)

    monkeypatch.setattr(paper, "train", short)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    consistency, recall = result.measures
    assert consistency.method[0] < consistency.baseline[0]
    assert recall.method[0] > 0.9

    # A loss that is not there changes nothing, and that does not pass.
    def nothing(key, weight, x, y, steps):
        return short(key, 0 * weight, x, y, steps)

    monkeypatch.setattr(paper, "train", nothing)
    assert not paper.reproduce(seed=100, seeds=1).measures[0].holds
