"""Supervised Dictionary Learning with Auxiliary Covariates.

The problem. A dictionary that reconstructs data best need not hold what their labels depend on, and
learning dictionary, codes and classifier at once is not convex.

The idea. Lift the factors: with a = W beta and B = W H the loss is convex in [a, B], and what is
left of the dictionary is that this matrix has low rank. So descend, and project by a truncated
SVD. Covariates beside the data enter the labels' model alone.

    F = sum_i log(1 + exp(u_i)) - y_i u_i + xi |X - B|^2 + nu (|a|^2 + |g|^2)
    u = X' a + Z' g   ("filter": the label depends on W' x)
    [a, B] <- P_r([a, B] - tau grad F),   g <- g - tau grad F

What the authors measured. Exponential convergence to the global minimum for well-conditioned
losses, and dictionaries of chest X-rays and of texts that classify better than two separate steps.

What is measured here. 100 points of rank 4 in 20 dimensions with random labels, and xi and nu such
that mu = S / 4 and L = S / 2 for S = |X|^2: three random starts and 200 steps of 2 / (mu + L), in
float64. The theory has a ratio of 2 (L - mu) / (L + mu) = 2/3 at most between the distances to the
minimum of two steps, from any start.

What was seen beside it (on other seeds). The ratio is 1/3, that of gradient descent without the
projection. Where L / mu is large, starts do not agree. 400 points in 30 dimensions, four of them
strong (deviations 5 to 2) and one weak, 0.8, on which the label depends, xi = 1: after 2,000 steps
from zero the labels of test points are right in 86 to 89%, and in half from the principal
components. But F is at 2,800 to 3,400 from zero and at 920 from the components: that gain belongs
to a descent that has not ended, not to the minimum. The gradients of the authors' code have nu a,
half of what the paper's F gives. Its other method, block coordinate descent on dictionary, codes
and classifier with bounds, is steps of each under `diminishing_radius`; it is not measured here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.optim import low_rank_factors, lpgd
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
    slug="sdl_lpgd",
    title="Supervised Dictionary Learning with Auxiliary Covariates",
    authors="J. Lee, H. Lyu, W. Yao",
    year=2022,
    arxiv="2206.06774",
    area="optimization",
    idea=(
        "Dictionary, codes and classifier together are convex in a lifted matrix of low rank: "
        "gradient steps, each followed by a truncated SVD."
    ),
    formula=(
        "F = sum_i log(1 + exp(u_i)) - y_i u_i + xi |X - B|^2 + nu (|a|^2 + |g|^2),  "
        "u = X' a + Z' g\n"
        "[a, B] <- P_r([a, B] - tau grad F),  g <- g - tau grad F"
    ),
    parts=(
        "papyrax.optim.lpgd",
        "papyrax.optim.low_rank_projection",
        "papyrax.optim.low_rank_factors",
        "papyrax.optim.diminishing_radius",
    ),
    claim=Claim(
        text=(
            "Low-rank projected descent of a well-conditioned loss converges exponentially to the "
            "global minimum, from any start."
        ),
        setup=(
            "100 points of rank 4 in 20 dimensions, random labels, L = 2 mu, three random starts, "
            "200 steps, float64."
        ),
        accept=(
            "On every seed the starts end within 1e-10 of each other, and the distance to the "
            "minimum shrinks by a factor of at most 0.67 at every step."
        ),
        method="SDL by LPGD",
        baseline="the bound of the theory",
    ),
    code="ljw9510/SDL",
)

RANK, ROWS = 4, (0, 2, 4, 6, 8, 10, 12, 14)


def objective(
    params: dict[str, Array],
    x: Float[Array, "dim n"],
    y: Float[Array, " n"],
    covariates: Float[Array, "q n"],
    xi: float,
    nu: float,
) -> Float[Array, ""]:
    """F of `lifted` [dim, 1 + n], the matrix [a, B], and `gamma` [q]."""
    a, reconstruction = params["lifted"][:, 0], params["lifted"][:, 1:]
    u = x.T @ a + covariates.T @ params["gamma"]
    fit = jnp.sum(jnp.logaddexp(0, u) - y * u)
    size = jnp.sum(jnp.square(a)) + jnp.sum(jnp.square(params["gamma"]))
    return fit + xi * jnp.sum(jnp.square(x - reconstruction)) + nu * size


def factors(lifted: Float[Array, "dim columns"]) -> tuple[Array, Array, Array]:
    """The dictionary W [dim, rank] of norm one, beta [rank] and the codes H [rank, n]."""
    dictionary, codes = low_rank_factors(lifted, RANK)
    norm = jnp.linalg.norm(dictionary)
    return dictionary / norm, norm * codes[:, 0], norm * codes[:, 1:]


@functools.partial(jax.jit, static_argnames=("steps",))
def descend(
    params: dict[str, Array],
    x: Float[Array, "dim n"],
    y: Float[Array, " n"],
    xi: float,
    nu: float,
    tau: float,
    *,
    steps: int,
) -> dict[str, Array]:
    """Parameters after every step, stacked; the covariate is a constant."""
    tx = lpgd(tau, RANK)
    ones = jnp.ones((1, x.shape[1]), x.dtype)

    def step(params: dict[str, Array], _: None) -> tuple[dict[str, Array], dict[str, Array]]:
        slope = jax.grad(objective)(params, x, y, ones, xi, nu)
        updates, _ = tx.update(slope, tx.init(params), params)
        params = optax.apply_updates(params, updates)
        return params, params

    return jax.lax.scan(step, params, None, length=steps)[1]


def converge(seed: int) -> tuple[float, float, np.ndarray]:
    """Largest difference of three ends, largest ratio of steps, and relative distances."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, RANK)) @ rng.normal(size=(RANK, 100))
    y = rng.integers(0, 2, 100).astype(float)
    s = np.linalg.norm(x, 2) ** 2
    paths = []
    with jax.enable_x64(True):
        for _ in range(3):
            start = {
                "lifted": 10 * rng.normal(size=(20, RANK)) @ rng.normal(size=(RANK, 101)),
                "gamma": 10 * rng.normal(size=1),
            }
            path = descend(start, x, y, s / 4, s / 8, 2 / (s / 4 + s / 2), steps=200)
            whole = {k: np.concatenate([start[k][None], path[k]]) for k in start}
            paths.append(np.concatenate([v.reshape(201, -1) for v in whole.values()], 1))
    ends = [path[-1] for path in paths]
    away = [np.linalg.norm(path[:16] - ends[0], axis=1) for path in paths]
    apart = max(np.abs(end - ends[0]).max() for end in ends)
    ratio = max((row[1:] / row[:-1]).max() for row in away)
    return float(apart), float(ratio), np.max([row / row[0] for row in away], 0)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "quick" and "full" do the same, for it takes seconds."""
    all_seeds = seed_range(seed, seeds)
    found = []
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}")
        found.append(converge(s))
    progress(1.0, "done")

    apart, ratio, curves = zip(*found)
    measures = (
        Measure(
            name="largest difference between the ends of three starts",
            method=apart,
            accept="<= 1e-10 on every seed",
            holds=max(apart) <= 1e-10,
            better="lower",
        ),
        Measure(
            name="largest ratio of distances to the minimum, step by step",
            method=ratio,
            accept="<= 0.67 on every seed",
            holds=max(ratio) <= 0.67,
            better="lower",
        ),
    )
    figure = Figure(
        title="Descent to the minimum, the slowest of three starts",
        x_label="step",
        y_label="distance to the minimum over that of the start",
        lines=(
            Line("SDL by LPGD", ROWS, tuple(tuple(c[list(ROWS)].tolist()) for c in curves)),
            Line("bound, (2/3)^t", ROWS, (tuple((2 / 3) ** t for t in ROWS),) * seeds),
        ),
        y_log=True,
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
