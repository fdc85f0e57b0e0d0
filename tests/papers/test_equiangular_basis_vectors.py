"""Training runs, keeps to its settings and returns what a result needs."""

import jax
import jax.numpy as jnp

from papyrax.papers import Result
from papyrax.papers import equiangular_basis_vectors as paper
from papyrax.papers.toys import digits_split


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "EPOCHS", 2)
    monkeypatch.setattr(paper, "DRAWS", 1)
    monkeypatch.setattr(paper, "SIZES", ((20, 10, 0.35),))
    seen = []

    def train(keys, data, dim, fixed, epochs):
        assert [a.shape[:2] for a in data] == [(2, 1000), (2, 1000), (2, 797), (2, 797)]
        seen.append((dim, fixed))
        return jnp.full((2, epochs), 0.9 + 0.01 * fixed)

    monkeypatch.setattr(paper, "train", train)
    result = paper.reproduce(seed=9, seeds=2)
    assert seen == [(10, True), (6, True), (10, False)]
    assert Result.from_json(result.to_json()) == result
    assert result.holds


def test_training():
    data = tuple(a[None] for a in digits_split((9, 0), paper.EXAMPLES))
    accuracy = paper.train(jax.random.split(jax.random.key(0), 1), data, 6, True, 3)
    assert accuracy.shape == (1, 3)
    assert accuracy[0, -1] > 0.5
