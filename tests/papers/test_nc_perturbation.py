"""The pieces of the model against derivatives of its objective."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import nc_perturbation as paper


def test_stationary_points():
    with jax.enable_x64(True):
        given = jnp.asarray(paper.make_features(7))
        gradient = jax.jit(jax.grad(paper.objective, (0, 1)))

        @jax.jit
        def points(given):
            h = paper.minimize(given, paper.BETA)
            w, best = paper.best_classifier(given), paper.best_classifier(h)
            return h, w, best, paper.slope(given)

        h, w, best, slope = points(given)
        # At the given features the term in beta has no slope.
        at_start, at_end = (
            gradient(w, given, given, paper.BETA),
            gradient(best, h, given, paper.BETA),
        )
        np.testing.assert_allclose(at_start[0], 0, atol=1e-12)
        np.testing.assert_allclose(100 * at_start[1], slope, atol=1e-12)
        for g in at_end:
            np.testing.assert_allclose(g, 0, atol=1e-10)


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "RECORDS", 3)
    result = paper.reproduce(seed=9, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert [m.holds for m in result.measures] == [True, True, False]  # 300 steps are too few
