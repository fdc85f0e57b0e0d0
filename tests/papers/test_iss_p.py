"""A short run ends sparse, and the verdict follows the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import iss_p as paper


def test_training():
    x = np.random.default_rng(0).normal(size=(1, 300, 64)).astype(np.float32)
    y = np.argmax(x[..., :10], -1).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 1)
    found, params = paper.accuracy(
        x, y, x, y, keys, jnp.float32(0.95), jnp.asarray(False), 0.9, 150
    )
    for layer in params:
        size = layer["w"][0].size
        assert (np.asarray(layer["w"]) != 0).sum() == size - np.ceil(0.9 * size)
    assert float(found[0]) > 0.3  # chance is 0.1


@pytest.mark.parametrize("broken", [None, 0, 1, 2, 3, 4])
def test_verdict(monkeypatch, broken):
    rows = {("ISS-P", 0.98): 0.7, ("ISS-P", 0.95): 0.95}
    for i, (name, sparsity) in enumerate(
        [("one-shot L1", 0.98), ("IHT", 0.98), ("initial mask", 0.98)]
    ):
        rows[name, sparsity] = 0.75 if i == broken else 0.6
    for i, name in enumerate(["one-shot L1", "IHT"]):
        rows[name, 0.95] = 0.948 if 3 + i == broken else 0.93
    rows["initial mask", 0.95] = 0.9
    monkeypatch.setattr(paper, "measure", lambda seeds, *which: (rows[which],) * len(seeds))
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(5)]
    assert Result.from_json(result.to_json()) == result
