"""Declarations for attention with any normalizer in `papyrax.attention`."""

import numpy as np

from contracts.case import Bad, Case


def masked(rng):
    return {
        "query": rng.normal(size=(2, 5, 4, 4)),
        "key": rng.normal(size=(2, 6, 2, 4)),
        "value": rng.normal(size=(2, 6, 2, 3)),
        "bias": rng.normal(size=(2, 1, 5, 6)),
        "mask": rng.random((2, 1, 5, 6)) > 0.4,
    }


def halves(logits, where):
    return logits[..., :3]


NAME = "papyrax.attention.normalized_attention"
ALL = ("query", "key", "value", "bias")

CASES = [
    Case(
        NAME,
        masked,
        ALL,
        {"normalizer": "two_pass_softmax"},
        bad=(
            Bad("query", {"query": np.ones((5, 4))}),
            Bad("key", {"key": np.ones((2, 6, 3, 4))}),
            Bad("value", {"value": np.ones((2, 5, 2, 3))}),
            Bad("bias", {"bias": np.ones((2, 4, 5, 5))}),
            Bad("bias", {"bias": np.ones((2, 4, 5, 6), np.int32)}),
            Bad("mask", {"mask": np.ones((5, 6), np.int32)}),
            Bad("scale", {"scale": np.ones(3)}),
            Bad("normalizer", {"normalizer": "sparsemax"}),
            Bad("normalizer", {"normalizer": lambda arrays: halves}),
        ),
    ),
    Case(NAME, masked, ALL, {"normalizer": "stablemax", "is_causal": True}, "StableMax"),
]
