"""The exact temperatures are the minimizers, and a broken algorithm does not pass."""

import numpy as np

from papyrax.losses import robust_global_contrastive_loss
from papyrax.papers import Result
from papyrax.papers import isogclr as paper


def test_the_solver_finds_the_least_loss():
    h = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32) * 0.3 - 1
    t = np.asarray(paper.solve(h))
    least = robust_global_contrastive_loss(h, t, rho=paper.RHO)
    for other in np.linspace(paper.LOW, paper.HIGH, 30):
        loss = robust_global_contrastive_loss(h, np.full(5, other, np.float32), rho=paper.RHO)
        assert np.all(np.asarray(loss) >= np.asarray(least) - 1e-6)


def test_reproduce(monkeypatch):
    result = paper.reproduce(seed=100, seeds=1)
    assert result.holds
    assert Result.from_json(result.to_json()) == result
    # Temperatures that never move are not found right.
    monkeypatch.setattr(paper, "learn", lambda x, y, *_: np.linspace(0.3, 0.5, len(x)))
    assert not paper.reproduce(seed=100, seeds=1).measures[2].holds
