"""The noise is what it says, and training keeps temperatures in their range."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import ldr_loss as paper


def test_noise_is_uniform_over_the_other_digits():
    clean, noisy = paper.make_data(0, 0.0), paper.make_data(0, 0.6)
    np.testing.assert_array_equal(clean.x, noisy.x)
    assert not clean.wrong.any()
    np.testing.assert_array_equal(noisy.wrong, noisy.y != clean.y)
    assert 0.55 < noisy.wrong.mean() < 0.65
    counts = np.bincount((noisy.y - clean.y)[noisy.wrong] % 10, minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 35


def test_training():
    data = paper.Data(*(np.stack([a, a]) for a in paper.make_data(3, 0.6, examples=200)))
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    accuracy, temperatures = paper.train(keys, data, True, 9)
    assert accuracy.shape == (2, 9)
    assert (accuracy[0] != accuracy[1]).any()
    assert temperatures.shape == (2, 200)
    assert (temperatures >= paper.TEMPERATURE / 2 - 1e-4).all()
    assert (temperatures <= paper.TEMPERATURE + 1e-4).all()
    assert (temperatures < paper.TEMPERATURE).any()
    _, untouched = paper.train(keys, data, False, 9)
    assert (untouched == paper.TEMPERATURE).all()


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 3)
    monkeypatch.setattr(paper, "DRAWS", 2)
    result = paper.reproduce(seed=9, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2, 2, 2]
    assert Result.from_json(result.to_json()) == result
