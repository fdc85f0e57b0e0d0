"""Declarations for softmax-free attention in `papyrax.attention`."""

import numpy as np

from contracts.case import Bad, Case


def qkv(rng):
    return {
        "query": rng.normal(size=(2, 6, 4, 4)),
        "key": rng.normal(size=(2, 6, 2, 4)),
        "value": rng.normal(size=(2, 6, 2, 3)),
    }


def masked(rng):
    return {**qkv(rng), "mask": rng.random((2, 1, 1, 6)) > 0.3}


def with_landmarks(rng):
    return {**qkv(rng), "landmarks": rng.normal(size=(2, 3, 2, 4))}


def positive(rng):
    a = rng.normal(size=(2, 4, 4))
    return {"matrix": a @ np.swapaxes(a, 1, 2) + 2 * np.eye(4)}


ALL = ("query", "key", "value")
# Enough iterations for the closed-form derivative to be that of the value.
CONVERGED = {"iterations": 40}

CASES = [
    Case(
        "papyrax.attention.newton_inverse",
        positive,
        ("matrix",),
        CONVERGED,
        bad=(
            Bad("matrix", {"matrix": np.ones((2, 3, 4))}),
            Bad("matrix", {"matrix": np.ones(4)}),
            Bad("matrix", {"matrix": np.ones((4, 4), np.int32)}),
            Bad("iterations", {"iterations": -1}),
            Bad("ridge", {"ridge": -0.1}),
            Bad("step", {"step": 2.0}),
        ),
    ),
    Case(
        "papyrax.attention.soft_attention",
        masked,
        ALL,
        {"landmarks": 3, **CONVERGED},
        bad=(
            Bad("query", {"query": np.ones((6, 4, 4))}),
            Bad("key", {"key": np.ones((2, 6, 3, 4))}),
            Bad("value", {"value": np.ones((2, 5, 2, 3))}),
            Bad("bias", {"bias": np.ones((2, 4, 6, 6))}),
            Bad("mask", {"mask": np.ones((6, 6), bool)}),
            Bad("landmarks", {"landmarks": 4}),
            Bad("landmarks", {"landmarks": np.ones((2, 3, 4, 4))}),
            Bad("scale", {"scale": 0.0}),
            Bad("is_causal", {"is_causal": True}),
            Bad("inverse", {"inverse": "svd"}),
            Bad("iterations", {"iterations": 1.5}),
            Bad("ridge", {"ridge": -1.0}),
            Bad("ridge", {"ridge": 0.0, "inverse": "exact"}),
        ),
    ),
    Case(
        "papyrax.attention.soft_attention",
        with_landmarks,
        (*ALL, "landmarks"),
        {"normalize": False, "inverse": "exact"},
        "SOFT, exact",
    ),
    Case(
        "papyrax.attention.soft_attention",
        with_landmarks,
        (*ALL, "landmarks"),
        {"inverse": "released"},
        "SOFT++, released",
        rows=None,
        bad=(Bad("iterations", {"iterations": 1.5}),),
    ),
]
