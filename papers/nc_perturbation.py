"""Perturbation Analysis of Neural Collapse.

The problem. Models of neural collapse let the last features be free, and then every minimizer has
collapsed to one point a class. Trained networks come near to that but do not reach it, and what
their earlier layers feed in matters.

The idea. Tie the features `H` to given ones `H0`,

    f(W, H) = |W H - Y|^2 / (2 K n) + lw |W|^2 / (2 K) + (lh |H|^2 + beta |H - H0|^2) / (2 K n)

with K classes of n examples. For a large `beta` the minimizer is `H0 - (W0' (W0 H0 - Y) + lh H0) /
beta` to first order, with `W0 = Y H0' (H0 H0' + n lw I)^-1` the best classifier of `H0`. Following
that direction anew at every point is gradient flow, along which, the authors prove, the scatter
within classes relative to that between them, `tr(S_W) / tr(S_B)`, falls all the time.

What the authors measured. The decrease of this measure from layer to layer of deep networks, and
the effect of regularization on it.

What is measured here. Gaussian classes as `H0`: the minimizer near to `H0`, found by alternating
the two linear systems it solves, against the first-order formula, whose error must fall with the
square of `beta`; whether the minimizer has less relative scatter than `H0`; and the measure along
the flow. The factors of n and K in `f` could not be compared with the paper; they scale the two
regularizers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.metrics import within_class_variability
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
    slug="nc_perturbation",
    title="Perturbation Analysis of Neural Collapse",
    authors="T. Tirer, H. Huang, J. Niles-Weed",
    year=2023,
    arxiv="2210.16658",
    area="theory",
    idea=(
        "Features are free but stay near given ones; in that vicinity the scatter within classes "
        "relative to that between them falls, all along the gradient flow."
    ),
    formula=(
        "f = |W H - Y|^2 / (2 K n) + lw |W|^2 / (2 K) + (lh |H|^2 + beta |H - H0|^2) / (2 K n)\n"
        "dH/dt = -(W' (W H - Y) + lh H),  W = Y H' (H H' + n lw I)^-1"
    ),
    parts=("papyrax.metrics.within_class_variability",),
    claim=Claim(
        text=(
            "Minimizers near given features, and the flow from them, have less variability within "
            "classes relative to that between classes."
        ),
        setup=(
            "4 classes of 25 Gaussian examples in 20 dimensions, means of norm 1 and noise "
            "0.6 / sqrt(20) a coordinate, lw = lh = 0.005; minimizers at beta 10 and 20; 4,000 "
            "Euler steps of 0.5, recorded every 100."
        ),
        accept=(
            "On every seed: the error of the first-order formula at beta 10 is 3 to 5 times that "
            "at beta 20; tr(S_W) / tr(S_B) is smaller at the minimizer than for the given "
            "features; along the flow it falls at every record until it is below 1e-6."
        ),
        method="perturbed features",
        baseline="given features",
    ),
    venue="ICML 2023",
)

CLASSES, EXAMPLES, DIM = 4, 25, 20
LAMBDA_W = LAMBDA_H = 5e-3
BETA = 10.0
STEP = 0.5
RECORDS, EVERY = 40, 100
LABELS = np.repeat(np.arange(CLASSES), EXAMPLES)

Features = Float[Array, "dim examples"]


def make_features(seed: int) -> np.ndarray:
    """Gaussian classes around random directions [dim, examples]."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(CLASSES, DIM))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    noise = 0.6 / np.sqrt(DIM) * rng.normal(size=(len(LABELS), DIM))
    return (means[LABELS] + noise).T


def targets(h: Features) -> Float[Array, "classes examples"]:
    """One-hot labels as columns."""
    return jnp.asarray(np.eye(CLASSES)[:, LABELS], h.dtype)


def best_classifier(h: Features) -> Float[Array, "classes dim"]:
    """`Y H' (H H' + n lw I)^-1`, the minimizer of f over W."""
    ridge = EXAMPLES * LAMBDA_W * jnp.eye(DIM, dtype=h.dtype)
    return jnp.linalg.solve(h @ h.T + ridge, h @ targets(h).T).T


def objective(w: Array, h: Features, given: Features, beta: float) -> Float[Array, ""]:
    """The objective f."""
    n, kn = EXAMPLES, CLASSES * EXAMPLES
    near = jnp.sum((w @ h - targets(h)) ** 2) + LAMBDA_H * jnp.sum(h**2)
    near += beta * jnp.sum((h - given) ** 2)
    return near / (2 * kn) + n * LAMBDA_W * jnp.sum(w**2) / (2 * kn)


def slope(h: Features) -> Features:
    """`K n` times the gradient of f in H, without its term in beta, at the best classifier."""
    w = best_classifier(h)
    return w.T @ (w @ h - targets(h)) + LAMBDA_H * h


def minimize(given: Features, beta: float, rounds: int = 100) -> Features:
    """The minimizer of f near the given features, by turns in W and in H."""

    def turn(h: Features, _: None) -> tuple[Features, None]:
        w = best_classifier(h)
        system = w.T @ w + (LAMBDA_H + beta) * jnp.eye(DIM, dtype=h.dtype)
        return jnp.linalg.solve(system, w.T @ targets(h) + beta * given), None

    return jax.lax.scan(turn, given, None, length=rounds)[0]


def variability(h: Features) -> Float[Array, ""]:
    """`tr(S_W) / tr(S_B)`."""
    return within_class_variability(h.T, jnp.asarray(LABELS), classes=CLASSES)


@functools.partial(jax.jit, static_argnames="records")
def flow(given: Float[Array, "seeds dim examples"], records: int) -> Float[Array, "seeds records"]:
    """The variability at the start and after every `EVERY` Euler steps."""

    def one(h: Features) -> Array:
        def record(h: Features, _: None) -> tuple[Features, Array]:
            after = jax.lax.fori_loop(0, EVERY, lambda _, h: h - STEP * slope(h), h)
            return after, variability(h)

        return jax.lax.scan(record, h, None, length=records)[1]

    return jax.vmap(one)(given)


@jax.jit
def near(given: Float[Array, "seeds dim examples"]) -> tuple[Array, Array]:
    """For each seed, error of the first-order formula at both betas, and variabilities."""

    def one(given: Features) -> tuple[Array, Array]:
        errors = []
        for beta in (BETA, 2 * BETA):
            first_order = given - slope(given) / beta
            errors.append(jnp.linalg.norm(minimize(given, beta) - first_order))
        return jnp.stack(errors), jnp.stack(
            [variability(minimize(given, BETA)), variability(given)]
        )

    return jax.vmap(one)(given)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" records the flow for as long again."""
    all_seeds = seed_range(seed, seeds)
    records = (RECORDS if budget == "quick" else 2 * RECORDS) + 1
    with jax.enable_x64(True):
        given = jnp.asarray(np.stack([make_features(s) for s in all_seeds]))
        progress(0.0, "minimizers near the given features")
        errors, values = (np.asarray(a) for a in near(given))
        progress(0.2, "gradient flow")
        trace = np.asarray(flow(given, records))
    progress(1.0, "done")
    fall = errors[:, 0] / errors[:, 1]
    # Below the threshold the flow has nothing left to show but rounding.
    falls = [np.all(np.diff(t)[t[:-1] > 1e-12] < 0) for t in trace]
    measures = (
        Measure(
            name="error of the first-order formula at beta 10, relative to beta 20",
            method=tuple(fall),
            accept="between 3 and 5 on every seed",
            holds=bool(np.all((fall > 3) & (fall < 5))),
            better="equal",
        ),
        Measure(
            name="tr(S_W) / tr(S_B) of the minimizer at beta 10",
            method=tuple(values[:, 0]),
            baseline=tuple(values[:, 1]),
            accept="method < baseline on every seed",
            holds=bool(np.all(values[:, 0] < values[:, 1])),
            better="lower",
        ),
        Measure(
            name="tr(S_W) / tr(S_B) at the end of the flow",
            method=tuple(trace[:, -1]),
            baseline=tuple(trace[:, 0]),
            accept="below 1e-6 on every seed, falling at every record above 1e-12",
            holds=bool(np.all(trace[:, -1] < 1e-6) and all(falls)),
            better="lower",
        ),
    )
    times = tuple(STEP * EVERY * i for i in range(records))
    lines = (Line(PAPER.claim.method, times, tuple(map(tuple, trace))),)
    figure = Figure(
        "Gradient flow from Gaussian classes", "time", "tr(S_W) / tr(S_B)", lines, y_log=True
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
