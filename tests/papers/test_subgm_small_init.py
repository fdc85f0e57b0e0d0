"""The problem is what it says, errors are those of a loop, and the verdict follows the numbers."""

import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import subgm_small_init as paper


def test_problem_and_errors(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 4)
    sensing, targets, truth = paper.problem(100)
    assert np.linalg.matrix_rank(truth) == 2
    wrong = ~np.isclose(np.einsum("mij,ij->m", sensing, truth), targets)
    assert wrong.sum() == 180
    values, vectors = np.linalg.eigh(np.einsum("m,mij->ij", np.sign(targets), sensing) / 600)
    u = 1e-3 * vectors[:, -5:] * np.sqrt(np.maximum(values[-5:], 0))
    wanted = []
    for t in range(4):
        q = np.einsum(
            "m,mij->ij", np.sign(np.einsum("mij,ij->m", sensing, u @ u.T) - targets), sensing
        )
        u = u - 0.3 * 0.99**t / np.linalg.norm(q) * 2 * q @ u
        wanted.append(np.linalg.norm(u @ u.T - truth))
    got = paper.measure(100)
    assert got.shape == (3, 3, 4)
    np.testing.assert_allclose(got[1, 1], wanted, rtol=1e-9)


@pytest.mark.parametrize(("small", "few"), [(1e-3, 1e-3), (6e-3, 6e-3), (1e-3, 5e-4), (4e-3, 4e-3)])
def test_verdict(monkeypatch, small, few):
    errors = np.full((3, 3, paper.STEPS), 1e-2)
    errors[2, 0], errors[1, 0] = small, few
    monkeypatch.setattr(paper, "measure", lambda seed: errors)
    result = paper.reproduce(seed=100, seeds=2)
    assert result.measures[0].holds == (small == 1e-3)
    assert result.measures[1].holds == (small == few)
    assert Result.from_json(result.to_json()) == result
