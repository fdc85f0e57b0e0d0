"""Softmax-free Linear Transformers.

The problem. Softmax attention compares every pair of tokens. Landmarks, a few tokens that stand for
all, make its cost linear, but softmax divides each row by a sum over all keys, which the small
matrices between tokens and landmarks do not know: each is normalized by sums of its own, and their
product is no longer near the matrix it stands for.

The idea. Drop softmax. A Gaussian kernel of distances, with keys equal to queries, is a symmetric
positive semi-definite matrix, and Nystrom's method for such matrices needs no normalization:

    kappa(a, b) = exp(-|a - b|^2 / (2 sqrt(d))),   A = kappa(L, L)
    out = kappa(q, L) A^+ kappa(L, q) v

The small pseudo-inverse comes from Newton and Raphson's iteration, products alone, and its
derivative is written in closed form. SOFT++ puts `diag(A 1)^(-1/2)` on both sides of the
pseudo-inverse, which bounds the spectrum by one however many tokens there are.

What the authors measured. Vision transformers on ImageNet, COCO and ADE20K: more accurate than
other transformers at the same number of operations, most of all on long sequences.

What is measured here, on the two photographs that scikit-learn ships. A crop is cut into 32 x 32
patches of 8 x 8 pixels; queries and values are random projections of the patches to 16 dimensions;
each of 64 landmarks is the mean query of 4 x 4 patches. Eight crops a seed.

- Approximation: how far SOFT is from the attention with the full Gaussian kernel, for queries times
  1/2, 1, 2 and 4 (attention sharpens as they grow). The baseline is what keeps softmax:
  Nystromformer (arXiv 2102.03902) with the same landmarks, its iteration for the pseudo-inverse,
  and softmax attention as what it should be.
- Newton's 20 iterations against an exact solve.
- Cost: operations of the compiled programs as the number of tokens goes from 1024 to 4096. Times of
  the two are in the notes; they depend on the machine and decide nothing.
- SOFT++: how much the largest eigenvalue of the implied attention matrix grows when the same crop
  is cut into 32 x 32 tokens in place of 16 x 16, with a landmark for every 16 tokens.

What does not carry over. With queries of half the size all weights are nearly
equal and both approximations are good, and softmax's with an exact pseudo-inverse is even better;
the gap opens as attention sharpens. Twenty iterations leave the inverse of A unconverged in its
small directions, where the tokens have hardly any weight: the output does not show it. The
normalized weights of SOFT++ do not approximate SOFT's: they are another attention. The authors'
training on ImageNet is not repeated.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.attention import soft_attention
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
    slug="soft_softmax_free_attention",
    title="Softmax-free Linear Transformers",
    authors="J. Lu, J. Zhang, X. Zhu, J. Feng, T. Xiang, L. Zhang",
    year=2022,
    arxiv="2207.03341",
    area="attention",
    idea=(
        "A Gaussian kernel of shared queries and keys is positive semi-definite, so a few "
        "landmarks approximate it without the normalization that breaks low-rank softmax."
    ),
    formula=(
        "kappa(a, b) = exp(-|a - b|^2 / (2 sqrt(d))),  A = kappa(L, L)\n"
        "SOFT: out = kappa(q, L) A^+ kappa(L, q) v\n"
        "SOFT++: A^+ -> D A^+ D,  D = diag(A 1)^(-1/2)"
    ),
    parts=(
        "papyrax.attention.soft_attention",
        "papyrax.attention.newton_inverse",
        "papyrax.layers.SOFTBlock",
    ),
    claim=Claim(
        text=(
            "Without softmax, low-rank attention stays close to the full attention it stands for, "
            "at linear cost; keeping softmax makes the approximation fail."
        ),
        setup=(
            "1024 patches of a photograph as tokens, random projections to 16 dimensions, 64 "
            "pooled landmarks, 8 crops a seed; SOFT against the full Gaussian kernel, "
            "Nystromformer against softmax attention."
        ),
        accept=(
            "Relative error of SOFT: <= 0.03 at unit queries with 20 Newton iterations, <= 0.02 "
            "with an exact inverse, and at twice the queries <= 0.05 and at most half of "
            "Nystromformer's, on every seed. Operations from 1024 to 4096 tokens: at most 4.4 "
            "times as many, at least 14 times with the full kernel. Largest eigenvalue with four "
            "times the tokens and landmarks: at most 1.5 times as large with SOFT++, at least 3 "
            "times with SOFT, on every seed."
        ),
        method="SOFT",
        baseline="Nystromformer",
    ),
    venue="IJCV 2024",
    code="fudan-zvg/SOFT",
)

SIDE, POOL, DIM, PATCH = 32, 4, 16, 8
SHARPNESS = (0.5, 1.0, 2.0, 4.0)
Pair = tuple[Float[Array, "crops rows columns dim"], Float[Array, "crops rows columns dim"]]


def crops(seed: int, count: int, side: int = SIDE) -> Pair:
    """Queries and values of `count` crops of the photographs, cut into `side` x `side` patches.

    The crops of a seed are the same whatever the side; standardized patches are projected at
    random, so that queries have entries of order one.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    rng = np.random.default_rng(seed)
    width, queries, values = SIDE * PATCH, [], []
    places = [(rng.integers(len(photographs)), *rng.random(2)) for _ in range(count)]
    for which, *place in places:
        image = photographs[which] / 255.0
        top, left = (int(u * (n - width + 1)) for u, n in zip(place, image.shape[:2]))
        projections = rng.normal(size=(2, width // side, width // side, 3, DIM))
        cut = image[top : top + width, left : left + width]
        patches = cut.reshape(side, width // side, side, width // side, 3).swapaxes(1, 2)
        patches = (patches - patches.mean((0, 1))) / patches.std()
        both = np.einsum("ijyxc,pyxcd->pijd", patches, projections) * (width // side) ** -1 / 3**0.5
        queries.append(both[0])
        values.append(both[1])
    return jnp.asarray(np.stack(queries), jnp.float32), jnp.asarray(np.stack(values), jnp.float32)


def pool(q: Float[Array, "crops rows columns dim"]) -> Float[Array, "crops landmarks 1 dim"]:
    """Landmarks: the mean query of each square of `POOL` x `POOL` tokens."""
    n, rows, columns, dim = q.shape
    squares = q.reshape(n, rows // POOL, POOL, columns // POOL, POOL, dim)
    return squares.mean((2, 4)).reshape(n, -1, 1, dim)


def tokens(x: Float[Array, "crops rows columns dim"]) -> Float[Array, "crops tokens 1 dim"]:
    """A sequence for one head."""
    return x.reshape(x.shape[0], -1, 1, x.shape[-1])


def soft(q: Array, v: Array, **options: Any) -> Float[Array, "crops tokens 1 dim"]:
    """SOFT with pooled landmarks; not normalized unless asked."""
    options = {"normalize": False} | options
    return soft_attention(tokens(q), tokens(q), tokens(v), landmarks=pool(q), **options)


def full_kernel(q: Array, v: Array) -> Float[Array, "crops tokens 1 dim"]:
    """What SOFT stands for: `kappa(q, q) v` with all pairs of tokens."""
    q, v = tokens(q)[:, :, 0], tokens(v)
    squares = jnp.sum(q * q, -1)
    distance = squares[:, :, None] + squares[:, None] - 2 * jnp.einsum("btd,bsd->bts", q, q)
    weights = jnp.exp(-0.5 * DIM**-0.5 * jnp.maximum(distance, 0))
    return jnp.einsum("bts,bskd->btkd", weights, v)


def softmax_weights(a: Array, b: Array) -> Float[Array, "crops m n"]:
    """Softmax over the rows of the scaled products."""
    return jax.nn.softmax(jnp.einsum("bmd,bnd->bmn", a, b) * DIM**-0.5)


def nystromformer(q: Array, v: Array) -> Float[Array, "crops tokens dim"]:
    """Softmax attention of queries with themselves through the same landmarks.

    The pseudo-inverse is that of Nystromformer: six iterations of fourth order.
    """
    landmarks, q, v = pool(q)[:, :, 0], tokens(q)[:, :, 0], tokens(v)[:, :, 0]
    between = softmax_weights(landmarks, landmarks)
    bound = jnp.max(between.sum(-2), -1) * jnp.max(between.sum(-1), -1)
    inverse = jnp.swapaxes(between, -1, -2) / bound[:, None, None]
    eye = jnp.eye(between.shape[-1])
    for _ in range(6):
        product = between @ inverse
        inverse = 0.25 * inverse @ (13 * eye - product @ (15 * eye - product @ (7 * eye - product)))
    read = softmax_weights(landmarks, q) @ v
    return softmax_weights(q, landmarks) @ (inverse @ read)


def softmax_attention(q: Array, v: Array) -> Float[Array, "crops tokens dim"]:
    """What Nystromformer stands for."""
    q = tokens(q)[:, :, 0]
    return softmax_weights(q, q) @ tokens(v)[:, :, 0]


def relative(got: Array, want: Array) -> Float[Array, ""]:
    """Norm of the difference over the norm of what is wanted, mean over crops."""
    got, want = (x.reshape(x.shape[0], -1) for x in (got, want))
    return jnp.mean(jnp.linalg.norm(got - want, axis=1) / jnp.linalg.norm(want, axis=1))


@jax.jit
def errors(q: Array, v: Array, sharpness: Array) -> dict[str, Float[Array, ""]]:
    """Relative errors with queries multiplied by `sharpness`."""
    q = q * sharpness
    want = full_kernel(q, v)
    return {
        "newton": relative(soft(q, v), want),
        "exact": relative(soft(q, v, inverse="exact"), want),
        "softmax": relative(nystromformer(q, v), softmax_attention(q, v)),
    }


def largest_eigenvalue(seed: int, count: int, side: int, normalize: bool) -> np.ndarray:
    """The largest eigenvalue of the implied attention matrix of each crop, by 100 power steps."""
    q, _ = crops(seed, count, side)

    @jax.jit
    def power(q: Array) -> Array:
        def step(x: Array, _: None) -> tuple[Array, Array]:
            y = soft(q, x, normalize=normalize).reshape(x.shape)
            size = jnp.linalg.norm(y.reshape(y.shape[0], -1), axis=1)
            return y / size[:, None, None, None], size

        start = jnp.ones((*q.shape[:3], 1)) / side
        return jax.lax.scan(step, start, None, 100)[1][-1]

    return np.asarray(power(q), np.float64)


def cost(function: Any, side: int) -> tuple[float, float]:
    """Operations of the compiled program for side^2 tokens, and the least of 3 times in seconds."""
    x = jnp.ones((1, side, side, DIM)) * jnp.linspace(0, 1, side)[:, None, None]
    compiled = jax.jit(function).lower(x, x).compile()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(compiled(x, x))
        times.append(time.perf_counter() - start)
    analysis: Any = compiled.cost_analysis()
    return float(analysis["flops"]), min(times)


def landmarks_fixed(q: Array, v: Array) -> Array:
    """SOFT with 64 landmarks whatever the number of tokens."""
    return soft_attention(tokens(q), tokens(q), tokens(v), landmarks=64, normalize=False)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" takes 32 crops a seed in place of 8."""
    every, count = seed_range(seed, seeds), 32 if budget == "full" else 8
    found: dict[str, list[list[float]]] = {"newton": [], "exact": [], "softmax": []}
    growth: dict[bool, list[float]] = {True: [], False: []}
    for i, s in enumerate(every):
        progress(i / (seeds + 1), f"seed {s}")
        q, v = crops(s, count)
        rows = [errors(q, v, jnp.float32(x)) for x in SHARPNESS]
        for name, lists in found.items():
            lists.append([float(row[name]) for row in rows])
        for normalize, ratios in growth.items():
            small, large = (largest_eigenvalue(s, count, n, normalize) for n in (16, 32))
            ratios.append(float(np.mean(large / small)))
    progress(seeds / (seeds + 1), "cost")
    costs = {
        name: [cost(function, side) for side in (32, 64)]
        for name, function in (("method", landmarks_fixed), ("full", full_kernel))
    }
    progress(1.0, "done")
    return _result(budget, every, found, growth, costs)


def _result(
    budget: Budget,
    seeds: tuple[int, ...],
    found: dict[str, list[list[float]]],
    growth: dict[bool, list[float]],
    costs: dict[str, list[tuple[float, float]]],
) -> Result:
    def at(name: str, sharpness: float) -> tuple[float, ...]:
        return tuple(row[SHARPNESS.index(sharpness)] for row in found[name])

    operations = {name: rows[1][0] / rows[0][0] for name, rows in costs.items()}
    seconds = {name: rows[1][1] / rows[0][1] for name, rows in costs.items()}
    measures = (
        Measure(
            name="relative error at twice the queries",
            method=at("newton", 2.0),
            baseline=at("softmax", 2.0),
            accept="method <= 0.05 and <= half of the baseline on every seed",
            holds=all(a <= min(0.05, b / 2) for a, b in zip(at("newton", 2.0), at("softmax", 2.0))),
            better="lower",
        ),
        Measure(
            name="relative error at unit queries",
            method=at("newton", 1.0),
            baseline=at("softmax", 1.0),
            accept="method <= 0.03 on every seed",
            holds=max(at("newton", 1.0)) <= 0.03,
            better="lower",
        ),
        Measure(
            name="relative error at unit queries, exact inverse",
            method=at("exact", 1.0),
            accept="method <= 0.02 on every seed",
            holds=max(at("exact", 1.0)) <= 0.02,
            better="lower",
        ),
        Measure(
            name="operations at 4096 tokens over 1024 (SOFT, full kernel)",
            method=(operations["method"],),
            baseline=(operations["full"],),
            accept="method <= 4.4 and the full kernel >= 14",
            holds=operations["method"] <= 4.4 and operations["full"] >= 14,
            better="lower",
        ),
        Measure(
            name="largest eigenvalue at 1024 tokens over 256 (SOFT++, SOFT)",
            method=tuple(growth[True]),
            baseline=tuple(growth[False]),
            accept="SOFT++ <= 1.5 and SOFT >= 3 on every seed",
            holds=max(growth[True]) <= 1.5 and min(growth[False]) >= 3,
            better="lower",
        ),
    )
    lines = {"newton": "SOFT", "softmax": "Nystromformer"}
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="How far low-rank attention is from the full one, 64 landmarks for 1024 tokens",
            x_label="size of the queries",
            y_label="relative error",
            lines=tuple(
                Line(label, SHARPNESS, tuple(tuple(row) for row in found[name]))
                for name, label in lines.items()
            ),
            x_log=True,
            y_log=True,
        ),
        notes=(
            f"Time at 4096 tokens over 1024 on this machine: {seconds['method']:.1f} with SOFT, "
            f"{seconds['full']:.1f} with the full kernel."
        ),
    )
