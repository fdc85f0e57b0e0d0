"""A caption is changed in one place; hard negatives teach what the drawing shows."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import mmclip_hard_negative as paper


def test_change():
    _, attributes = paper.draw(100)
    wrong = np.asarray(paper.change(jax.random.key(0), attributes[:50], 6))
    assert np.all(np.sum(wrong != attributes[:50, None], -1) == 1)
    assert np.all((wrong >= 0) & (wrong < paper.CHOICES))


def test_accuracy(monkeypatch):
    fit = paper.fit
    quick = {"batch": 64, "learning_rate": 3e-3}
    monkeypatch.setattr(paper, "fit", lambda *args, **kwargs: fit(*args, **{**kwargs, **quick}))
    found = paper.accuracy(jax.random.key(0), *paper.draw(100), "softmax", 5, 200)
    assert found > 0.2  # one in nine by chance


def test_reproduce(monkeypatch):
    level = {"in-batch": 0.4, "softmax": 0.5}
    monkeypatch.setattr(
        paper, "accuracy", lambda k, x, y, arm, n, _: level[arm] + n / 50 + 0 * x.mean()
    )
    result = paper.reproduce(seed=100, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert result.holds
    level["softmax"] = 0.4
    assert [m.holds for m in paper.reproduce(seed=100, seeds=2).measures] == [False, True]
