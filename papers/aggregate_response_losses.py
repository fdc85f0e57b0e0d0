"""Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions.

The problem. For privacy, responses are released only as averages over bags of examples. One can fit
the average prediction of a bag to its response (bag level) or every prediction in it (instance
level). Which is better?

The idea. The two differ by the variance of the predictions within a bag: the instance-level loss is
the bag-level one, regularized. A loss with a share of that regularizer interpolates them, and the
share can be chosen for the least risk.

What the authors measured. They compute the asymptotic risk of both in a linear model, which says
when which is better, and show on data that the interpolating estimator improves on both; and they
give a label-private mechanism, whose best size of bags balances noise and aggregation.

What is measured here. The linear model with 400 examples in 60 dimensions, noise one and bags of 2
to 8: the squared error of the exact minimizers over a grid of shares, whose ends are the two
losses, averaged over draws. The best share is chosen by that error, as an oracle would. The
asymptotic formula is not repeated, nor is the private mechanism measured.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import interpolated_bag_loss
from papyrax.papers import (
    Budget,
    Claim,
    Figure,
    Line,
    Measure,
    Paper,
    Progress,
    Result,
    seed_range,
    silent,
)

PAPER = Paper(
    slug="aggregate_response_losses",
    title="Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions",
    authors="A. Javanmard, L. Chen, V. Mirrokni, A. Badanidiyuru, G. Fu",
    year=2024,
    arxiv="2401.11081",
    area="regression_loss",
    idea=(
        "The instance-level loss is the bag-level one plus the variance of predictions in a bag; "
        "a share of that variance does better than none or all."
    ),
    formula="(ybar - mean f)^2 + rho Var f;  rho = 0: bag level,  rho = 1: instance level",
    parts=(
        "papyrax.losses.interpolated_bag_loss",
        "papyrax.losses.bag_level_loss",
        "papyrax.losses.instance_level_loss",
        "papyrax.losses.private_bag_responses",
    ),
    claim=Claim(
        text="An interpolation of the bag-level and the instance-level loss improves on both.",
        setup=(
            "Linear regression, 400 examples, 60 dimensions, parameter of unit length on average, "
            "noise one, random bags of 2, 4, 5 and 8; minimizers for nine shares; a seed is the "
            "mean of 30 draws."
        ),
        accept=(
            "For every size of bags and on every seed, the squared error of the parameter at the "
            "best interior share is at most 0.9 times that of the better end."
        ),
        method="interpolation",
        baseline="better of bag level and instance level",
    ),
    venue="ICLR 2024",
)

EXAMPLES, DIMENSIONS, NOISE, DRAWS = 400, 60, 1.0, 30
SIZES = (2, 4, 5, 8)
SHARES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@functools.partial(jax.jit, static_argnames="size")
def errors(keys: Float[Array, "draws"], size: int) -> Float[Array, "draws shares"]:
    """Squared error of the parameter that minimizes the loss with each share."""

    def one(key: Array) -> Array:
        a, b, c = jax.random.split(key, 3)
        theta = jax.random.normal(a, (DIMENSIONS,)) / jnp.sqrt(DIMENSIONS)
        x = jax.random.normal(b, (EXAMPLES // size, size, DIMENSIONS))
        y = x @ theta + NOISE * jax.random.normal(c, x.shape[:-1])
        response = y.mean(-1)

        def fit(share: Array) -> Array:
            def loss(w: Array) -> Array:
                return interpolated_bag_loss(x @ w, response, instance_weight=share).mean()

            # Quadratic: one Newton step is the minimizer. The ridge decides only where there are
            # fewer bags than dimensions.
            zero = jnp.zeros(DIMENSIONS)
            hessian = jax.hessian(loss)(zero) + 1e-10 * jnp.eye(DIMENSIONS)
            w = -jnp.linalg.solve(hessian, jax.grad(loss)(zero))
            return jnp.sum(jnp.square(w - theta))

        return jax.lax.map(fit, jnp.array(SHARES))

    return jax.lax.map(one, keys)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on 30 draws a seed; "full" on 300."""
    draws, all_seeds = DRAWS * (1 if budget == "quick" else 10), seed_range(seed, seeds)
    measures = []
    curves: dict[int, np.ndarray] = {}
    with jax.enable_x64(True):
        keys = jnp.concatenate([jax.random.split(jax.random.key(s), draws) for s in all_seeds])
        for i, size in enumerate(SIZES):
            progress(i / len(SIZES), f"bags of {size}")
            curves[size] = np.asarray(errors(keys, size)).reshape(seeds, draws, -1).mean(1)
            ours = curves[size][:, 1:-1].min(-1)
            ends = curves[size][:, [0, -1]].min(-1)
            measures.append(
                Measure(
                    name=f"squared error of the parameter, bags of {size}",
                    method=tuple(ours),
                    baseline=tuple(ends),
                    accept="method <= 0.9 baseline on every seed",
                    holds=bool((ours <= 0.9 * ends).all()),
                    better="lower",
                )
            )
    progress(1.0, "done")
    figure = Figure(
        title="From the bag-level (left) to the instance-level loss (right)",
        x_label="share of the variance",
        y_label="squared error of the parameter",
        lines=tuple(
            Line(f"bags of {size}", SHARES, tuple(map(tuple, curves[size]))) for size in SIZES
        ),
        y_log=True,
    )
    return Result(PAPER.slug, budget, all_seeds, tuple(measures), figure)
