"""Declarations for label-robust losses over a linear layer in chunks of the vocabulary."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_linear_softmax import BAD_LAYER, layer, with_bias
from papyrax.losses import AldrKlState

BAD = (
    *BAD_LAYER,
    Bad("temperature: got", {"temperature": 0.0}),
    Bad("margin: got", {"margin": -0.1}),
    Bad("normalization: got", {"normalization": "softplus"}),
)


def with_temperatures(rng):
    return {
        **with_bias(rng),
        "temperatures": rng.uniform(0.5, 1.5, size=6),
        "indices": np.arange(4, dtype=np.int32),
    }


def adaptive(fn, temperatures, **arrays):
    return fn(AldrKlState(temperatures), **arrays)


CASES = [
    Case(
        "papyrax.losses.linear_ldr_kl",
        layer,
        ("hidden", "kernel"),
        {"chunk_size": 3, "temperature": 0.7},
        rows_in=("hidden", "labels"),
        bad=BAD,
    ),
    Case(
        "papyrax.losses.linear_ldr_kl",
        with_bias,
        ("hidden", "kernel", "bias"),
        {"normalization": "l1"},
        label="bias, l1",
        rows_in=("hidden", "labels"),
    ),
    Case(
        "papyrax.losses.linear_aldr_kl",
        with_temperatures,
        ("hidden", "kernel", "bias"),
        {"chunk_size": 3},
        call=adaptive,
        rows_in=("hidden", "labels", "indices"),
        # No gradient goes through the temperatures.
        finite_differences=False,
        keeps_dtype=False,
        bad=(
            *BAD,
            Bad("indices: got dtype", {"indices": np.zeros(4)}),
            Bad("indices: got shape", {"indices": np.zeros(3, np.int32)}),
            Bad("adaptivity: got", {"adaptivity": 1.0}),
        ),
    ),
]
