"""A view loses pixels; a short training embeds digits; the verdict is that of the numbers."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import amcl as paper
from papyrax.papers.toys import digits


def test_view():
    x = np.ones((200, 64), np.float32)
    seen = np.asarray(paper.view(jax.random.key(0), x))
    assert np.mean(seen < 0.3) > 0.15


def test_reproduce_shortened(monkeypatch):
    embed = paper.embed
    _, labels = digits()
    monkeypatch.setattr(paper, "DRAWS", 1)

    def short(key, x, images, heads, _):
        return embed(key, x, images, 3, 10) if heads == 3 else np.eye(10)[labels] + 0 * x.mean()

    # Labels for features are better than what ten steps learn.
    monkeypatch.setattr(paper, "embed", short)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    assert 0.5 < result.measures[0].method[0] < 0.95
    assert result.measures[0].baseline == (1.0,)
    assert not result.holds
