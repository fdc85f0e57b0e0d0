"""Declarations for the attention support vector machine in `papyrax.attention`."""

import numpy as np

from contracts.case import Bad, Case


def problem(rng):
    x, z = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 4))
    return {"tokens": x, "queries": z, "optimal": rng.integers(0, 3, 2)}


def masked(rng):
    return {**problem(rng), "mask": np.array([[True, True, True], [True, True, False]])}


def with_weights(rng):
    return {"weights": rng.normal(size=(5, 4)), **problem(rng)}


def matrices(rng):
    return {"a": rng.normal(size=(2, 3, 4)), "b": rng.normal(size=(2, 3, 4))}


BAD = (
    Bad("tokens", {"tokens": np.ones((2, 5))}),
    Bad("tokens", {"tokens": np.ones((2, 3, 5), np.int32)}),
    Bad("queries", {"queries": np.ones((3, 4))}),
    Bad("optimal", {"optimal": np.ones(2)}),
    Bad("optimal", {"optimal": np.ones(3, np.int32)}),
)

CASES = [
    Case(
        "papyrax.attention.attention_svm",
        masked,
        ("tokens", "queries"),
        rows=None,
        bad=(
            *BAD,
            Bad("mask", {"mask": np.ones((2, 3))}),
            Bad("mask", {"mask": np.ones((2, 4), bool)}),
            Bad("norm", {"norm": "l2"}),
            Bad("iterations", {"iterations": 0}),
        ),
    ),
    Case(
        "papyrax.attention.attention_svm",
        problem,
        ("tokens", "queries"),
        {"norm": "nuclear"},
        "nuclear",
        differentiable=False,
        tolerance=4e-2,
        # In float32 the last steps are rounding, which batching changes; `tests/core/attention/
        # test_svm.py` maps it in float64.
        vmappable=False,
    ),
    Case(
        "papyrax.attention.attention_margins",
        with_weights,
        ("weights", "tokens", "queries"),
        rows_in=("tokens", "queries", "optimal"),
        bad=(*BAD, Bad("weights", {"weights": np.ones((4, 5))})),
    ),
    Case(
        "papyrax.attention.matrix_correlation",
        matrices,
        ("a", "b"),
        bad=(
            Bad("a", {"a": np.ones(3)}),
            Bad("a", {"a": np.ones((2, 3, 4), np.int32)}),
            Bad("b", {"b": np.ones((2, 4, 3))}),
        ),
    ),
]
