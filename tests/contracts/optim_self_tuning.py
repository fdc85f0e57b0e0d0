"""Declarations for self-tuning networks: their optimizer and their layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from contracts.case import Bad, Case

KEY = np.array([0, 1], np.uint32)


def two(rng):
    return {"hyper": rng.normal(size=3), "scale": rng.normal(size=3)}


def perturb(fn, hyper, scale, key=KEY, draws=4):
    return fn(jnp.asarray(key), hyper, scale, draws=draws)


def ridge(w, h, x):
    predictions = x @ (w["a"] + w["b"] * h[:, :1]).T
    return jnp.mean((predictions - 1) ** 2, 0) + jnp.exp(h[:, 1])


def tune(fn, w, hyper, x, draws=4, scale=0.5, **options):
    tuning = fn(ridge, ridge, optax.sgd(0.1), optax.sgd(0.1), draws=draws, **options)
    state = tuning.init({"a": w, "b": 2 * w}, hyper, scale)
    state, first = tuning.train(state, jax.random.key(0), x)
    state, second = tuning.valid(state, jax.random.key(1), x)
    return state.params, state.hyper, state.scale, first, second


def rows(rng):
    return {"x": rng.normal(size=(4, 5)), "hyper": rng.normal(size=(4, 2))}


def images(rng):
    return {"x": rng.normal(size=(4, 4, 3, 2)), "hyper": rng.normal(size=(4, 2))}


def floating(x):
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def linear(fn, x, hyper, out_features=3, **options):
    return fn(5, out_features, 2, dtype=floating(x), rngs=nnx.Rngs(0), **options)(x, hyper)


def conv(fn, x, hyper, out_features=3, **options):
    return fn(2, out_features, 2, dtype=floating(x), rngs=nnx.Rngs(0), **options)(x, hyper)


CASES = [
    Case(
        "papyrax.optim.constrain_hyperparameters",
        arrays=lambda rng: {"unconstrained": rng.normal(size=(2, 4))},
        wrt=("unconstrained",),
        static={"low": (0.0, 1.0, -np.inf, -np.inf), "high": (2.0, np.inf, 3.0, np.inf)},
        bad=(
            Bad("unconstrained: got", {"unconstrained": np.zeros((2, 4), np.int32)}),
            Bad("low: got shape", {"low": (0.0, 1.0)}),
            Bad("high: got", {"high": 0.5}),
            Bad("high: got NaN", {"high": np.nan}),
        ),
    ),
    Case(
        "papyrax.optim.perturb_hyperparameters",
        arrays=two,
        wrt=("hyper", "scale"),
        call=perturb,
        rows=None,
        bad=(
            Bad("hyper: got", {"hyper": np.zeros(3, np.int32)}),
            Bad("scale: got", {"scale": np.zeros(2)}),
            Bad("draws: got", {"draws": 0}),
        ),
    ),
    Case(
        "papyrax.optim.perturbation_entropy",
        arrays=lambda rng: {"scale": rng.normal(size=3)},
        wrt=("scale",),
        rows=None,
        bad=(
            Bad("scale: got dtype", {"scale": np.zeros(3, np.int32)}),
            Bad("scale: got shape", {"scale": np.zeros((2, 3))}),
        ),
    ),
    Case(
        "papyrax.optim.self_tuning",
        arrays=lambda rng: {
            "w": rng.normal(size=3),
            "hyper": rng.normal(size=2),
            "x": rng.normal(size=(5, 3)),
        },
        call=tune,
        rows_in=("x",),
        differentiable=False,  # a training step
        tolerance=6e-2,
        bad=(
            Bad("draws: got", {"draws": 0}),
            Bad("entropy_weight: got", {"entropy_weight": -1.0}),
            Bad("hyper: got", {"hyper": np.zeros((2, 2))}),
            Bad("scale: got", {"scale": 0.0}),
        ),
    ),
    Case(
        "papyrax.layers.HyperLinear",
        rows,
        ("x", "hyper"),
        call=linear,
        bad=(
            Bad("x: got dtype", {"x": np.zeros((4, 5), np.int32)}),
            Bad("x: got shape", {"x": np.zeros((4, 4))}),
            Bad("hyper: got shape", {"hyper": np.zeros((3, 2))}),
            Bad("out_features: got", {"out_features": 0}),
        ),
    ),
    Case(
        "papyrax.layers.HyperConv",
        images,
        ("x", "hyper"),
        {"kernel_size": (3, 2)},
        call=conv,
        bad=(
            Bad("x: got shape", {"x": np.zeros((4, 5))}),
            Bad("x: got shape", {"x": np.zeros((4, 4, 3, 1))}),
            Bad("hyper: got shape", {"hyper": np.zeros((4, 3))}),
            Bad("kernel_size[0]: got", {"kernel_size": (0, 2)}),
        ),
    ),
]
