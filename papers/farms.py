"""Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias.

The problem. How heavy the tail of a layer's spectrum is says how well the layer is trained, and
sets its learning rate or how much of it is pruned. But the tail of noise depends on the matrix's
aspect ratio: a layer of 8:1 looks untrained beside a square one, whatever it holds.

The idea. Estimate the exponent from the pooled spectra of many submatrices of one aspect ratio.

    eig(W_s W_s') of windows W_s of m x Q m,   alpha = 1 + k / sum_{i <= k} ln(l_i / l_k)

What the authors measured. Better layer-wise learning rates of ResNets and VGGs than with whole
matrices, and a perplexity 17.3% lower of LLaMA-7B pruned by the exponents.

What is measured here. (1) Matrices 128 r x 128 of Gaussian and of Student's t entries with three
degrees of freedom, r from 1 to 8: the range of the exponent over r, of windows of 64 on a grid of 5
x 5 and of whole matrices; and whether every t matrix has a heavier tail than every Gaussian one.
(2) Perceptrons on 1,200 of scikit-learn's digits, 3,000 steps of Adam, whose hidden layers are
pruned by magnitude to 70%, with shares by the exponents as in AlphaPruning: windows of 32 against
whole matrices, for 64-128-128-128-128-10 and for 64-256-64-64-256-10.

What was seen. (1) holds widely. In (2) it depends on the network. Where widths are equal, whole
matrices take the first layer, the one that is not square, for untrained, and prune it away;
windows do not. Where they are not, that same bias spares the small layers and prunes the large
ones, which can be spared, and windows lose. Neither is better than one share for all layers at 70%
and more in most of what was tried (Adam, AdamW with decay 0.3, SGD with momentum): the exponents
of such small layers differ by a tenth or two, which the rule stretches to shares of 0.8 to 1.2.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from papyrax.curvature import farms_eigenvalues, hill_exponent
from papyrax.optim import layerwise_sparsity
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
from papyrax.papers.toys import Layers, digits_split, fit, mlp, mlp_init

PAPER = Paper(
    slug="farms",
    title="Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias",
    authors="Y. Hu, K. Goel, V. Killiakov, Y. Yang",
    year=2025,
    arxiv="2506.06280",
    area="linear_algebra",
    idea=(
        "Heavy-tail exponents of weight matrices from pooled spectra of submatrices of one aspect "
        "ratio, which do not depend on the shape of the layer."
    ),
    formula=(
        "eig(W_s W_s') of windows W_s of m x Q m, all together\n"
        "alpha = 1 + k / sum_{i <= k} ln(l_i / l_k) over the largest half"
    ),
    parts=(
        "papyrax.curvature.farms_eigenvalues",
        "papyrax.curvature.hill_exponent",
        "papyrax.curvature.power_law_fit",
        "papyrax.optim.layerwise_sparsity",
        "papyrax.optim.layerwise_scales",
    ),
    claim=Claim(
        text=(
            "Submatrices of one shape take the aspect ratio out of the exponent, and layers pruned "
            "by it lose less."
        ),
        setup=(
            "Random matrices 128 r x 128, r = 1 to 8, windows of 64; two perceptrons on digits "
            "whose hidden layers are pruned to 70% by magnitude with shares by the exponents."
        ),
        accept=(
            "On every seed and for both distributions the range of the exponent over shapes is "
            "<= 0.15, while that of whole matrices is >= 1, and every t(3) matrix has a smaller "
            "one than every Gaussian; mean accuracy of each pruned network at least 0.05 above "
            "that of shares by whole matrices."
        ),
        method="FARMS",
        baseline="whole matrices",
    ),
    venue="ICML 2025",
    code="HUST-AI-HYZ/FARMS",
)

RATIOS = (1.0, 1.5, 2.0, 4.0, 8.0)
NETWORKS = {
    "64-128-128-128-128-10": (64, 128, 128, 128, 128, 10),
    "64-256-64-64-256-10": (64, 256, 64, 64, 256, 10),
}


@functools.partial(jax.jit, static_argnames=("size",))
def exponents(weights: Float[Array, "rows columns"], *, size: int) -> Float[Array, "2"]:
    """By windows of this size, and of the whole matrix."""
    windows = farms_eigenvalues(weights, size=size, windows=5)
    whole = jnp.square(jnp.linalg.svd(weights, compute_uv=False))
    return jnp.stack([hill_exponent(windows), hill_exponent(whole)])


def random_exponents(seed: int) -> np.ndarray:
    """[distribution, ratio, 2] of Gaussian and of t matrices."""
    rows = []
    for heavy in (False, True):
        rng = np.random.default_rng([seed, heavy])
        shapes = [(round(128 * r), 128) for r in RATIOS]
        matrices = [rng.standard_t(3, size=s) if heavy else rng.normal(size=s) for s in shapes]
        rows.append([exponents(jnp.asarray(w, jnp.float32), size=64) for w in matrices])
    return np.asarray(rows)


@functools.partial(jax.jit, static_argnames=("sizes", "steps"))
def train(
    x: Float[Array, "n 64"], y: Int[Array, " n"], key: Array, *, sizes: tuple[int, ...], steps: int
) -> Layers:
    """A perceptron by Adam."""
    start, run = jax.random.split(key)

    def loss(params: Layers, index: Array, _: Array) -> Array:
        z = mlp(params, x[index])
        return optax.softmax_cross_entropy_with_integer_labels(z, y[index]).mean()

    params = mlp_init(start, sizes)
    return fit(loss, params, run, examples=len(x), batch=64, steps=steps, learning_rate=3e-3)


def prune(params: Layers, shares: np.ndarray) -> Layers:
    """Without the smallest weights of each layer but the last, these shares of them."""
    layers = []
    for layer, share in zip(params[:-1], shares, strict=True):
        size = np.abs(layer["w"])
        limit = np.quantile(size, share)
        layers.append({**layer, "w": jnp.where(size > limit, layer["w"], 0)})
    return (*layers, params[-1])


def pruned_accuracy(seed: int, sizes: tuple[int, ...]) -> tuple[float, ...]:
    """With shares by windows, by whole matrices, and with one share for all layers."""
    x, y, test_x, test_y = digits_split(seed, 1200)
    params = train(x, y, jax.random.key(seed), sizes=sizes, steps=3000)
    weights = [layer["w"] for layer in params[:-1]]
    alphas = np.stack([exponents(w, size=32) for w in weights], 1)
    counts = [w.size for w in weights]
    shares = [np.asarray(layerwise_sparsity(jnp.asarray(a), counts, 0.7)) for a in alphas]
    networks = [prune(params, s) for s in (*shares, np.full(len(counts), 0.7))]
    logits = [np.asarray(mlp(network, jnp.asarray(test_x))) for network in networks]
    return tuple(float((np.argmax(z, 1) == test_y).mean()) for z in logits)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "quick" and "full" do the same."""
    all_seeds = seed_range(seed, seeds)
    alphas: list[np.ndarray] = []
    accuracy: dict[str, list[tuple[float, ...]]] = {name: [] for name in NETWORKS}
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}")
        alphas.append(random_exponents(s))
        for name, sizes in NETWORKS.items():
            accuracy[name].append(pruned_accuracy(s, sizes))
    progress(1.0, "done")

    measures = []
    table = np.stack(alphas)  # [seed, distribution, ratio, method]
    ranges = np.ptp(table, axis=2)
    for j, name in enumerate(("Gaussian", "t(3)")):
        ours, whole = (tuple(ranges[:, j, m].tolist()) for m in (0, 1))
        measures.append(
            Measure(
                name=f"range of the exponent over aspect ratios, {name}",
                method=ours,
                baseline=whole,
                accept="<= 0.15 on every seed, the baseline >= 1",
                holds=max(ours) <= 0.15 and min(whole) >= 1,
                better="lower",
            )
        )
    gaps = table[:, 0].min(1) - table[:, 1].max(1)
    measures.append(
        Measure(
            name="least Gaussian exponent less the largest of t(3)",
            method=tuple(gaps[:, 0].tolist()),
            baseline=tuple(gaps[:, 1].tolist()),
            accept="> 0 on every seed",
            holds=bool(gaps[:, 0].min() > 0),
        )
    )
    for name, rows in accuracy.items():
        ours, whole = (tuple(row[m] for row in rows) for m in (0, 1))
        measures.append(
            Measure(
                name=f"test accuracy pruned to 70%, MLP {name}",
                method=ours,
                baseline=whole,
                accept="mean at least 0.05 above the baseline's",
                holds=float(np.mean(ours) - np.mean(whole)) >= 0.05,
            )
        )
    figure = Figure(
        title="Exponents of random matrices",
        x_label="aspect ratio",
        y_label="exponent",
        lines=tuple(
            Line(f"{kind}, {method}", RATIOS, tuple(map(tuple, table[:, j, :, m].tolist())))
            for j, kind in enumerate(("Gaussian", "t(3)"))
            for m, method in enumerate(("FARMS", "whole matrices"))
        ),
        x_log=True,
    )
    return Result(PAPER.slug, budget, all_seeds, tuple(measures), figure)
