"""Training leaves few units, the largest are kept, and the verdict follows the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import wgsef as paper


def test_training():
    x, y, test_x, test_y = paper.make_data(100)
    params = paper.train(x, y, jax.random.key(0), jnp.float32(0.3), 150)
    norms = np.linalg.norm(params["hidden"], axis=0)
    assert 10 <= (norms > 0).sum() <= 40
    assert paper.accuracy(params, test_x, test_y) > 0.6
    kept = np.linalg.norm(paper.largest(params)["hidden"], axis=0)
    np.testing.assert_allclose(np.sort(kept)[-24:], np.sort(norms)[-24:], rtol=1e-6)
    assert (kept > 0).sum() <= 24


@pytest.mark.parametrize("broken", [None, 0, 1, 2])
def test_verdict(monkeypatch, broken):
    units, accuracy = 25.0, np.full((2, len(paper.KEPT)), 0.98)
    accuracy[1] = 0.9
    accuracy[1, -1] = 0.985
    if broken == 0:
        units = 27.0
    elif broken:
        accuracy[1, {1: paper.KEPT.index(24), 2: -1}[broken]] = {1: 0.975, 2: 0.995}[broken]
    monkeypatch.setattr(paper, "measure", lambda seed: (units, accuracy))
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(3)]
    assert Result.from_json(result.to_json()) == result
