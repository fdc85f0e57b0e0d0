"""Let's Make Block Coordinate Descent Converge Faster.

The problem. Block coordinate descent moves a few coordinates a step. Which ones, and how far?

The idea. Choose the block by the decrease that it promises, which takes the curvature of each
coordinate into account, and not by the largest gradients alone (Gauss-Southwell, GS), let alone by
chance; and move it by the Hessian of the block instead of the largest eigenvalue of that.

    GS: |g_i|;   GSL: |g_i| / sqrt(H_ii);   GSD: |g_i| / sqrt(sum_j |H_ij|)
    matrix update: d_b = -H_bb^+ g_b;   gradient update: d_b = -g_b / lambda_max(H_bb)

What the authors measured. On least squares, logistic and softmax regression, label propagation and
problems with l1 or non-negativity, the new rules and matrix updates need far fewer iterations.
They also give message passing for blocks that are trees, and rates once the active set is found.

What is measured here. Least squares with a random matrix of 300 x 200 as in the authors' first data
set, whose columns differ in scale, sparse, with a tenth of the solution not zero, in float64: the
gap to the least value after 500 steps with blocks of 5, over that at the start, the geometric mean
of five problems a seed; rules random, cyclic, GS, GSL and GSD, each with both updates.

What to know. Nothing is tuned. The recipe of the matrix and the solution is that of the authors'
code (src/datasets/datasets.py), smaller.

What was seen beside it, on seeds 100, 101 and 102, which no acceptance rests on. The rule GSQ by
thresholding, which seeks the block of the best matrix update, ends at 0.9 to 2.5e-6, below GSL (1.6
to 3.5e-6) and GSD (3.6 to 13e-6), from the authors' start as from the other. With fixed blocks,
the best of the partition by GSQ or GSL ends at 4 to 8e-6, by GS at 1.1 to 2.3e-4, in turn at 2.4 to
2.8e-3; how the partition is formed (sorted, averaged, as it comes) makes no difference here.

What is a part, but not measured here: two-metric projection and proximal steps, which identify the
active set of problems with bounds and l1; and forests of coordinates, chosen greedily and solved by
message passing. The tests hold them against solvers: non-negative least squares ends once its
support is known, and messages are exact after as many sweeps as a forest's diameter.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.optim import block_step, select_block
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
    slug="block_coordinate_descent_rules",
    title=(
        "Let's Make Block Coordinate Descent Converge Faster: Faster Greedy Rules, "
        "Message-Passing, Active-Set Complexity, and Superlinear Convergence"
    ),
    authors="J. Nutini, I. Laradji, M. Schmidt",
    year=2017,
    arxiv="1712.08859",
    area="optimization",
    idea=(
        "Choose the block of coordinates by the decrease that gradient and curvature promise, and "
        "move it by its Hessian."
    ),
    formula=(
        "GS: |g_i|;  GSL: |g_i| / sqrt(H_ii);  GSD: |g_i| / sqrt(sum_j |H_ij|)\n"
        "d_b = -H_bb^+ g_b  or  -g_b / lambda_max(H_bb)"
    ),
    parts=(
        "papyrax.optim.select_block",
        "papyrax.optim.block_step",
        "papyrax.optim.select_block_quadratic",
        "papyrax.optim.partition_coordinates",
        "papyrax.optim.select_from_partition",
        "papyrax.optim.cyclic_block",
        "papyrax.optim.sample_from_partition",
        "papyrax.optim.active_set",
        "papyrax.optim.select_proximal_block",
        "papyrax.optim.proximal_block_step",
        "papyrax.optim.two_metric_step",
        "papyrax.optim.is_forest",
        "papyrax.optim.forest_block",
        "papyrax.optim.gaussian_belief_propagation",
    ),
    claim=Claim(
        text=(
            "Greedy rules with curvature and matrix updates make block coordinate descent much "
            "faster."
        ),
        setup=(
            "Least squares, 300 x 200, sparse with columns of different scale; blocks of 5, 500 "
            "steps; geometric mean of five problems a seed; float64."
        ),
        accept=(
            "On every seed, with matrix updates: the gap of GSD <= 0.2 times that of GS, and that "
            "of GS <= 0.2 times that of random blocks; and for every rule matrix updates end below "
            "gradient updates."
        ),
        method="GSD, matrix update",
        baseline="GS and random",
    ),
    venue="JMLR 2022",
    code="IssamLaradji/BlockCoordinateDescent",
)

RULES, UPDATES = ("GSD", "GSL", "GS", "cyclic", "random"), ("hessian", "lipschitz")
ROWS, DIM, SIZE, STEPS, PROBLEMS, EVERY = 300, 200, 5, 500, 5, 10


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices [PROBLEMS, ROWS, DIM] and right-hand sides [PROBLEMS, ROWS]."""
    rng = np.random.default_rng(seed)
    shape = (PROBLEMS, ROWS, DIM)
    a = (rng.normal(size=shape) + 1) * 10 * rng.normal(size=(PROBLEMS, 1, DIM))
    a *= rng.uniform(size=shape) < 10 * np.log(ROWS) / ROWS
    solution = rng.normal(size=(PROBLEMS, DIM)) * (rng.uniform(size=(PROBLEMS, DIM)) < 0.1)
    return a, np.einsum("pij,pj->pi", a, solution) + rng.normal(size=(PROBLEMS, ROWS))


@functools.partial(jax.jit, static_argnames=("rule", "update"))
def descend(
    a: Float[Array, "problems rows dim"],
    b: Float[Array, "problems rows"],
    key: Array,
    *,
    rule: str,
    update: Any,
) -> Float[Array, "problems points"]:
    """Gaps to the least value over that at zero, every ten steps from the start on."""

    def one(a: Array, b: Array, key: Array) -> Array:
        hessian = a.T @ a
        curvature = {"GSL": jnp.diag(hessian), "GSD": jnp.abs(hessian).sum(1)}.get(rule)
        best = jnp.linalg.lstsq(a, b)[0]
        order = jax.random.permutation(key, DIM)

        def gap(x: Array) -> Array:
            # f(x) - f(best) for a quadratic: nothing cancels.
            return jnp.sum((a @ (x - best)) ** 2) / 2

        def step(x: Array, i: Array) -> tuple[Array, Array]:
            gradient = a.T @ (a @ x - b)
            if rule == "random":
                block = jax.random.permutation(jax.random.fold_in(key, i), DIM)[:SIZE]
            elif rule == "cyclic":
                block = order.reshape(-1, SIZE)[i % (DIM // SIZE)]
            else:
                block = select_block(gradient, curvature, size=SIZE)
            return x + block_step(gradient, hessian, block, rule=update), gap(x)

        start = jnp.zeros(DIM, a.dtype)
        last, gaps = jax.lax.scan(step, start, jnp.arange(STEPS))
        return jnp.append(gaps[::EVERY], gap(last)) / gaps[0]

    return jax.vmap(one)(a, b, jax.random.split(key, len(a)))


def measure(seed: int, rule: str, update: str) -> np.ndarray:
    """The geometric mean of the gaps of all problems, every ten steps."""
    with jax.enable_x64(True):
        a, b = map(jnp.asarray, make_data(seed))
        gaps = np.asarray(descend(a, b, jax.random.key(seed), rule=rule, update=update))
    return np.exp(np.log(gaps).mean(0))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "quick" and "full" do the same, for it takes seconds."""
    all_seeds = seed_range(seed, seeds)
    curves: dict[tuple[str, str], list[np.ndarray]] = {}
    for i, s in enumerate(all_seeds):
        for j, rule in enumerate(RULES):
            progress((i + j / len(RULES)) / seeds, f"seed {s}: {rule}")
            for update in UPDATES:
                curves.setdefault((rule, update), []).append(measure(s, rule, update))
    progress(1.0, "done")

    def last(rule: str, update: str) -> tuple[float, ...]:
        return tuple(float(curve[-1]) for curve in curves[rule, update])

    measures = [
        Measure(
            name=f"gap after 500 steps, matrix updates, {ours} (against {theirs})",
            method=last(ours, "hessian"),
            baseline=last(theirs, "hessian"),
            accept="<= 0.2 times it on every seed",
            holds=all(x <= 0.2 * y for x, y in zip(last(ours, "hessian"), last(theirs, "hessian"))),
            better="lower",
        )
        for ours, theirs in (("GSD", "GS"), ("GS", "random"))
    ]
    measures += [
        Measure(
            name=f"gap after 500 steps, {rule}, matrix (against gradient) updates",
            method=last(rule, "hessian"),
            baseline=last(rule, "lipschitz"),
            accept="lower on every seed",
            holds=all(x < y for x, y in zip(last(rule, "hessian"), last(rule, "lipschitz"))),
            better="lower",
        )
        for rule in RULES
    ]
    figure = Figure(
        title="Least squares, blocks of 5 of 200 coordinates, matrix updates",
        x_label="step",
        y_label="gap over the first",
        y_log=True,
        lines=tuple(
            Line(
                rule,
                tuple(range(0, STEPS + 1, EVERY)),
                tuple(tuple(curve.tolist()) for curve in curves[rule, "hessian"]),
            )
            for rule in RULES
        ),
    )
    return Result(
        slug=PAPER.slug, budget=budget, seeds=all_seeds, measures=tuple(measures), figure=figure
    )
