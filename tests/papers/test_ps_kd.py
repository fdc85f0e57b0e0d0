"""What the measurement stands on, and a short run of it."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import ps_kd as paper


def test_data_are_noisy():
    x, y = paper.make_data(7)
    assert x.shape == (4000, 20)
    assert sorted(set(y)) == list(range(5))
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-3)


def test_training():
    x, y = (np.stack([a, a]) for a in paper.make_data(7))
    keys = jnp.stack([jax.random.key(0)] * 2)
    curves, logits = paper.train(keys, x, y, np.float32([0.8, 0.0]), 3)
    assert curves.shape == (2, 3)
    assert logits.shape == (2, 2500, 5)
    assert (curves[:, -1] < curves[:, 0]).all()
    # The first epoch's past is the label: both losses start alike and part later.
    np.testing.assert_allclose(curves[0, 0], curves[1, 0], rtol=1e-5)
    assert abs(curves[0, 2] - curves[1, 2]) > 1e-4


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 3)
    result = paper.reproduce(seed=7, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2, 2, 2]
    assert Result.from_json(result.to_json()) == result
