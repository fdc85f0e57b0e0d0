"""Declarations for robust matrix recovery."""

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case, OptimizerCase

COUNT, DIM = 5, 3


def measurements(rng):
    return {"sensing": rng.normal(size=(COUNT, DIM, DIM)), "targets": rng.normal(size=COUNT)}


def with_subgradient(loss, params, batch, key):
    kernel = jax.grad(lambda kernel: loss({**params, "kernel": kernel}, batch))(params["kernel"])
    return {"subgradient": kernel}


def gram(fn, **arguments):
    """Eigenvectors have no sign of their own."""
    start = fn(**arguments)
    return jnp.matmul(start, start.T, precision="highest")


MEASURED_BAD = (
    Bad("sensing", {"sensing": np.ones((COUNT, DIM, 2))}),
    Bad("sensing", {"sensing": np.ones((COUNT, DIM, DIM), np.int32)}),
    Bad("targets", {"targets": np.ones(COUNT + 1)}),
)

CASES = [
    Case(
        "papyrax.optim.recovery_subgradient",
        arrays=lambda rng: {"factor": rng.normal(size=(DIM, 2)), **measurements(rng)},
        rows=None,
        differentiable=False,  # piecewise constant
        tolerance=0.1,
        bad=(
            *MEASURED_BAD,
            Bad("factor", {"factor": np.ones((2, 2))}),
            Bad("factor", {"factor": np.ones(DIM)}),
        ),
    ),
    Case(
        "papyrax.optim.subdifferential_init",
        arrays=measurements,
        static={"rank": 2, "alpha": 0.5},
        call=gram,
        rows=None,
        differentiable=False,  # of signs
        tolerance=0.05,
        bad=(
            *MEASURED_BAD,
            Bad("rank: got", {"rank": DIM + 1}),
            Bad("alpha: got", {"alpha": 0.0}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.subgm",
        {"eta0": 0.05, "rho": 0.99},
        numeric=("eta0", "rho"),
        extra=with_subgradient,
        bad=(
            Bad("eta0: got", {"eta0": 0.0}),
            Bad("rho: got", {"rho": 0.0}),
            Bad("rho: got", {"rho": 1.5}),
        ),
    ),
]
