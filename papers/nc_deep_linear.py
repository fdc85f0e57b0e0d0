"""Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data.

The problem. What do the last layers of a classifier converge to when training goes on, and what
when some classes are rare? Collapse to a simplex was shown for one layer and classes of equal size.

The idea. Leave the features `H` free, put linear layers on top and solve the regularized
least-squares problem

    f = |W_M ... W_1 H - Y|^2 / (2 N) + sum_l lw |W_l|^2 / 2 + lh |H|^2 / 2

exactly. Without biases the classes come apart: those with `n_k` examples are alone with their
direction, all factors' singular values balance, and what is left is a problem in one number a
class, the product `p_k` of its singular values and the share of the label that is learned,

    min_p  n_k (p - 1)^2 / (2 N) + (M + 1) / 2 (n_k lh lw^M)^(1 / (M + 1)) p^(2 / (M + 1)).

For one layer `p_k = max(0, 1 - N sqrt(lw lh / n_k))`, `|w_k|^2 = p_k sqrt(n_k lh / lw)` and
`|h_k|^2 = p_k sqrt(lw / (n_k lh))`: orthogonal vectors whose lengths follow the sizes of the
classes, and a class of no more than `N^2 lw lh` examples is given up. Classes of equal size give an
orthogonal frame through all layers.

What the authors measured. Measures of collapse of image classifiers that end in linear layers, and
with imbalanced classes their distance to the predicted geometry, which fall during training.

What is measured here. The problem itself, by Adam from random weights in float64: one layer with
classes of 40, 20, 10 and 5 examples against the formula, with regularization under which all are
learned and under which the smallest is given up; two and three layers with equal classes against
the optimal value and the orthogonal frame. With two layers and more, zero is always a local
minimum, which the random start is far enough from. All of it holds. The problem in `p` for more
than one layer was derived here, by the inequality of means over the singular values of the factors,
and its minimum is what training reaches.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.metrics import frame_distance, within_class_variability
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
    slug="nc_deep_linear",
    title="Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data",
    authors="H. Dang, T. Tran, S. Osher, H. Tran-The, N. Ho, T. Nguyen",
    year=2023,
    arxiv="2301.00437",
    area="theory",
    idea=(
        "With free features under linear layers, least squares has a closed solution: orthogonal "
        "class vectors, as long as their class is large, and none for the smallest."
    ),
    formula=(
        "p_k = max(0, 1 - N sqrt(lw lh / n_k))\n"
        "|w_k|^2 = p_k sqrt(n_k lh / lw),  |h_k|^2 = p_k sqrt(lw / (n_k lh))"
    ),
    parts=("papyrax.metrics.frame_distance", "papyrax.metrics.within_class_variability"),
    claim=Claim(
        text=(
            "Features and classifiers of imbalanced classes converge to orthogonal vectors whose "
            "lengths follow from the sizes of the classes, small classes to zero; of balanced "
            "classes to an orthogonal frame, through all linear layers."
        ),
        setup=(
            "4 classes in 12 dimensions, Adam with a cosine schedule from 0.01, 20,000 steps in "
            "float64. One layer, 40, 20, 10 and 5 examples, lw = lh = 0.001 and 0.04; two and "
            "three layers, 5 examples a class, lw = lh = 0.005."
        ),
        accept=(
            "On every seed: squared lengths of w_k and h_k within 1e-4 of the formula (of the "
            "largest one), cosines of two classes below 1e-6, relative scatter within classes "
            "below 1e-6; values of the objective within 1e-6 of theory for all depths, and the "
            "product of the layers within 1e-4 of an orthogonal frame."
        ),
        method="trained",
        baseline="theory",
    ),
    venue="ICML 2023",
)

DIM = 12
STEPS = 20_000
IMBALANCED = (40, 20, 10, 5)
BALANCED = (5, 5, 5, 5)

Layers = tuple[Array, ...]


def labels_of(counts: tuple[int, ...]) -> np.ndarray:
    """The class of each example."""
    return np.repeat(np.arange(len(counts)), counts)


def objective(
    weights: Layers, h: Float[Array, "dim examples"], counts: tuple[int, ...], decay: float
) -> Float[Array, ""]:
    """f, with layers from the first to the last and `lw = lh = decay`."""
    out = functools.reduce(lambda x, w: w @ x, weights, h)
    target = jnp.asarray(np.eye(len(counts))[:, labels_of(counts)], h.dtype)
    squares = sum(jnp.sum(a**2) for a in (*weights, h))
    return jnp.sum((out - target) ** 2) / (2 * h.shape[1]) + decay * squares / 2


def optimum(counts: tuple[int, ...], decay: float, layers: int = 1) -> tuple[np.ndarray, float]:
    """Theory: the share `p` of each class's label that is learned, and the value of f."""
    total, m, shares, value = sum(counts), layers, [], 0.0
    for n in counts:
        price = (m + 1) / 2 * (n * decay ** (m + 1)) ** (1 / (m + 1))

        def cost(p: float, n: int = n, price: float = price) -> float:
            return n * (p - 1) ** 2 / (2 * total) + price * p ** (2 / (m + 1))

        # Where the slope is zero beyond the inflection, by bisection, or nothing is learned.
        def slope(p: float, n: int = n, price: float = price) -> float:
            return n * (p - 1) / total + price * 2 / (m + 1) * p ** (2 / (m + 1) - 1)

        curve = price * 2 / (m + 1) * (1 - 2 / (m + 1))
        low = (curve * total / n) ** ((m + 1) / 2 / m) if m > 1 else 0.0
        high = 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        share = high if cost(high) < cost(0.0) and high > 1e-12 else 0.0
        shares.append(share)
        value += cost(share)
    return np.array(shares), value


@functools.partial(jax.jit, static_argnames=("counts", "decay", "layers", "steps"))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None))
def train(
    key: Array, counts: tuple[int, ...], decay: float, layers: int, steps: int
) -> tuple[tuple[Layers, Array], Array]:
    """The parameters at the end, and f at the start of each of 20 parts of the training."""
    keys = jax.random.split(key, layers + 1)
    shapes = [(DIM, DIM)] * (layers - 1) + [(len(counts), DIM)]
    weights = tuple(
        jax.random.normal(k, s, float) / math.sqrt(DIM) for k, s in zip(keys[1:], shapes)
    )
    start = (weights, jax.random.normal(keys[0], (DIM, sum(counts)), float) / math.sqrt(DIM))
    tx = optax.adam(optax.cosine_decay_schedule(0.01, steps))

    def f(params: tuple[Layers, Array]) -> Array:
        return objective(*params, counts, decay)

    def step(_: int, carry: tuple) -> tuple:
        params, state = carry
        updates, state = tx.update(jax.grad(f)(params), state)
        return optax.apply_updates(params, updates), state

    def part(carry: tuple, _: None) -> tuple[tuple, Array]:
        return jax.lax.fori_loop(0, steps // 20, step, carry), f(carry[0])

    carry, trace = jax.lax.scan(part, (start, tx.init(start)), None, length=20)
    return carry[0], trace


def one_layer(
    weights: Layers, features: Array, decay: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each seed: error of the squared lengths, length of classes given up, cosine, scatter."""
    counts = np.array(IMBALANCED)
    share, _ = optimum(IMBALANCED, decay)
    labels = labels_of(IMBALANCED)
    w, h = np.asarray(weights[0]), np.swapaxes(np.asarray(features), 1, 2)
    means = np.stack([h[:, labels == k].mean(1) for k in range(4)], 1)
    errors, kept = [], share > 0
    for vectors, want in (
        (w, share * np.sqrt(counts)),
        (means, share / np.sqrt(counts)),
    ):
        errors.append(np.abs((vectors**2).sum(-1) - want).max(-1) / want.max())
    unit = w[:, kept] / np.linalg.norm(w[:, kept], axis=-1, keepdims=True)
    cosines = np.abs(unit @ np.swapaxes(unit, 1, 2) - np.eye(kept.sum())).max((1, 2))
    there = np.isin(labels, np.flatnonzero(kept))
    scatter = [
        float(within_class_variability(rows[there], jnp.asarray(labels[there]), classes=4))
        for rows in h
    ]
    lost = np.sqrt((w[:, ~kept] ** 2).sum(-1).max(-1, initial=0.0))
    return np.max(errors, 0), lost, cosines, np.array(scatter)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains three times as long."""
    steps = STEPS if budget == "quick" else 3 * STEPS
    all_seeds = seed_range(seed, seeds)
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])
    measures, lines = [], []

    def measure(name: str, values: np.ndarray, limit: float) -> None:
        accept = f"below {limit:g} on every seed"
        holds = bool(np.all(values < limit))
        measures.append(Measure(name, tuple(values), accept, holds, better="lower"))

    runs = (
        (IMBALANCED, 0.001, 1),
        (IMBALANCED, 0.04, 1),
        (BALANCED, 0.005, 2),
        (BALANCED, 0.005, 3),
    )
    with jax.enable_x64(True):
        for i, (counts, decay, layers) in enumerate(runs):
            what = f"{layers} layer{'s' * (layers > 1)}, decay {decay:g}"
            progress(i / len(runs), what)
            (weights, h), trace = train(keys, counts, decay, layers, steps)
            _, best = optimum(counts, decay, layers)
            f = jax.vmap(lambda w, h, c=counts, d=decay: objective(w, h, c, d))(weights, h)
            measure(f"excess of the objective, relative, {what}", np.abs(f / best - 1), 1e-6)
            gaps = np.maximum(np.asarray(trace) / best - 1, 1e-16)
            times = tuple(float(steps // 20 * j) for j in range(20))
            lines.append(Line(what, times, tuple(map(tuple, gaps))))
            if layers == 1:
                lengths, lost, cosines, scatter = one_layer(weights, h, decay)
                measure(f"error of squared lengths, {what}", lengths, 1e-4)
                measure(f"cosine of two classes, {what}", cosines, 1e-6)
                measure(f"relative scatter within classes, {what}", scatter, 1e-6)
                if decay == 0.04:
                    measure(f"length of classes given up, {what}", lost, 1e-6)
            else:
                product = jax.vmap(lambda ws: functools.reduce(lambda a, w: w @ a, ws))(weights)
                far = [float(frame_distance(m, kind="orthogonal")) for m in product]
                measure(f"distance to an orthogonal frame, {what}", np.array(far), 1e-4)
    progress(1.0, "done")
    figure = Figure(
        "Free features under linear layers",
        "steps of Adam",
        "excess of the objective, relative",
        tuple(lines),
        y_log=True,
    )
    return Result(PAPER.slug, budget, all_seeds, tuple(measures), figure)
