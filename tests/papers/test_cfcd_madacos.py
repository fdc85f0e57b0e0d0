"""Average precision against scikit-learn's, and a short training."""

import jax
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import cfcd_madacos as paper


def test_mean_average_precision():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    want = []
    for i in range(30):
        others = np.delete(np.arange(30), i)
        want.append(average_precision_score(y[others] == y[i], x[others] @ x[i]))
    assert paper.mean_average_precision(x, y) == pytest.approx(np.mean(want))


def test_training():
    data = paper.make_data(0)
    assert set(data.y) == set(range(6))
    params, scale, margin = paper.train(jax.random.key(0), data, True, 60)
    assert scale.shape == margin.shape == (60,)
    assert scale[0] == 32
    assert scale[-1] > 32
    cos = np.asarray(paper.cosines(params, data.x_test))
    assert np.abs(cos).max() <= 1 + 1e-5
    assert (cos.argmax(-1) == data.y_test).mean() > 0.9


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 120)
    result = paper.reproduce(seed=8, seeds=1)
    assert len(result.measures) == 4
    assert Result.from_json(result.to_json()) == result
