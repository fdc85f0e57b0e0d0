"""Descent against a loop in NumPy, and the verdict."""

import jax
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import block_coordinate_descent_rules as paper


def test_descent_by_the_diagonal_rule(monkeypatch):
    for name, value in {"ROWS": 12, "DIM": 8, "SIZE": 2, "STEPS": 20, "PROBLEMS": 2}.items():
        monkeypatch.setattr(paper, name, value)
    with jax.enable_x64(True):
        a, b = paper.make_data(100)
        got = paper.descend(a, b, jax.random.key(0), rule="GSD", update="hessian")
        got = np.asarray(got)
    for k in range(2):
        h, x = a[k].T @ a[k], np.zeros(8)
        least = np.linalg.lstsq(a[k], b[k])[1].item() / 2
        values = []
        for _ in range(21):
            values.append(((a[k] @ x - b[k]) ** 2).sum() / 2 - least)
            g = a[k].T @ (a[k] @ x - b[k])
            block = np.argsort(-np.abs(g) / np.sqrt(np.abs(h).sum(1)))[:2]
            x[block] -= np.linalg.solve(h[np.ix_(block, block)], g[block])
        np.testing.assert_allclose(got[k], np.array(values)[::10] / values[0], rtol=1e-6)


@pytest.mark.parametrize("good", [True, False])
def test_verdict(monkeypatch, good):
    ends = {"GSD": 1e-5, "GSL": 1e-5, "GS": 1e-4, "cyclic": 1e-3, "random": 1e-3}

    def measured(seed, rule, update):
        end = ends[rule] if good else ends[rule] ** 0.2
        return np.full(51, end * (2 if (update == "lipschitz") == good else 1))

    monkeypatch.setattr(paper, "measure", measured)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [good] * 7
    assert Result.from_json(result.to_json()) == result
