"""The acceptance fails for optimizers that only look like AdaHessian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import adahessian
from papyrax.papers import Result
from papyrax.papers import adahessian as paper

CONDITION = 1e4


def share_left(monkeypatch, tx, units=1.0):
    """Share of the loss that `tx` leaves where the paper's claim has AdaHessian, on seed 100."""
    monkeypatch.setattr(paper, "optimizer", lambda name, learning_rate, eps=1e-8: tx)
    start, curvatures, scale = paper.make_quadratic(100, CONDITION)
    scale = scale**units
    run = paper.quadratic.__wrapped__  # not the compiled one, which remembers other optimizers
    rates, key = jnp.ones(1), jax.random.key(100)
    left = run(start * scale, curvatures / scale**2, rates, key, name="method", steps=100)
    return float(left[0, -1])


def test_adahessian_meets_the_acceptance(monkeypatch):
    tx = adahessian(1.0, eps=1e-8)
    left = share_left(monkeypatch, tx, units=0.0)
    assert left <= 1e-5
    assert abs(share_left(monkeypatch, tx) / left - 1) <= 0.01


WRONG = {
    "the square of the gradient": optax.with_extra_args_support(optax.adam(1.0)),
    "the root of the curvature": adahessian(1.0, eps=1e-8, hessian_power=0.5),
    "one curvature for all": adahessian(1.0, eps=1e-8, average=lambda shape: (0,)),
    "an average that starts at zero": optax.chain(
        adahessian(1.0, eps=1e-8), optax.scale_by_schedule(lambda t: (1 - 0.999 ** (t + 1)) ** -0.5)
    ),
}


@pytest.mark.parametrize("tx", WRONG.values(), ids=WRONG)
def test_wrong_updates_do_not(monkeypatch, tx):
    assert not share_left(monkeypatch, tx, units=0.0) <= 1e-5


def test_the_problems_are_as_badly_scaled_as_they_say():
    start, curvatures, units = paper.make_quadratic(0, CONDITION)
    assert 1 <= curvatures.min() < curvatures.max() <= CONDITION
    assert curvatures.max() / curvatures.min() > CONDITION / 10
    assert np.abs(start).max() / np.abs(start).min() > 1e3
    assert units.max() / units.min() > 10


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "DIGITS_ADAM_GRID", (0.003,))
    result = paper.reproduce(seed=100, seeds=1)
    assert result.holds
    assert Result.from_json(result.to_json()) == result
