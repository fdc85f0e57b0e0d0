"""Declarations for gradient-regularized Newton."""

import jax
import jax.numpy as jnp

from contracts.case import Bad, Case, OptimizerCase
from papyrax.optim import local_oracle


def with_oracle(loss, params, batch, key):
    return {"oracle": local_oracle(loss, params, batch)}


def loss(params, x):
    return jnp.mean(jnp.log(jnp.cosh(x @ params["w"] + params["b"])))


def values(fn, params, step, x, fun=loss, **options):
    oracle = fn(fun, params, x, **options)
    return *oracle.value_and_grad(step), oracle.product(step)


RULE_BAD = (
    Bad("gamma: got", {"gamma": 0.0}),
    Bad("gamma_min: got", {"gamma_min": -1.0}),
    Bad("eps: got", {"eps": -1.0}),
    Bad("order: got", {"order": 0}),
    Bad("max_search: got", {"max_search": 1.5}),
)
NUMERIC = ("gamma", "gamma_min", "eps")

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_gns_newton",
        {"order": 4},
        numeric=NUMERIC,
        extra=with_oracle,
        descends=False,
        bad=RULE_BAD,
    ),
    OptimizerCase(
        "papyrax.optim.gns_newton",
        {"learning_rate": 1.0, "order": 4},
        numeric=("learning_rate", *NUMERIC),
        extra=with_oracle,
        bad=(*RULE_BAD, Bad("learning_rate: got", {"learning_rate": -1.0})),
    ),
    Case(
        "papyrax.optim.local_oracle",
        arrays=lambda rng: {
            "params": {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)},
            "step": {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)},
            "x": rng.normal(size=(4, 3)),
        },
        wrt=("params", "step"),
        rows=None,
        call=values,
        tolerance=4e-2,
        skip_extremes=dict.fromkeys(
            ("+1e4", "-1e4", "alternating +-1e4", "example times 1e4"),
            "cosh of the loss declared here overflows",
        ),
        bad=(
            Bad("fun: got", {"fun": 3}),
            Bad("product: got", {"product": 3}),
            Bad("step: got", {"step": lambda a: jax.tree.map(lambda x: x[:1], a["step"])}),
        ),
    ),
]
