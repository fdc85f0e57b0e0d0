"""The nearest mean direction, and a short run."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import hyperspherical_novel_class as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "DRAWS", 20)
    monkeypatch.setattr(paper, "SPLITS", 1)
    monkeypatch.setattr(paper, "ARMS", paper.ARMS[:2])
    monkeypatch.setattr(paper, "train", lambda k, x, y, arm, _: train(k, x, y, arm, 60))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    five, one = result.measures
    assert five.method[0] > one.method[0] > 0.4

    y = np.arange(600, dtype=np.int32) % paper.NEW
    z = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    told = z / 4 + 3 * np.eye(16, dtype=np.float32)[y]
    judge = jax.jit(lambda z: paper.recognize(jax.random.key(0), z, y, True))
    assert np.all(judge(told) > 0.99)
    # By direction: lengths do not matter; embeddings that say nothing are right by chance.
    np.testing.assert_allclose(judge(z), judge(4 * z))
    assert np.all(abs(judge(z) - 0.25) < 0.05)
