"""The acceptance fails for methods that only look like this one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.optim import gns_newton
from papyrax.papers import Result
from papyrax.papers import gns_newton as paper


def steps(monkeypatch, least, **wrong):
    """Steps to the gap of 1e-8 with the exact Hessian, as the paper's claim has them."""
    monkeypatch.setattr(paper, "gns_newton", lambda order: gns_newton(order=order, **wrong))
    with jax.enable_x64(True):
        a = jnp.asarray(paper.breast_cancer(100)[:, :10])
        run = jax.jit(lambda x: paper.minimize.__wrapped__(x, a, **EXACT))
        values = np.asarray(run(jnp.zeros(10)))
    return paper.steps_to(values, least, 1e-8)


EXACT = {"fun": paper.logistic, "product": None, "steps": 40, "order": 10}


def test_half_steps_fail(monkeypatch):
    with jax.enable_x64(True):
        a = paper.breast_cancer(100)[:, :10]
        x = np.zeros(10)
        for _ in range(30):  # Newton's method with a dense Hessian finds the least value
            p = 1 / (1 + np.exp(a @ x))
            hessian = a.T @ ((p * (1 - p))[:, None] * a) / len(a) + 1e-3 * np.eye(10)
            x = x - np.linalg.solve(hessian, 1e-3 * x - a.T @ p / len(a))
        best = np.mean(np.logaddexp(0, -(a @ x))) + 5e-4 * x @ x
    assert steps(monkeypatch, best) <= 15
    assert steps(monkeypatch, best, learning_rate=0.5) > 15


@pytest.mark.parametrize("count", [15.0, 16.0])
def test_verdict(monkeypatch, count):
    """What the methods leave is judged as the acceptance says."""
    names = {"exact": count, "Gauss-Newton": 55, "no Hessian": 900, "gradient descent": 2001}
    values = {n: np.r_[np.ones(int(k)), np.zeros(5)] for n, k in names.items()}
    values["gradient descent"][:] = 1e-4
    monkeypatch.setattr(paper, "on_breast_cancer", lambda seed: (values, 0.0))
    counts = {"Fisher": 10.0, "empirical Fisher": 40.0, "no Hessian": 100.0}
    monkeypatch.setattr(paper, "on_digits", lambda seed: counts)
    result = paper.reproduce(seed=100, seeds=2)
    assert result.holds == (count <= 15)
    assert Result.from_json(result.to_json()) == result
