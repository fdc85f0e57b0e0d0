"""Declarations for learning from noisy labels."""

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_LABELS, dense, logits_labels
from papyrax.losses import elr_init


def indexed(rng):
    return {**logits_labels(rng), "indices": rng.permutation(6)[:4].astype(np.int32)}


def elr(fn, **kwargs):
    return fn(elr_init(6, 5), **kwargs)[0]


def keyed(fn, seed, **kwargs):
    return fn(jax.random.key(jnp.uint32(seed)), **kwargs)


def classifier(rng):
    return {
        "features": rng.normal(size=(6, 4)),
        "labels": rng.integers(0, 3, 6).astype(np.int32),
        "kernel": rng.normal(size=(4, 3)),
        "bias": rng.normal(size=3),
    }


CASES = [
    Case(
        "papyrax.losses.elr_regularizer",
        lambda rng: dense(rng),
        ("logits",),
        bad=(
            Bad("targets: got shape", {"targets": np.zeros((4, 6))}),
            Bad("targets: got dtype", {"targets": np.zeros((4, 5), np.int32)}),
        ),
    ),
    Case(
        "papyrax.losses.elr_loss",
        indexed,
        ("logits",),
        call=elr,
        finite_differences=False,  # no gradient goes through the targets
        bad=(
            *BAD_LABELS[:2],
            Bad("indices: got dtype", {"indices": np.zeros(4)}),
            Bad("indices: got shape", {"indices": np.zeros(3, np.int32)}),
            Bad("state: got shape", {"logits": np.zeros((4, 7))}),
            Bad("strength: got", {"strength": -1.0}),
            Bad("momentum: got", {"momentum": 1.1}),
        ),
    ),
    Case(
        "papyrax.losses.elr_init",
        lambda rng: {},
        static={"examples": 5, "classes": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(Bad("examples: got", {"examples": 2.5}), Bad("classes: got", {"classes": 0})),
    ),
    Case(
        "papyrax.losses.nested_dropout",
        lambda rng: {"seed": np.int32(5), "features": rng.normal(size=(3, 6))},
        ("features",),
        call=keyed,
        rows_in=("features",),
        second_order=False,  # linear
        bad=(
            Bad("features: got dtype", {"features": np.zeros((3, 6), np.int32)}),
            Bad("features: got shape", {"features": np.float64(1.0)}),
            Bad("features: got none", {"features": np.zeros((3, 0))}),
            Bad("std: got", {"std": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.select_nested_width",
        classifier,
        rows_in=("features", "labels"),
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("features: got shape", {"features": np.zeros((0, 4))}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("kernel: got shape", {"kernel": np.zeros((5, 3))}),
            Bad("bias: got shape", {"bias": np.zeros(4)}),
            Bad("penalty: got", {"penalty": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.small_loss_mask",
        lambda rng: {"losses": rng.uniform(size=7)},
        static={"forget_rate": 0.3},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("losses: got dtype", {"losses": np.zeros(7, np.int32)}),
            Bad("losses: got shape", {"losses": np.zeros((7, 2))}),
            Bad("forget_rate: got", {"forget_rate": 1.1}),
        ),
    ),
]
