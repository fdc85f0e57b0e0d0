"""Training keeps the subspaces orthonormal and learns; the verdicts follow the numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import grassmann_class_representation as paper
from papyrax.papers.toys import digits_split


def test_training():
    data = tuple(a[None] for a in digits_split((5, 0), paper.EXAMPLES))
    accuracy, error = paper.train(jax.random.split(jax.random.key(0), 1), data, 2, 60)
    assert accuracy[0] > 0.6
    assert error[0] < 1e-5


def test_verdicts(monkeypatch):
    monkeypatch.setattr(paper, "DRAWS", 1)
    given = {0: 0.97, 1: 0.96, 2: 0.965, 4: 0.97, 8: 0.975}

    def train(keys, data, rank, steps):
        return jnp.full(2, given[rank]), jnp.full(2, 1e-7)

    monkeypatch.setattr(paper, "train", train)
    result = paper.reproduce(seed=9, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert [m.holds for m in result.measures] == [True] * 4
    given[4] = 0.98
    assert [m.holds for m in paper.reproduce(seeds=2).measures] == [True, True, False, True]
    np.testing.assert_allclose(result.measures[2].method, -0.005, atol=1e-6)
