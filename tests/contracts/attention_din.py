"""Declarations for the attention unit and activation of Deep Interest Networks."""

import numpy as np

from contracts.case import Bad, Case


def history(rng):
    layers = [
        (rng.normal(size=(12, 4)) / 3, rng.normal(size=4)),
        (rng.normal(size=(4, 1)), rng.normal(size=1)),
    ]
    return {
        "query": rng.normal(size=(2, 3)),
        "keys": rng.normal(size=(2, 5, 3)),
        "layers": layers,
        "mask": np.array([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]], bool),
    }


def hidden(rng):
    return {"x": rng.normal(size=(5, 3)), "alpha": rng.normal(size=3)}


def with_moments(rng):
    return {**hidden(rng), "mean": rng.normal(size=3), "variance": rng.uniform(1, 2, size=3)}


CASES = [
    Case(
        "papyrax.attention.din_attention",
        history,
        ("query", "keys", "layers"),
        rows_in=("query", "keys", "mask"),
        bad=(
            Bad("query", {"query": np.ones((2, 3, 1))}),
            Bad("keys", {"keys": np.ones((2, 5, 4))}),
            Bad("keys", {"keys": np.ones((2, 5, 3), np.int32)}),
            Bad("layers", {"layers": []}),
            Bad("layers", {"layers": [(np.ones((12, 2)), np.ones(2))]}),
            Bad("layers", {"layers": [(np.ones((9, 1)), np.ones(1))]}),
            Bad("mask", {"mask": np.ones((2, 5))}),
            Bad("mask", {"mask": np.ones((2, 4), bool)}),
        ),
    ),
    Case(
        "papyrax.attention.din_attention",
        history,
        ("query", "keys", "layers"),
        {"normalize": True},
        "softmax",
        rows_in=("query", "keys", "mask"),
    ),
    Case(
        "papyrax.attention.dice",
        hidden,
        ("x", "alpha"),
        rows_in=("x",),
        bad=(
            Bad("x", {"x": np.ones((5, 3), np.int32)}),
            Bad("alpha", {"alpha": np.ones(4)}),
            Bad("variance", {"mean": np.ones(3)}),
            Bad("epsilon", {"epsilon": 0.0}),
        ),
    ),
    Case(
        "papyrax.attention.dice",
        with_moments,
        ("x", "alpha", "mean"),
        label="moving moments",
        rows_in=("x",),
        bad=(Bad("mean", {"mean": np.ones(2)}),),
    ),
]
