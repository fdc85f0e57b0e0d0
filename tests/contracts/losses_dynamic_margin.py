"""Declarations for the dynamic soft margin."""

import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import DynamicMargin

BATCH, FEATURES = 5, 4


def start(fn, **kwargs):
    return fn(**kwargs).histogram


def step(fn, histogram, first, second, **kwargs):
    loss, state = fn(DynamicMargin(histogram), first, second, **kwargs)
    return loss, state.histogram


def views(rng):
    first = rng.normal(size=(BATCH, FEATURES))
    second = first + 0.5 * rng.normal(size=(BATCH, FEATURES))
    return {"histogram": np.full(5, 0.2), "first": first, "second": second}


CASES = [
    Case(
        "papyrax.losses.dynamic_soft_margin_init",
        lambda rng: {},
        static={"bins": 4},
        call=start,
        vmappable=False,  # it takes no array
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("bins", {"bins": 0}),),
    ),
    Case(
        "papyrax.losses.dynamic_soft_margin_loss",
        views,
        ("first", "second"),
        static={"momentum": 0.2},
        call=step,
        rows_in=("first", "second"),
        # The share of gaps is a constant for the gradient, not for the value.
        finite_differences=False,
        bad=(
            Bad("state.histogram: got shape", {"histogram": np.zeros((2, 2))}),
            Bad("first: got dtype", {"first": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((BATCH, FEATURES + 1))}),
            Bad("momentum", {"momentum": 2.0}),
        ),
    ),
]
