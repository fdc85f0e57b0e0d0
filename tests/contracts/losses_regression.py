"""Declarations for the losses of regression."""

import jax
import numpy as np

from contracts.case import Bad, Case

BATCH = 5


def samples(*names, features=2):
    return lambda rng: {k: rng.normal(size=(BATCH, features)) for k in names}


def regression(rng):
    return {
        "features": rng.normal(size=(BATCH, 3)),
        "targets": np.array([0.0, 0.6, 4.0, 4.5, 0.3]),
        "predictions": np.array([0.2, 1.5, 0.4, 5.0, 0.1]),
        "weights": rng.uniform(0.5, 2, BATCH),
    }


def bags(rng):
    return {
        "predictions": rng.normal(size=(4, 3)),
        "responses": rng.normal(size=4),
        "where": np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]], bool),
    }


BAD_BAGS = (
    Bad("responses: got shape", {"responses": np.zeros(5)}),
    Bad("predictions: got dtype", {"predictions": np.zeros((4, 3), np.int32)}),
    Bad("where: got dtype", {"where": np.zeros((4, 3))}),
    Bad("where: got shape", {"where": np.zeros((4, 2), bool)}),
)
TRIPLE = ("inputs", "targets", "predictions")
BAD_TRIPLE = (
    Bad("targets: got shape", {"targets": np.zeros((BATCH + 1, 2))}),
    Bad("predictions: got shape", {"predictions": np.zeros((BATCH, 3))}),
    Bad("inputs: got dtype", {"inputs": np.zeros((BATCH, 2), np.int32)}),
    Bad("normalization: got", {"normalization": "mean"}),
)

CASES = [
    Case(
        "papyrax.losses.cs_divergence",
        samples("x", "y"),
        ("x", "y"),
        bad=(
            Bad("y: got shape", {"y": np.zeros((BATCH, 3))}),
            Bad("x: got dtype", {"x": np.zeros((BATCH, 2), np.int32)}),
            Bad("x: got no rows", {"x": np.zeros((0, 2))}),
            Bad("bandwidth: got", {"bandwidth": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.conditional_cs_divergence",
        samples(*TRIPLE),
        TRIPLE,
        bad=(*BAD_TRIPLE, Bad("target_bandwidth: got", {"target_bandwidth": 0.0})),
    ),
    Case(
        "papyrax.losses.cs_mutual_information",
        samples("x", "y"),
        ("x", "y"),
        static={"normalize": True},
        bad=(
            Bad("y: got shape", {"y": np.zeros((BATCH + 1, 2))}),
            Bad("bandwidth: got", {"bandwidth": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.cs_information_bottleneck_loss",
        samples(*TRIPLE, "codes"),
        (*TRIPLE, "codes"),
        static={"normalization": "sum_of_squares", "weight": 0.1},
        bad=(
            *BAD_TRIPLE,
            Bad("codes: got shape", {"codes": np.zeros((BATCH + 1, 2))}),
            Bad("weight: got", {"weight": -1.0}),
        ),
    ),
    *(
        Case(
            "papyrax.losses.conr_loss",
            regression,
            ("features",),
            static={"temperature": 0.5, "count_others": others},
            label=label,
            bad=(
                Bad("targets: got shape", {"targets": np.zeros(BATCH + 1)}),
                Bad("predictions: got shape", {"predictions": np.zeros(BATCH + 1)}),
                Bad("weights: got shape", {"weights": np.zeros(BATCH + 1)}),
                Bad("temperature: got", {"temperature": 0.0}),
                Bad("window: got", {"window": -1.0}),
                Bad("push: got", {"push": -1.0}),
            ),
        )
        for label, others in (("", False), ("with others", True))
    ),
    *(
        Case(f"papyrax.losses.{name}", bags, ("predictions", "responses"), bad=(*BAD_BAGS, *bad))
        for name, bad in (
            ("interpolated_bag_loss", (Bad("instance_weight: got", {"instance_weight": 1.5}),)),
            ("bag_level_loss", ()),
            ("instance_level_loss", ()),
        )
    ),
    Case(
        "papyrax.losses.private_bag_responses",
        lambda rng: {"responses": rng.normal(size=(4, 3))},
        ("responses",),
        static={"bound": 2.0, "epsilon": 1e5},
        call=lambda fn, **kwargs: fn(jax.random.key(0), **kwargs),
        bad=(
            Bad("responses: got dtype", {"responses": np.zeros((4, 3), np.int32)}),
            Bad("bound: got", {"bound": 0.0}),
            Bad("epsilon: got", {"epsilon": 0.0}),
        ),
    ),
]
