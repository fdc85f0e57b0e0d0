"""A short training tells spoofs it has not seen; scores that know nothing do not pass."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.metrics import roc_auc
from papyrax.papers import Result
from papyrax.papers import hyp_oc as paper


def test_score():
    x, unseen = paper.draw(100)
    is_real = np.arange(len(unseen)) < paper.TEST
    found = paper.score(jax.random.key(0), x, unseen, paper.ARMS[0], 120)
    assert roc_auc(found, jnp.asarray(is_real)) > 0.95


def test_reproduce(monkeypatch):
    # In place of training, what is known of the data: spoofs are longer.
    monkeypatch.setattr(paper, "score", lambda k, x, u, *_: -jnp.linalg.norm(u, axis=1))
    result = paper.reproduce(seed=100, seeds=2)
    assert Result.from_json(result.to_json()) == result
    assert result.holds
    for line in result.figure.lines:
        for row in line.y:
            assert list(row) == sorted(row, reverse=True)
    monkeypatch.setattr(paper, "score", lambda k, x, u, *_: u[:, 0])
    assert not paper.reproduce(seed=100, seeds=2).holds
