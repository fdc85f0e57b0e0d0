"""Training memorizes without the regularizer and less with it, already in a few epochs."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import elr as paper


def test_training():
    data = paper.Data(*(a[None] for a in paper.make_data(3, 0.4, examples=100)))
    keys = jax.random.key(0)[None]
    accuracy, wrong = paper.train(keys, data, False, 60)
    _, regularized = paper.train(keys, data, True, 60)
    assert accuracy.shape == wrong.shape == (1, 60)
    assert wrong[0, -1] > 0.6
    assert regularized[0, -1] < wrong[0, -1] - 0.2
    assert jnp.isfinite(accuracy).all()


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 2)
    small = paper.make_data
    monkeypatch.setattr(paper, "make_data", lambda s, noise: small(s, noise, examples=100))
    result = paper.reproduce(seed=9, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2, 2]
    assert not result.holds
    assert Result.from_json(result.to_json()) == result
    assert np.isfinite(result.figure.lines[0].y).all()
