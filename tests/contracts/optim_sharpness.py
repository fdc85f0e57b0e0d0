"""Declarations for sharpness-aware minimization and its relatives."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case, OptimizerCase
from papyrax.optim import SafState, local_oracle

BATCH, CLASSES, EXAMPLES, SLOTS = 3, 4, 6, 3


def with_oracle(loss, params, batch, key):
    return {"oracle": local_oracle(loss, params, batch)}


def pair(rng):
    return {
        "logits": rng.normal(size=(BATCH, CLASSES)),
        "past_logits": rng.normal(size=(BATCH, CLASSES)),
    }


def averaged(rng):
    return {
        "logits": rng.normal(size=(BATCH, CLASSES)),
        "average_logits": rng.normal(size=(BATCH, CLASSES)),
    }


def remembered(rng):
    return {
        "memory": rng.normal(size=(EXAMPLES, SLOTS, CLASSES)),
        "logits": rng.normal(size=(BATCH, CLASSES)),
        "index": np.array([4, 0, 2]),
    }


def saf(fn, memory, logits, index, epoch=7, **options):
    """The values alone: what is remembered is a constant to derivatives."""
    return fn(SafState(memory), logits, index, jnp.asarray(epoch), **options)[0]


RULE_BAD = (Bad("rho: got", {"rho": -1.0}), Bad("eta: got", {"eta": -1.0}))
PAST = (
    Bad("temperature", {"temperature": 0.0}),
    Bad("logits", {"logits": np.ones((BATCH, CLASSES), np.int32)}),
)

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_sam",
        {"rho": 0.1, "adaptive": True},
        numeric=("rho", "eta"),
        extra=with_oracle,
        descends=False,
        bad=RULE_BAD,
    ),
    OptimizerCase(
        "papyrax.optim.sam",
        {"learning_rate": 0.02},
        numeric=("learning_rate", "rho", "eta", "momentum", "weight_decay"),
        extra=with_oracle,
        bad=(
            *RULE_BAD,
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("momentum: got", {"momentum": 1.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.trajectory_loss",
        arrays=pair,
        wrt=("logits",),
        bad=(*PAST, Bad("past_logits", {"past_logits": np.ones((BATCH, 2))})),
    ),
    Case(
        "papyrax.optim.mesa_loss",
        arrays=averaged,
        wrt=("logits",),
        bad=(
            *PAST,
            Bad("weight", {"weight": -1.0}),
            Bad("average_logits", {"average_logits": np.ones((BATCH, 2))}),
        ),
    ),
    Case(
        "papyrax.optim.saf_loss",
        arrays=remembered,
        wrt=("logits",),
        call=saf,
        rows_in=("logits", "index"),
        bad=(
            *PAST,
            Bad("weight", {"weight": -1.0}),
            Bad("start_epoch", {"start_epoch": -1}),
            Bad("logits", {"logits": np.ones((BATCH, 2))}),
            Bad("index", {"index": np.arange(2)}),
            Bad("epoch", {"epoch": 1.5}),
        ),
    ),
    Case(
        "papyrax.optim.saf_init",
        arrays=lambda rng: {"zero": np.zeros(1)},
        static={"examples": 3, "classes": 2},
        call=lambda fn, zero, **options: fn(**options).logits + zero,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(
            Bad("examples", {"examples": 0}),
            Bad("classes", {"classes": 1.5}),
            Bad("lag", {"lag": 0}),
            Bad("dtype", {"dtype": "int32"}),
        ),
    ),
]
