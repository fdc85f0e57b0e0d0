"""The optimal and the worst scores are what they are said to be; a wrong bound is caught."""

import jax
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import comp_sum_losses as paper


@pytest.mark.parametrize("order", paper.ORDERS)
def test_no_random_scores_beat_the_best_ones(order):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 50)
    with jax.enable_x64(True):
        best = np.asarray(paper.risk(paper.best_scores(p, order), p, order))
        for _ in range(20):
            near = paper.best_scores(p, order) + rng.normal(size=p.shape) * 0.1
            assert (np.asarray(paper.risk(near, p, order)) >= best - 1e-12).all()
    worst = paper.worst_scores(p, order)
    np.testing.assert_array_equal(worst.argmax(-1), np.argsort(p, -1)[:, -2])


@pytest.mark.parametrize("factor", [0.98, 1.05])
def test_a_wrong_factor_breaks_a_side(monkeypatch, factor):
    right = paper.comp_sum_regret_bound
    monkeypatch.setattr(paper, "comp_sum_regret_bound", lambda r, **kw: factor * right(r, **kw))
    with jax.enable_x64(True):
        *_, ratio = paper.quotients(0, 1.0, 4000)
    assert not 0.99 <= ratio.max() <= 1 + 1e-6


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "ORDERS", (1.0,))
    result = paper.reproduce(seed=100, seeds=1)
    assert result.holds
    assert Result.from_json(result.to_json()) == result
