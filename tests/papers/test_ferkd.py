"""Crops show what they should, and a short run."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import ferkd as paper


def test_crops_are_windows():
    ramp = jnp.tile(jnp.arange(8.0), 8)[None]
    out = np.asarray(paper.crops(jax.random.key(0), ramp, 50)).reshape(50, 8, 8)
    # Rows of a horizontal ramp stay alike, values stay within, and every crop is a gentler ramp.
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1], out.shape), atol=1e-4)
    assert out.min() >= 0
    assert out.max() <= 7
    slopes = out[:, 0, 4] - out[:, 0, 3]
    assert (slopes > 0.45).all()
    assert (slopes < 1.05).all()


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 20)
    monkeypatch.setattr(paper, "TEACHER_STEPS", 20)
    result = paper.reproduce(seed=9, seeds=2)
    soft, hard = result.measures
    assert soft.method == hard.method
    assert soft.baseline != hard.baseline
    assert Result.from_json(result.to_json()) == result
