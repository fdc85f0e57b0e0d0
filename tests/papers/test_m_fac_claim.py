"""The acceptance fails for what only looks like M-FAC."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import m_fac as paper


def test_pruning_needs_the_update_of_the_other_weights(monkeypatch):
    data = paper.make_data(100)
    x, y = data[:2]
    trained, _, _ = paper.train(
        x, y, jnp.array([0.01]), jax.random.key(100), name="Adam", steps=100
    )
    params = jax.tree.map(lambda p: p[0], trained)
    still = lambda fisher, weights, pruned: jnp.where(pruned, 0, weights)  # noqa: E731
    monkeypatch.setattr(paper, "obs_update", still)
    wrong = paper.prune(params, x, y)
    assert min(wrong["magnitude"]) > 0
    limits = paper.SPARSITIES.values()
    shares = [a / b for a, b in zip(wrong["M-FAC"], wrong["magnitude"])]
    assert not all(share <= limit for share, limit in zip(shares, limits))


def test_a_record_survives(monkeypatch):
    monkeypatch.setattr(paper, "RATES", {n: r[1:2] for n, r in paper.RATES.items()})
    monkeypatch.setattr(paper, "exactness", lambda seed, data: (0.0, 1.0))
    names = ("M-FAC", "magnitude")
    gains = {n: [np.float32(k)] * 3 for k, n in enumerate(names)}
    monkeypatch.setattr(paper, "prune", lambda *_: gains)
    few = lambda *a, name, steps: FAKE[name]  # noqa: E731
    monkeypatch.setattr(paper, "train", few)
    result = paper.reproduce(seed=100, seeds=1)
    assert [m.holds for m in result.measures] == [True, False, True, True, True, True, False]
    assert Result.from_json(result.to_json()) == result


def run_of(loss):
    """What `train` returns, with this last loss."""
    return ({"w": jnp.zeros((1, 2))}, jnp.zeros((1, 100)), jnp.array([loss]))


FAKE = {"M-FAC": run_of(0.12), "Adam": run_of(0.12), "SGD": run_of(0.1)}
