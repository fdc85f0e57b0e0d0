"""Declarations for UDIM."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES, CLASSES = 4, 3, 2


def loss(w, x):
    return jnp.mean(jnp.logaddexp(x @ w, -(x @ w)))


def perturb(fn, w, x, fun=loss, **options):
    return fn(fun, w, x, **options)


def batch(rng):
    return {
        "features": rng.normal(size=(BATCH, FEATURES)),
        "logits": rng.normal(size=(BATCH, CLASSES)),
        "perturbed_features": rng.normal(size=(BATCH, FEATURES)),
        "perturbed_logits": rng.normal(size=(BATCH, CLASSES)),
        "labels": np.array([0, 1, 1, 0]),
    }


CASES = [
    Case(
        "papyrax.optim.udim_perturb",
        arrays=lambda rng: {"w": rng.normal(size=3), "x": rng.normal(size=(BATCH, 3))},
        wrt=("w", "x"),
        static={"step_size": 0.5},
        call=perturb,
        rows_in=("x",),
        finite_differences=False,  # the step is a constant to derivatives
        tolerance=6e-2,
        bad=(
            Bad("inputs", {"x": np.ones((BATCH, 3), np.int32)}),
            Bad("rho", {"rho": -1.0}),
            Bad("step_size", {"step_size": -1.0}),
            Bad("over", {"over": "pixel"}),
        ),
    ),
    Case(
        "papyrax.optim.udim_inconsistency",
        arrays=batch,
        wrt=("features", "logits", "perturbed_features", "perturbed_logits"),
        tolerance=4e-2,
        bad=(
            Bad("features", {"features": lambda a: a["features"][0]}),
            Bad("logits", {"logits": np.ones((3, CLASSES))}),
            Bad("perturbed_features", {"perturbed_features": np.ones((BATCH, 2))}),
            Bad("perturbed_logits", {"perturbed_logits": np.ones((BATCH, 3))}),
            Bad("labels", {"labels": np.ones(BATCH)}),
        ),
    ),
]
