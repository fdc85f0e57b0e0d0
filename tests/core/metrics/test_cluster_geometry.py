"""Measures of clusters against scikit-learn, loops and the code of AVQI's author."""

import jax
import numpy as np
import pytest
from authors_code import recorded
from sklearn.metrics import davies_bouldin_score

from papyrax import metrics

DAVIES = jax.jit(metrics.davies_bouldin, static_argnames="count")
DUNN = jax.jit(metrics.dunn_index, static_argnames=("count", "between"))
AVQI = jax.jit(metrics.avqi)


def points():
    rng = np.random.default_rng(0)
    y = np.array([0, 0, 1, 1, 1, 3, 3, 3, 3, 0])
    return rng.normal(size=(10, 3)) + 2 * rng.normal(size=(4, 3))[y], y


def test_davies_bouldin():
    x, y = points()
    with jax.enable_x64(True):
        got = DAVIES(x, y, count=6)
        np.testing.assert_allclose(got, davies_bouldin_score(x, y), rtol=1e-12)
        assert DAVIES(x, 0 * y, count=6) == 0
        same = np.concatenate([x, x])  # two clusters of equal centres
        assert 1e12 < DAVIES(same, np.repeat([0, 1], len(x)), count=2) < 1e17


@pytest.mark.parametrize("between", ["points", "centres"])
def test_dunn_index(between):
    x, y = points()
    far = [np.linalg.norm(a - b) for a, i in zip(x, y) for b, j in zip(x, y) if i != j]
    wide = [np.linalg.norm(a - b) for a, i in zip(x, y) for b, j in zip(x, y) if i == j]
    if between == "centres":
        c = [x[y == k].mean(0) for k in (0, 1, 3)]
        far = [np.linalg.norm(c[i] - c[j]) for i in range(3) for j in range(i)]
    with jax.enable_x64(True):
        got = DUNN(x, y, count=4, between=between)
        np.testing.assert_allclose(got, min(far) / max(wide), rtol=1e-12)
        assert DUNN(x, 0 * y, count=4, between=between) == 0


def test_avqi():
    entry = recorded("grace")["avqi"]
    s, u, j = (np.array(entry["arrays"][k]) for k in ("safe", "unsafe", "jailbreak"))
    with jax.enable_x64(True):
        value = AVQI(s, u, j)
        np.testing.assert_allclose(value, entry["value"], rtol=1e-6)
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
        moved = (3 * x @ turn + 5 for x in (s, u, j))
        np.testing.assert_allclose(AVQI(*moved), value, rtol=1e-10)
        np.testing.assert_allclose(
            AVQI(s, j[:5], np.concatenate([u, u])),
            AVQI(s, np.concatenate([u, u]), j[:5]),
            rtol=1e-10,
        )
        # Safe answers farther off are less vulnerable; among the adversarial ones without bound.
        away = s + 100 * (s.mean(0) - (u.mean(0) + j.mean(0)) / 2)
        assert AVQI(away, u, j) < value
        assert AVQI(s - s.mean(0) + u.mean(0), u, j) > 1e10
        # Adversarial answers in one place, apart from the safe ones, are what is wanted.
        joined = u - u.mean(0) + j.mean(0)
        assert AVQI(s, joined, j) > 1e10
        one = jax.jit(lambda *x: metrics.avqi(*x, one_adversarial_cluster=True))
        both = np.concatenate([joined, j])
        centres = np.linalg.norm(s.mean(0) - both.mean(0))
        wide = max(np.linalg.norm(a - b) for c in (s, both) for a in c for b in c)
        spread = [np.linalg.norm(c - c.mean(0), axis=1).mean() for c in (s, joined, j)]
        ratio = (2 * spread[0] + spread[1] + spread[2]) / np.linalg.norm(s.mean(0) - j.mean(0))
        np.testing.assert_allclose(one(s, joined, j), ratio / 2 + wide / centres, rtol=1e-10)
