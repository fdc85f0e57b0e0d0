"""A retriever learns something in a few steps; the verdict is that of the numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import ar2 as paper


def test_recall(monkeypatch):
    monkeypatch.setattr(paper, "NEGATIVES", 7)
    data = paper.draw(100)
    found = paper.recall(jax.random.key(0), jnp.array(paper.ARMS["AR2"]), *data, 150)
    assert found > 0.05  # one in 120 by chance


def test_reproduce(monkeypatch):
    # Better the more of its own negatives and of AR2 an arm has, and the nearer its weight to 0.5.
    def recall(key, arm, documents, queries, answer, steps):
        return 0.3 + 0.06 * arm[0] + 0.03 * arm[1] - 0.02 * jnp.abs(arm[2] - 0.5) * arm[1]

    monkeypatch.setattr(paper, "recall", recall)
    result = paper.reproduce(seed=100, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert result.holds
    monkeypatch.setattr(paper, "recall", lambda key, arm, *_: 0.3 + 0.06 * arm[0])
    holds = [m.holds for m in paper.reproduce(seed=100, seeds=2).measures]
    assert np.array_equal(holds, [True, False, True, True])
