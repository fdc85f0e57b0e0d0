"""A short run on one seed: what the temperature does is visible."""

from papyrax.papers import Result
from papyrax.papers import contrastive_temperature as paper


def test_reproduce_shortened(monkeypatch):
    embed = paper.embed

    def short(*args, steps, **kw):
        return embed(*args, steps=200, **kw)

    monkeypatch.setattr(paper, "embed", short)
    monkeypatch.setattr(paper, "TEMPERATURES", (0.1, 1.0))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    uniform, tolerant, _, hardness = result.measures
    assert uniform.holds
    assert tolerant.holds
    assert hardness.method[0] > hardness.baseline[0]
