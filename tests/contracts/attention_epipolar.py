"""Declarations for attention on epipolar-plane images."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def images(rng):
    query = rng.normal(size=(2, 2, 4, 2, 3))
    key, value = rng.normal(size=(2, 2, 4, 1, 3)), rng.normal(size=(2, 2, 4, 1, 2))
    return {"query": query, "key": key, "value": value}


def masked_sum(fn, x, views=2, width=3, **kwargs):
    return jnp.where(fn(views, width, **kwargs), x, 0)


CASES = [
    Case(
        "papyrax.attention.epipolar_mask",
        lambda rng: {"x": rng.normal(size=(6, 6))},
        ("x",),
        {"field": (4, 2)},
        call=masked_sum,
        rows=None,
        bad=(
            Bad("views", {"views": 0}),
            Bad("width", {"width": 1.5}),
            Bad("field", {"field": (2, 0)}),
            Bad("field", {"field": (2, 3, 4)}),
        ),
    ),
    Case(
        "papyrax.attention.epipolar_attention",
        images,
        ("query", "key", "value"),
        {"field": (4, 3)},
        bad=(
            Bad("query", {"query": np.ones((4, 2, 3))}),
            Bad("query", {"query": np.ones((2, 2, 4, 2, 3), np.int32)}),
            Bad("key", {"key": np.ones((2, 2, 5, 1, 3))}),
            Bad("key", {"key": np.ones((2, 2, 4, 1, 4))}),
            Bad("value", {"value": np.ones((2, 4, 1, 2))}),
            Bad("field", {"field": (0, 3)}),
        ),
    ),
]
