"""The data and the training of the reproduction, small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import z_loss_spherical as paper


@pytest.fixture(scope="module")
def small():
    x, y, x_test, y_test = paper.make_data(0, 5120)
    assert len(x_test) == len(y_test) == 10_000
    return (x, y, x_test[:500], y_test[:500]), paper.init(jax.random.key(0), 16, 8)


def test_data(small):
    x, y, *_ = small[0]
    assert x.shape == (5120, 4)
    assert int(y.min()) >= 0
    assert int(y.max()) < paper.WORDS - 1
    windows = np.lib.stride_tricks.sliding_window_view(paper.read_tokens(), 5)
    one = [*np.asarray(x[7]), int(y[7]) + 1]
    assert (windows == one).all(-1).any()


def test_squared_error_is_of_the_family():
    o = jnp.array([[1.0, 2.0, -1.0]])
    label = jnp.array([1])
    want = (o**2).sum() - 2 * o[0, 1] + 1
    assert paper.squared_error(o, label)[0] == pytest.approx(float(want))


def test_training_learns_and_ranks(small):
    data, params = small
    trace = np.asarray(paper.train(params, data, loss=paper.LOSSES["Z(0.1, 10)"], points=2))
    assert trace.shape == (2, 2)
    assert (trace[:, 0] <= trace[:, 1]).all()
    assert trace[-1, 1] > trace[0, 1]
    # The loss of flat gradients learns nothing.
    flat = np.asarray(paper.train(params, data, loss=lambda z, y: 0 * z.sum(-1), points=2))
    assert flat[-1, 1] < trace[-1, 1] - 0.02


def test_reproduce_reports(monkeypatch):
    data, start = paper.make_data, paper.init
    monkeypatch.setattr(
        paper, "make_data", lambda seed, n: tuple(a[:1280] for a in data(seed, 2560))
    )
    monkeypatch.setattr(paper, "init", lambda key: start(key, 8, 4))
    result = paper.reproduce(seed=5, seeds=1)
    assert [len(m.method) for m in result.measures] == [1, 1, 1]
    assert Result.from_json(result.to_json()) == result
