"""Not All Semantics are Created Equal: automatic temperatures for contrastive learning.

The problem. A contrastive loss has one temperature for all examples. An example of a frequent
semantics has many near neighbours among its negatives, which a small temperature pushes away; one
of a rare semantics has few, and is better served by a small temperature that tells it apart.

The idea. The temperature of an anchor is the dual variable of a worst-case weighting of its
negatives within a Kullback-Leibler distance `rho` of the uniform one, so it is learned:
`min_t t log mean_j exp(h_ij / t) + t rho`, convex in `t`. A moving average for each example makes
small batches suffice.

What the authors measured. Larger temperatures on images of frequent semantics, and better features
than SimCLR and CLIP, the more so on imbalanced data.

What is measured here. Embeddings of 16 clusters of very unequal sizes on a sphere of 32 dimensions.
Temperatures that solve the convex problem exactly for 200 anchors: those of frequent clusters
against those of rare ones, and the rank correlation with the cluster's size. The baseline is the
same with all clusters of one size, where no such difference may show. Then the stochastic
algorithm from batches of 256 must find the exact temperatures of its own objective (similarities of
both views, without the positive's).

What was not repeated: training of large encoders. The effect turns round for a `rho` above minus
the logarithm of a class's share, about 2 here: there the worst case is within the class alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import (
    IsogclrState,
    isogclr_init,
    isogclr_loss,
    robust_global_contrastive_loss,
)
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
    slug="isogclr",
    title=(
        "Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic "
        "Temperature Individualization"
    ),
    authors="Z.-H. Qiu, Q. Hu, Z. Yuan, D. Zhou, L. Zhang, T. Yang",
    year=2023,
    arxiv="2305.11965",
    area="contrastive_loss",
    idea=(
        "The temperature of each anchor is the dual variable of a robust weighting of its "
        "negatives and is learned with the encoder, from small batches, by moving averages."
    ),
    formula="min_t  t log mean_j exp((s_ij - s_i+) / t) + t rho,  t in [t_min, t_max]",
    parts=(
        "papyrax.losses.robust_global_contrastive_loss",
        "papyrax.losses.isogclr_init",
        "papyrax.losses.isogclr_loss",
        "papyrax.losses.isogclr_two_tower_loss",
    ),
    claim=Claim(
        text="Examples of frequent semantics get large temperatures, those of rare ones small.",
        setup=(
            "Clusters of 4 x 300, 4 x 100 and 8 x 20 examples in 32 dimensions with noise 0.1, two "
            "views; the temperature of 200 anchors in [0.05, 1] for rho = 0.3, exactly, and by "
            "iSogCLR from batches of 256."
        ),
        accept=(
            "Mean over seeds: temperature of the 300s at least 1.3 times that of the 20s and rank "
            "correlation with size at least 0.4, with balanced clusters between 0.9 and 1.1; "
            "correlation of iSogCLR's temperatures with exact ones at least 0.9 on every seed."
        ),
        method="unequal clusters",
        baseline="equal clusters",
    ),
    venue="ICML 2023",
    code="zhqiu/contrastive-learning-iSogCLR",
)

SIZES = (300,) * 4 + (100,) * 4 + (20,) * 8
RHO = 0.3
LOW, HIGH = 0.05, 1.0


def embed(seed: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two views of every example, unit vectors [examples, 32], and its cluster."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 32))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    views = centres[clusters] + 0.1 * rng.normal(size=(2, len(clusters), 32))
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    return views[0].astype(np.float32), views[1].astype(np.float32), clusters


@jax.jit
def solve(differences: Float[Array, "anchors negatives"]) -> Float[Array, "anchors"]:
    """The temperature of least loss: bisection on the slope, which increases with it."""
    slope = jax.grad(lambda t: jnp.sum(robust_global_contrastive_loss(differences, t, rho=RHO)))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        rising = slope(middle) > 0
        return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

    ones = jnp.ones(len(differences))
    low, high = jax.lax.fori_loop(0, 25, halve, (LOW * ones, HIGH * ones))
    return (low + high) / 2


def exact(x: np.ndarray, y: np.ndarray, anchors: np.ndarray, raw: bool = False) -> np.ndarray:
    """Temperatures of the anchors with every other example, by the other view, as a negative.

    With `raw` those of iSogCLR's objective: both views of the others as negatives, and
    similarities rather than differences from the positive's. A constant moves no temperature, so
    only the negatives differ.
    """
    n = len(x)
    near = np.sum(x[anchors] * y[anchors], -1, keepdims=True)

    def rows(own: np.ndarray, *others: np.ndarray) -> np.ndarray:
        s = np.concatenate([own[anchors] @ o.T for o in others], 1) - near
        other = np.arange(s.shape[1]) % n != anchors[:, None]
        return s[other].reshape(len(anchors), -1)

    if raw:
        return np.asarray(solve(np.concatenate([rows(x, x, y), rows(y, x, y)], 1)), float)
    return np.asarray(solve(rows(x, y)), float)


@functools.partial(jax.jit, static_argnames=("epochs", "batch"))
def learn(x: Array, y: Array, key: Array, epochs: int, batch: int) -> Float[Array, "examples"]:
    """The temperatures that iSogCLR arrives at for fixed embeddings."""
    n = len(x)
    steps = n // batch

    def epoch(state: IsogclrState, key: Array) -> tuple:
        order = jax.random.permutation(key, n)[: steps * batch].reshape(steps, batch)

        def step(state: IsogclrState, index: Array) -> tuple:
            _, state = isogclr_loss(
                state,
                x[index],
                y[index],
                index,
                rho=RHO,
                averaging=0.1,
                temperature_range=(LOW, HIGH),
            )
            return state, None

        return jax.lax.scan(step, state, order)

    start = isogclr_init(n, temperature=0.5)
    return jax.lax.scan(epoch, start, jax.random.split(key, epochs))[0].temperature


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks, equal numbers by the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" runs the algorithm for 2,000 epochs rather than 500."""
    all_seeds = seed_range(seed, seeds)
    epochs = 500 if budget == "quick" else 2000
    equal = (sum(SIZES) // len(SIZES),) * len(SIZES)
    ratio: dict[str, list[float]] = {"unequal": [], "equal": []}
    by_size, found, lines = [], [], []
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}: exact temperatures")
        for name, sizes in (("unequal", SIZES), ("equal", equal)):
            x, y, clusters = embed(s, sizes)
            anchors = np.random.default_rng([s, 1]).choice(len(x), 200, replace=False)
            t = exact(x, y, anchors)
            many = np.isin(clusters[anchors], range(4))
            few = np.isin(clusters[anchors], range(8, 16))
            ratio[name].append(t[many].mean() / t[few].mean())
            if name == "unequal":
                by_size.append(correlation(np.array(SIZES)[clusters[anchors]], t))
                size = np.array(SIZES)[clusters[anchors]]
                lines.append(tuple(float(t[size == n].mean()) for n in (20, 100, 300)))
                progress((i + 0.3) / seeds, f"seed {s}: iSogCLR")
                learned = np.asarray(learn(x, y, jax.random.key(s), epochs, 256), float)
                found.append(correlation(learned[anchors], exact(x, y, anchors, raw=True)))
    progress(1.0, "done")
    means = {name: float(np.mean(values)) for name, values in ratio.items()}
    measures = (
        Measure(
            name="temperature of frequent over that of rare",
            method=tuple(ratio["unequal"]),
            baseline=tuple(ratio["equal"]),
            accept="mean >= 1.3; with equal clusters between 0.9 and 1.1",
            holds=means["unequal"] >= 1.3 and 0.9 <= means["equal"] <= 1.1,
        ),
        Measure(
            name="rank correlation of size and temperature",
            method=tuple(by_size),
            accept="mean >= 0.4",
            holds=float(np.mean(by_size)) >= 0.4,
        ),
        Measure(
            name="rank correlation of learned and exact temperatures",
            method=tuple(found),
            accept=">= 0.9 on every seed",
            holds=min(found) >= 0.9,
        ),
    )
    figure = Figure(
        title="Optimal temperature by size of the cluster",
        x_label="examples in the cluster",
        y_label="mean temperature",
        lines=(Line(PAPER.claim.method, (20, 100, 300), tuple(lines)),),
        x_log=True,
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
