"""Declarations for random losses."""

import jax
import numpy as np

from contracts.case import Bad, Case


def scores_labels(rng):
    return {"scores": rng.normal(size=6), "labels": rng.integers(0, 2, 6).astype(np.int32)}


def run(fn, key=None, **kwargs):
    return fn(key=jax.random.key(0) if key is None else key, **kwargs)


CASES = [
    Case(
        "papyrax.losses.ensloss",
        scores_labels,
        ("scores",),
        call=run,
        second_order=False,  # the slopes are constants
        finite_differences=False,
        bad=(
            Bad("scores: got dtype", {"scores": np.zeros(6, np.int32)}),
            Bad("scores: got shape", {"scores": np.zeros((6, 1))}),
            Bad("labels: got dtype", {"labels": np.zeros(6)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("key: got dtype", {"key": np.zeros(2)}),
        ),
    ),
]
