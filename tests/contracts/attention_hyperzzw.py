"""Declarations for the HyperZZW operators and the network that makes their kernels."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def image(rng):
    return {"x": rng.normal(size=(2, 3, 4, 2))}


def with_global(rng):
    kernel, features = rng.normal(size=(1, 3, 4, 2)), rng.normal(size=(2, 4, 3, 2))
    return {**image(rng), "kernel": kernel, "features": features}


def with_local(rng):
    return {**image(rng), "kernel": rng.normal(size=(3, 1, 2))}


def with_elementwise(rng):
    return {**image(rng), "kernel": rng.normal(size=(3, 4, 1))}


def places(rng):
    return {"coordinates": rng.uniform(-1, 1, size=(3, 2))}


def magnet(fn, coordinates, size=(3, 3), channels=2, **kwargs):
    return fn(size, channels, **{"hidden": 4, **kwargs}, rngs=nnx.Rngs(0))(coordinates)


def grid(fn, x, size=(2, 3), **kwargs):
    dtype = jnp.result_type(x)
    return fn(size, 2, hidden=4, layers=1, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)() * x


def unit(fn, x, size=(3, 4), channels=2, **kwargs):
    dtype = jnp.result_type(x)
    return fn(size, channels, **kwargs, dtype=dtype, rngs=nnx.Rngs(0))(x)


BAD_X = (
    Bad("x", {"x": np.ones((3, 4, 2))}),
    Bad("x", {"x": np.ones((2, 3, 4, 2), np.int32)}),
)

CASES = [
    Case(
        "papyrax.attention.instance_standardize",
        image,
        ("x",),
        bad=(*BAD_X, Bad("epsilon", {"epsilon": 0.0})),
    ),
    Case(
        "papyrax.attention.hyper_zzw_global",
        with_global,
        ("x", "kernel", "features"),
        rows_in=("x", "features"),
        bad=(
            *BAD_X,
            Bad("kernel", {"kernel": np.ones((1, 4, 3, 2))}),
            Bad("kernel", {"kernel": np.ones((3, 4, 2))}),
            Bad("features", {"features": np.ones((2, 3, 3, 2))}),
        ),
    ),
    Case(
        "papyrax.attention.hyper_zzw_local",
        with_local,
        ("x", "kernel"),
        rows_in=("x",),
        bad=(
            *BAD_X,
            Bad("kernel", {"kernel": np.ones((3, 3, 1))}),
            Bad("kernel", {"kernel": np.ones((3, 2, 2))}),
        ),
    ),
    Case(
        "papyrax.attention.hyper_zzw_elementwise",
        with_elementwise,
        ("x", "kernel"),
        rows_in=("x",),
        bad=(
            Bad("x", {"x": np.ones((2, 3, 4, 2), np.int32)}),
            Bad("kernel", {"kernel": np.ones((5,))}),
        ),
    ),
    Case(
        "papyrax.layers.MAGNet",
        places,
        ("coordinates",),
        call=magnet,
        # The sines turn fast: bf16 coordinates are compared after rounding, as given.
        bad=(
            Bad("coordinates", {"coordinates": np.ones((3, 3))}),
            Bad("coordinates", {"coordinates": np.ones((3, 2), np.int32)}),
            Bad("size", {"size": (3, 0)}),
            Bad("channels", {"channels": 0}),
            Bad("hidden", {"hidden": 0}),
            Bad("layers", {"layers": 0}),
            Bad("omega_0", {"omega_0": 0.0}),
        ),
    ),
    Case(
        "papyrax.layers.MAGNet",
        lambda rng: {"x": rng.normal(size=(2, 3, 2))},
        ("x",),
        label="on its grid",
        call=grid,
        rows=None,
    ),
    Case(
        "papyrax.layers.RecursiveGatedUnit",
        image,
        ("x",),
        call=unit,
        bad=(
            *BAD_X,
            Bad("x", {"x": np.ones((2, 4, 3, 2))}),
            Bad("size", {"size": (3, 0)}),
            Bad("size", {"size": (3, 4, 1)}),
            Bad("channels", {"channels": 0}),
        ),
    ),
]
