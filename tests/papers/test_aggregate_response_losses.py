"""The minimizers are least-squares solutions, and a short run."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import aggregate_response_losses as paper


def test_ends_are_least_squares():
    """Bags of one: every share fits the same ordinary least squares."""
    with jax.enable_x64(True):
        key = jax.random.key(5)
        out = np.asarray(paper.errors(key[None], 1))[0]
        a, b, c = jax.random.split(key, 3)
        theta = jax.random.normal(a, (60,)) / jnp.sqrt(60)
        x = np.asarray(jax.random.normal(b, (400, 1, 60)))[:, 0]
        y = x @ theta + np.asarray(jax.random.normal(c, (400, 1)))[:, 0]
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(out, np.sum((w - theta) ** 2), rtol=1e-5)


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "SIZES", (4,))
    monkeypatch.setattr(paper, "DRAWS", 2)
    result = paper.reproduce(seed=9, seeds=2)
    assert len(result.measures) == 1
    # The line's ends are the two losses.
    (curve, _) = result.figure.lines[0].y
    assert min(curve[0], curve[-1]) == result.measures[0].baseline[0]
    assert Result.from_json(result.to_json()) == result
