"""The loss against NumPy, its factors, a descent, and the verdict that follows the numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import sdl_lpgd as paper

RNG = np.random.default_rng(0)


def test_objective_and_factors():
    x, y, z = RNG.normal(size=(6, 5)), np.array([0.0, 1, 1, 0, 1]), RNG.normal(size=(2, 5))
    lifted, gamma = RNG.normal(size=(6, 4)) @ RNG.normal(size=(4, 6)), RNG.normal(size=2)
    chance = 1 / (1 + np.exp(-(x.T @ lifted[:, 0] + z.T @ gamma)))
    want = -np.log(np.where(y > 0, chance, 1 - chance)).sum()
    want += 0.3 * ((x - lifted[:, 1:]) ** 2).sum()
    want += 0.2 * ((lifted[:, 0] ** 2).sum() + (gamma**2).sum())
    params = {"lifted": jnp.asarray(lifted), "gamma": jnp.asarray(gamma)}
    np.testing.assert_allclose(paper.objective(params, x, y, z, 0.3, 0.2), want, rtol=1e-5)
    dictionary, beta, codes = map(np.asarray, paper.factors(params["lifted"]))
    np.testing.assert_allclose(np.linalg.norm(dictionary), 1, rtol=1e-5)
    np.testing.assert_allclose(dictionary @ beta, lifted[:, 0], atol=1e-4)
    np.testing.assert_allclose(dictionary @ codes, lifted[:, 1:], atol=1e-4)


def test_convergence():
    apart, ratio, curve = paper.converge(100)
    assert apart < 1e-10
    assert 0.2 < ratio < 0.67
    assert (np.diff(curve) < 0).all()


@pytest.mark.parametrize("broken", [None, 0, 1])
def test_verdict(monkeypatch, broken):
    found = (1e-8 if broken == 0 else 1e-12, 0.8 if broken == 1 else 0.4, np.linspace(1, 0.1, 16))
    monkeypatch.setattr(paper, "converge", lambda seed: found)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(2)]
    assert Result.from_json(result.to_json()) == result
