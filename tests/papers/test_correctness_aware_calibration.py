"""Calibrators keep every prediction; the AUROC is scikit-learn's; the record is complete."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import correctness_aware_calibration as paper


def test_calibrators_keep_predictions():
    data = paper.make_data(9, 0)
    assert data.x_test.shape == (4, 797, 64)
    assert not set(map(bytes, data.x)) & set(map(bytes, data.x_cal))
    data = paper.Data(*(a[None] for a in data))
    out = paper.calibrated(jax.random.key(0)[None], data, 5)
    plain = out["none"]
    for p in out.values():
        assert p.shape == (1, 4, 797, 10)
        np.testing.assert_array_equal(p.argmax(-1), plain.argmax(-1))
    assert (out[paper.PAPER.claim.method] != out[paper.PAPER.claim.baseline]).any()


def test_moved_by_half_a_pixel():
    x = jnp.zeros((1, 64)).at[0, 9].set(2.0)
    assert paper.moved(x, (0, 1))[0, 9:11].tolist() == [1.0, 1.0]


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "CALIBRATOR_STEPS", 5)
    monkeypatch.setattr(paper, "DRAWS", 1)
    result = paper.reproduce(seed=9, seeds=1)
    assert [len(m.baseline) for m in result.measures] == [1] * 6
    assert Result.from_json(result.to_json()) == result
