"""Declarations for losses of calibration and for post-hoc calibrators."""

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_LABELS, logits_labels
from papyrax.losses import TransformTemperature


def pair(rng):
    raw, mixed = rng.normal(size=(2, 4, 5)) * 2
    return {"logits": raw, "mixed_logits": mixed, "where": np.array([True, False, True, True])}


def several(rng):
    return {
        "logits": rng.normal(size=(4, 5)),
        "mixed_logits": rng.normal(size=(3, 4, 5)),
        "mixing": rng.uniform(0.5, 1, (3, 4)),
    }


def network(rng):
    params = TransformTemperature(
        rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=2), np.float64(2.0)
    )
    return {"params": params, "features": rng.uniform(size=(4, 3))}


def held_out(rng):
    return {
        "logits": rng.normal(size=(30, 3)),
        "labels": rng.integers(0, 3, 30).astype(np.int32),
    }


BAD_LOGITS = (
    Bad("logits: got dtype", {"logits": np.zeros((4, 5), np.int32)}),
    Bad("logits: got shape", {"logits": np.zeros(5)}),
    Bad("mixed_logits: got", {"mixed_logits": np.zeros((4, 6))}),
)
BAD_HELD_OUT = (
    Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
    Bad("logits: got shape", {"logits": np.zeros((2, 30, 3)), "labels": np.zeros((2, 30), int)}),
    Bad("logits: got no examples", {"logits": np.zeros((0, 3)), "labels": np.zeros(0, int)}),
)

CASES = [
    Case("papyrax.losses.correctness_aware_loss", logits_labels, ("logits",), bad=BAD_LABELS),
    Case(
        "papyrax.losses.correctness_aware_loss",
        logits_labels,
        ("logits",),
        static={"balance": True},
        label="balanced",
    ),
    Case(
        "papyrax.losses.mixup_ranking_loss",
        pair,
        ("logits", "mixed_logits"),
        second_order=False,  # piecewise linear
        bad=(
            *BAD_LOGITS,
            Bad("where: got dtype", {"where": np.zeros(4)}),
            Bad("where: got shape", {"where": np.zeros(5, bool)}),
            Bad("masking: got", {"masking": "row"}),
        ),
    ),
    Case(
        "papyrax.losses.mixup_ndcg_loss",
        several,
        ("logits", "mixed_logits"),
        rows=None,
        bad=(*BAD_LOGITS, Bad("mixing: got shape", {"mixing": np.ones((4, 3))})),
    ),
    Case(
        "papyrax.losses.fit_temperature",
        held_out,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            *BAD_HELD_OUT,
            Bad("min_temperature: got", {"min_temperature": 0.0}),
            Bad("max_temperature: got", {"max_temperature": 0.01}),
        ),
    ),
    Case(
        "papyrax.losses.fit_vector_scaling",
        held_out,
        static={"steps": 8, "decay": 0.1},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            *BAD_HELD_OUT,
            Bad("decay: got", {"decay": 0.0}),
            Bad("steps: got", {"steps": 0}),
        ),
    ),
    Case(
        "papyrax.losses.transform_temperature_init",
        lambda rng: {"seed": np.int32(3)},
        call=lambda fn, seed, **kwargs: fn(jax.random.key(jnp.uint32(seed)), **kwargs),
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("features: got", {"features": 0}), Bad("hidden: got", {"hidden": 0})),
    ),
    Case(
        "papyrax.losses.transform_features",
        lambda rng: {
            "logits": rng.normal(size=(4, 5)),
            "transformed_logits": rng.normal(size=(2, 4, 5)),
        },
        ("transformed_logits",),
        static={"k": 3},
        rows=None,
        bad=(
            Bad("logits: got dtype", {"logits": np.zeros((4, 5), np.int32)}),
            Bad("transformed_logits: got shape", {"transformed_logits": np.zeros((4, 5))}),
            Bad("k: got", {"k": 0}),
        ),
    ),
    Case(
        "papyrax.losses.transform_temperature",
        network,
        ("features",),
        rows_in=("features",),
        bad=(
            Bad("features: got shape", {"features": np.zeros((4, 2))}),
            Bad("features: got dtype", {"features": np.zeros((4, 3), np.int32)}),
        ),
    ),
]
