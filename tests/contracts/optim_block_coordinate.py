"""Declarations for block coordinate descent."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

DIM = 6


def problem(rng):
    return {
        "gradient": rng.normal(size=DIM),
        "root": rng.normal(size=(DIM, DIM)),
        "block": np.array([4, 1, 2]),
    }


def step(fn, gradient, root, block, hessian=None, **options):
    hessian = root @ root.T + jnp.eye(DIM, dtype=root.dtype) if hessian is None else hessian
    return fn(gradient, hessian, block, **options)


CASES = [
    Case(
        "papyrax.optim.select_block",
        arrays=lambda rng: {
            "gradient": rng.normal(size=DIM),
            "curvature": rng.uniform(0.5, 2, DIM),
        },
        static={"size": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("size: got", {"size": 0}),
            Bad("size: got", {"size": DIM + 1}),
            Bad("gradient", {"gradient": np.ones((2, 3))}),
            Bad("curvature", {"curvature": np.ones(3)}),
            Bad("curvature", {"curvature": np.ones(DIM, np.int32)}),
        ),
    ),
    Case(
        "papyrax.optim.block_step",
        arrays=problem,
        call=step,
        rows=None,
        differentiable=False,  # eigenvalues that meet have no derivative
        tolerance=6e-2,
        bad=(
            Bad("gradient", {"gradient": np.ones(DIM, np.int32)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("block", {"block": np.ones(2)}),
            Bad("rule: got", {"rule": "newton"}),
        ),
    ),
]
