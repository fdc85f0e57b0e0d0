"""Declarations for the alignment of domains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

KEY = np.array([0, 1], np.uint32)


def loss(head, x, y):
    logits = x @ head["w"] + head["b"]
    return jnp.mean(
        jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    )


def domains(rng):
    return {
        "head": {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)},
        "x": rng.normal(size=(2, 4, 3)),
        "y": rng.integers(0, 2, (2, 4)),
    }


def hgp(fn, head, x, y, **options):
    return fn(loss, head, x, y, **options)


def hutchinson(fn, head, x, y, key=KEY, **options):
    return fn(jnp.asarray(key), loss, head, x, y, **options)


def measure(fn, head, x, y, key=KEY, **options):
    return fn(loss, **options)(head, x, y, key=jnp.asarray(key))


UNEVEN = Bad("args: got", {"y": np.zeros((3, 4), np.int32)})
BAD_KEY = Bad("key: got", {"key": np.zeros(3, np.int32)})
make = functools.partial(
    Case,
    arrays=domains,
    wrt=("head", "x"),
    rows_in=("x", "y"),
    finite_differences=False,  # the mean is a constant to derivatives
    second_order=False,
    tolerance=8e-2,
)
OUT_OF_RANGE = (Bad("alpha: got", {"alpha": -1.0}), Bad("beta: got", {"beta": -1.0}))

CASES = [
    make("papyrax.losses.hgp_penalty", call=hgp, bad=(UNEVEN, *OUT_OF_RANGE)),
    make(
        "papyrax.losses.hgp_penalty",
        label="mean not held",
        call=hgp,
        static={"stop_mean": False},
        finite_differences=True,
        second_order=True,
        bad=(Bad("head: got", {"head": {"w": np.ones((3, 2), np.int32)}}),),
    ),
    make(
        "papyrax.losses.hutchinson_penalty",
        call=hutchinson,
        static={"n_samples": 3},
        bad=(UNEVEN, BAD_KEY, *OUT_OF_RANGE, Bad("n_samples: got", {"n_samples": 0})),
    ),
    make(
        "papyrax.curvature.domain_alignment",
        call=measure,
        static={"stop_mean": False},
        finite_differences=True,
        second_order=True,
        keeps_dtype=False,
        bad=(UNEVEN, Bad("estimate: got", {"estimate": "exact"})),
    ),
    make(
        "papyrax.curvature.domain_alignment",
        label="hutchinson",
        call=measure,
        static={"estimate": "hutchinson", "n_samples": 3},
        keeps_dtype=False,
        bad=(BAD_KEY, Bad("n_samples: got", {"n_samples": 0})),
    ),
]
