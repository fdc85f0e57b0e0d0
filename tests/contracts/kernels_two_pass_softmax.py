"""Declarations for softmax in the (mantissa, exponent) representation."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def scores(rng):
    return {"logits": 3 * rng.normal(size=(3, 5)), "where": rng.random((3, 5)) > 0.3}


def numbers(rng):
    return {"x": 3 * rng.normal(size=(3, 5))}


def pairs(rng):
    return {
        "m1": rng.uniform(0.7, 1.4, size=(3, 4)),
        "n1": rng.integers(-6, 7, size=(3, 4)).astype(float),
        "m2": rng.uniform(0.7, 1.4, size=(3, 4)),
        "n2": rng.integers(-6, 7, size=(3, 4)).astype(float),
    }


def add(fn, m1, n1, m2, n2):
    return fn((m1, n1), (m2, n2))


def shown(fn, logits, where=None, **kwargs):
    """Entries that are not there get the lowest number of the dtype, which differs."""
    out = fn(logits, where=where, **kwargs)
    return out if where is None else jnp.where(where, out, 0)


BAD = (
    Bad("logits", {"logits": np.ones((3, 5), np.int32)}),
    Bad("logits", {"logits": np.ones(()), "where": None}),
    Bad("logits", {"logits": np.ones((3, 0)), "where": None}),
    Bad("axis", {"axis": 2}),
    Bad("where", {"where": np.ones((3, 5), np.int32)}),
    Bad("where", {"where": np.ones((3, 4), bool)}),
    Bad("implementation", {"implementation": "cuda"}),
    Bad("implementation", {"implementation": "pallas_tpu"}),
)

CASES = [
    Case("papyrax.kernels.two_pass_softmax", scores, ("logits",), bad=BAD),
    Case("papyrax.kernels.two_pass_log_softmax", scores, ("logits",), call=shown, bad=BAD[:-1]),
    Case(
        "papyrax.kernels.extended_exp",
        numbers,
        ("x",),
        keeps_dtype=False,
        bad=(Bad("x", {"x": np.ones(3, np.int32)}),),
    ),
    Case(
        "papyrax.kernels.extended_add",
        pairs,
        ("m1", "m2"),
        call=add,
        keeps_dtype=False,
        second_order=False,
        bad=(
            Bad("a", {"m1": np.ones((3, 4), np.int32)}),
            Bad("b", {"n2": np.ones((3, 4), np.int32)}),
        ),
    ),
]
