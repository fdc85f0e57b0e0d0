"""Exponents of noise, pruning, and the verdict follows the numbers."""

import jax
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import farms as paper
from papyrax.papers.toys import mlp


def test_random_exponents(monkeypatch):
    monkeypatch.setattr(paper, "RATIOS", (1.0, 2.0))
    windows, whole = np.moveaxis(paper.random_exponents(100), -1, 0)
    assert np.ptp(windows, axis=1).max() < 0.15
    assert (whole[:, 1] - whole[:, 0]).min() > 0.3
    assert windows[0].min() > windows[1].max()


def test_train_and_prune():
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    y = np.argmax(x[:, :10], 1).astype(np.int32)
    params = paper.train(x, y, jax.random.key(0), sizes=(64, 32, 12, 10), steps=100)
    assert (np.argmax(jax.jit(mlp)(params, x), 1) == y).mean() > 0.5
    pruned = paper.prune(params, np.array([0.75, 0.5]))
    kept = [np.mean(np.asarray(layer["w"]) != 0) for layer in pruned]
    np.testing.assert_allclose(kept, [0.25, 0.5, 1.0])
    lost = np.abs(params[0]["w"])[np.asarray(pruned[0]["w"]) == 0]
    assert lost.max() < np.abs(pruned[0]["w"])[np.asarray(pruned[0]["w"]) != 0].min()


@pytest.mark.parametrize("broken", [None, 0, 1, 2, 3, 4])
def test_verdict(monkeypatch, broken):
    table = np.zeros((2, 5, 2))
    table[:, :, 1] = [2.0, 2.5, 3.0, 3.5, 4.0]
    table[0, :, 0], table[1, :, 0] = 2.1, 2.0
    if broken in (0, 1):
        table[broken, 0, 0] += 0.3 if broken == 0 else -0.3
    if broken == 2:
        table[1, :, 0] = 2.2
    networks = list(paper.NETWORKS.values())

    def accuracy(seed, sizes):
        return (0.81 if broken == 3 + networks.index(sizes) else 0.9, 0.8, 0.85)

    monkeypatch.setattr(paper, "random_exponents", lambda seed: table)
    monkeypatch.setattr(paper, "pruned_accuracy", accuracy)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(5)]
    assert Result.from_json(result.to_json()) == result
