"""Transformers as Support Vector Machines.

The problem. Attention is trained by gradient descent on a loss that many weights minimize equally
well. Which of them does it find?

The idea. Where one token of each example is best, the loss only goes to its infimum as the softmax
gets hard, so the weights grow without bound and what can converge is their direction. For one layer
with scores `x_t^T W z` the authors prove that it does, to the solution of a support vector machine
that separates the selected tokens from the others:

    min |W|   such that   (x_{i, opt_i} - x_{i, t})^T W z_i >= 1   for all i and t != opt_i

The norm is Frobenius' where W is trained; trained as W = K Q^T it is the nuclear norm, which
prefers low rank. Descent may select a token that is best only among its neighbours; then the
machine is the one for the tokens that were selected.

What the authors measured. On random tokens: the correlation of the weights with the solution of
either problem over 2000 steps of normalized gradient descent, for both parametrizations, and how
often the best tokens are selected.

What is measured here. The same experiment on problems of two sizes, with the solvers of the
library: the weights against the solution for the tokens that they have selected, with the direction
of the very first gradient for comparison; and for K Q^T whether it is the nuclear and not the
Frobenius solution that it goes to.

What needs care. The gradient with respect to the scores is p_t (g_t - sum_s p_s g_s). Once the
softmax is hard, the difference is rounding for the selected token, and descent stalls at
correlations of 0.8 to 0.97 that look like a limit. Measured against the selected token's g the
differences are exact. As normalized descent does not see the gradient's length, the shares are kept
as exponentials over their largest, and nothing underflows.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from papyrax.attention import attention_svm, matrix_correlation
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
    slug="attention_svm",
    title="Transformers as Support Vector Machines",
    authors="D. A. Tarzanagh, Y. Li, C. Thrampoulidis, S. Oymak",
    year=2023,
    arxiv="2308.16898",
    area="theory",
    idea=(
        "Gradient descent on the weights of a softmax attention converges in direction to the "
        "hard-margin support vector machine that separates the selected tokens from the others."
    ),
    formula=(
        "min |W|  such that  (x_opt - x_t)^T W z >= 1 for every example and t != opt\n"
        "Frobenius norm for W, nuclear norm for W = K Q^T"
    ),
    parts=(
        "papyrax.attention.attention_svm",
        "papyrax.attention.attention_margins",
        "papyrax.attention.matrix_correlation",
    ),
    claim=Claim(
        text=(
            "Trained by gradient descent, W converges in direction to the Frobenius-norm machine "
            "and K Q^T to the nuclear-norm machine of the tokens that are selected."
        ),
        setup=(
            "4 random problems a seed of (examples, tokens, dim) = (3, 5, 8) and 4 of (4, 6, 10), "
            "unit tokens and queries, logistic loss, labels +-1, normalized gradient descent at "
            "0.1 for 2000 steps in float64, from W = 0 or random K, Q."
        ),
        accept=(
            "Correlation of W with the Frobenius solution >= 0.99 after 1000 steps and >= 0.998 "
            "after 2000, on every problem, where the first gradient's is <= 0.85 in the mean. "
            "K Q^T >= 0.95 with the nuclear solution, and closer to it than to the Frobenius one, "
            "on every seed in the mean. W selects the best token in >= 90 % of the examples."
        ),
        method="gradient descent",
        baseline="first gradient",
    ),
    venue="arXiv",
    code="umich-sota/TF-as-SVM",
)

SIZES = ((3, 5, 8), (4, 6, 10))
RATE, RECORDED = 0.1, 50


class Problem(NamedTuple):
    """Tokens [n, T, d], labels [n], queries [n, d] and the direction [d] that scores a token."""

    tokens: Float[Array, "n T d"]
    labels: Float[Array, "n"]
    queries: Float[Array, "n d"]
    head: Float[Array, "d"]


def draw(rng: np.random.Generator, n: int, T: int, d: int) -> Problem:
    """Unit tokens, queries and head in random directions, and random labels."""

    def unit(*shape: int) -> Any:
        x = rng.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    tokens = unit(n, T, d)
    labels: Any = rng.choice([-1.0, 1.0], n)
    return Problem(tokens, labels, unit(n, d), unit(d))


def scores(weights: Float[Array, "d d"], problem: Problem) -> Float[Array, "n T"]:
    """x_t^T W z."""
    return jnp.einsum("ntd,de,ne->nt", problem.tokens, weights, problem.queries)


def gradient(weights: Float[Array, "d d"], problem: Problem) -> Float[Array, "d d"]:
    """A positive multiple of the gradient of mean log(1 + exp(-y v.attention)).

    Exact for a hard softmax too: see the note above.
    """
    log_p = jax.nn.log_softmax(scores(weights, problem))
    selected = jax.nn.one_hot(log_p.argmax(-1), log_p.shape[-1], dtype=bool)
    values = problem.tokens @ problem.head
    top = jnp.sum(values * selected, axis=-1, keepdims=True)
    lacking = values - top
    p = jnp.exp(log_p)
    out = top[:, 0] + jnp.sum(p * lacking, axis=-1)
    unit = jnp.max(jnp.where(selected, -jnp.inf, log_p))
    shares = jnp.exp(log_p - unit)  # of the tokens not selected, over the largest of them
    mean = jnp.sum(jnp.where(selected, 0, shares * lacking), axis=-1, keepdims=True)
    of_scores = jnp.where(selected, -p * mean, shares * lacking - p * mean)
    of_out = -problem.labels * jax.nn.sigmoid(-problem.labels * out)
    return jnp.einsum("n,nt,ntd,ne->de", of_out, of_scores, problem.tokens, problem.queries)


def unit(x: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Over its Frobenius norm."""
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-300)


def descend(problem: Problem, factors: tuple[Array, Array] | None, steps: int) -> Array:
    """W after every 50 steps of normalized descent [steps / 50, d, d], from zero or K Q^T."""
    dim = problem.head.shape[0]

    def plain(w: Array, _: None) -> tuple[Array, None]:
        return w - RATE * unit(gradient(w, problem)), None

    def factored(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        k, q = carry
        g = gradient(k @ q.T, problem)
        return (k - RATE * unit(g @ q), q - RATE * unit(g.T @ k)), None

    def some(carry: Any, _: None) -> tuple[Any, Array]:
        step: Any = plain if factors is None else factored
        carry, _ = jax.lax.scan(step, carry, None, length=RECORDED)
        return carry, carry if factors is None else carry[0] @ carry[1].T

    start: Any = jnp.zeros((dim, dim)) if factors is None else factors
    return jax.lax.scan(some, start, None, length=steps // RECORDED)[1]


@functools.partial(jax.jit, static_argnames="steps")
def measure(
    problems: Problem, factors: tuple[Array, Array], *, steps: int
) -> dict[str, Float[Array, "problems ..."]]:
    """Everything that is reported, for problems with a leading axis."""

    def selected(w: Array, problem: Problem) -> Int[Array, "n"]:
        return scores(w, problem).argmax(-1)

    def one(problem: Problem, factors: tuple[Array, Array]) -> dict[str, Array]:
        path, path_kq = descend(problem, None, steps), descend(problem, factors, steps)
        chosen, chosen_kq = selected(path[-1], problem), selected(path_kq[-1], problem)
        best = jnp.argmax(problem.labels[:, None] * (problem.tokens @ problem.head), axis=-1)
        x, z = problem.tokens, problem.queries
        machine = attention_svm(x, z, chosen)
        first = -gradient(jnp.zeros_like(machine), problem)

        def along(path: Array, w: Array) -> Array:
            return jax.vmap(lambda each: matrix_correlation(each, w))(path)

        return {
            "plain": along(path, machine),
            "first": matrix_correlation(first, machine),
            "kq nuclear": along(path_kq, attention_svm(x, z, chosen_kq, norm="nuclear")),
            "kq frobenius": along(path_kq, attention_svm(x, z, chosen_kq)),
            "best": jnp.mean(chosen == best),
        }

    return jax.vmap(one)(problems, factors)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" draws five times as many problems."""
    all_seeds, count = seed_range(seed, seeds), 20 if budget == "full" else 4
    parts: list[dict[str, np.ndarray]] = []
    for i, size in enumerate(SIZES):
        progress(i / len(SIZES), f"(examples, tokens, dim) = {size}, all seeds")
        rngs = [np.random.default_rng((s, i)) for s in all_seeds]
        drawn = [draw(rng, *size) for rng in rngs for _ in range(count)]
        dim = size[-1]
        starts = [
            tuple(rng.normal(size=(dim, dim)) / np.sqrt(dim) for _ in "kq")
            for rng in rngs
            for _ in range(count)
        ]
        with jax.enable_x64(True):
            problems, factors = (
                jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *each) for each in (drawn, starts)
            )
            got = jax.device_get(measure(problems, factors, steps=2000))
        parts.append({k: v.reshape(seeds, count, *v.shape[1:]) for k, v in got.items()})
    progress(1.0, "done")
    # Problems of both sizes side by side: [seeds, problems, ...].
    return _result(
        budget, all_seeds, {k: np.concatenate([p[k] for p in parts], axis=1) for k in parts[0]}
    )


def _result(budget: Budget, seeds: tuple[int, ...], got: dict[str, np.ndarray]) -> Result:
    half = got["plain"].shape[-1] // 2 - 1
    early, late = got["plain"][..., half].min(1), got["plain"][..., -1].min(1)
    first = got["first"].mean(1)
    nuclear, frobenius = got["kq nuclear"][..., -1].mean(1), got["kq frobenius"][..., -1].mean(1)
    best = got["best"].mean(1)
    measures = (
        Measure(
            name="correlation of W with the Frobenius machine after 1000 steps, worst problem",
            method=tuple(early),
            baseline=tuple(first),
            accept="W >= 0.99 and the mean of the first gradients <= 0.85 on every seed",
            holds=bool(np.all(early >= 0.99) and np.all(first <= 0.85)),
        ),
        Measure(
            name="correlation of W with the Frobenius machine after 2000 steps, worst problem",
            method=tuple(late),
            accept="W >= 0.998 on every seed",
            holds=bool(np.all(late >= 0.998)),
        ),
        Measure(
            name="correlation of K Q^T with the nuclear machine (baseline: the Frobenius machine)",
            method=tuple(nuclear),
            baseline=tuple(frobenius),
            accept="nuclear >= 0.95 and > Frobenius on every seed, means over problems",
            holds=bool(np.all(nuclear >= 0.95) and np.all(nuclear > frobenius)),
        ),
        Measure(
            name="share of examples in which W selects the best token",
            method=tuple(best),
            accept="W >= 0.9 in the mean over seeds",
            holds=bool(best.mean() >= 0.9),
        ),
    )
    x = tuple(RECORDED * (i + 1.0) for i in range(got["plain"].shape[-1]))
    names = {
        "plain": "W, Frobenius machine",
        "kq nuclear": "K Q^T, nuclear machine",
        "kq frobenius": "K Q^T, Frobenius machine",
    }
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="Attention weights turn to the support vector machine",
            x_label="steps of gradient descent",
            y_label="1 - correlation, mean over problems",
            lines=tuple(
                Line(legend, x, tuple(map(tuple, 1 - got[name].mean(1))))
                for name, legend in names.items()
            ),
            y_log=True,
        ),
    )
