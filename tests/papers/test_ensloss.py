"""The data are as described and all losses train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import ensloss as paper


def test_data():
    noisy, cancer = paper.make_data("noisy", 0), paper.make_data("cancer", 0)
    assert noisy.x.shape == (400, 100)
    assert len(noisy.x_test) == 1500
    assert cancer.x.shape == (398, 30)
    np.testing.assert_allclose(noisy.x.mean(0), 0, atol=1e-5)
    assert set(noisy.y) == {0, 1}
    again = paper.make_data("noisy", 0)
    np.testing.assert_array_equal(again.y, noisy.y)


@pytest.mark.parametrize("name", ["EnsLoss", "hinge loss"])
def test_training(name):
    data = paper.Data(*(a[None] for a in paper.make_data("cancer", 1)))
    accuracy, fit = paper.train(jax.random.key(0)[None], data, paper.LOSSES[name], 6)
    assert accuracy.shape == (1, paper.POINTS)
    assert accuracy[0, -1] > 0.85
    assert fit[0] > 0.9


def test_a_loss_of_the_wrong_sign_fails():
    data = paper.Data(*(a[None] for a in paper.make_data("cancer", 1)))
    wrong = lambda f, y, key: -paper.LOSSES["hinge loss"](f, y, key)  # noqa: E731
    accuracy, _ = paper.train(jax.random.key(0)[None], data, wrong, 6)
    assert not jnp.all(accuracy[0] > 0.85)


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 6)
    result = paper.reproduce(seed=7, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2, 2]
    assert len(result.figure.lines) == 3
    assert Result.from_json(result.to_json()) == result
