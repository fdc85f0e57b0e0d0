"""Grokking at the Edge of Numerical Stability.

The problem. A network on an algorithmic task memorises its training set in a few dozen steps and
generalises, if at all, thousands of steps later ("grokking"), as a rule only with weight decay. Why
so late, and why not without regularization?

The idea. Once all training examples are right, the quickest way to lower cross-entropy is to grow
the weights along themselves, which scales the logits and changes no prediction: naive loss
minimization. The gradients align with that direction, and generalization waits. In the end the
logits are so far apart that in floating point `sum_j exp(z_j)` equals `exp(z_y)`: the loss is
exactly zero, its gradient vanishes (softmax collapse), and learning stops altogether. Two remedies:

- StableMax replaces the exponential by `s(x) = x + 1` for `x >= 0` and `1 / (1 - x)` below, which
  keeps the ratio of classes within floating point however large the logits become.
- perpGrad removes from each gradient tensor its component along the weights,
  `g_perp = g - (<w, g> / <w, w>) w`, before the optimizer sees it. The authors' code then brings
  `g_perp` back to the norm of `g`; that is the default here (`rescale=False` is the formula alone).

What the authors measured. On addition modulo 113 an MLP without weight decay does not generalise
with softmax in float32; with StableMax it does after tens of thousands of epochs, and with
perp-AdamW almost at once. Likewise for other operations, sparse parity, and a transformer.

What is measured here. The authors' task and network (one-hot pairs, two hidden layers of 200 ReLU
units without bias, 40% of all pairs for training, full batch, learning rate 0.01, no weight decay,
float32), 300 epochs, AdamW with and without perpGrad: test accuracy; the share of training examples
whose softmax has collapsed in bfloat16; how far the gradient points along the weights; and, with
the weights of the memorised network scaled up by 30 along the naive direction, the share of
examples whose gradient is exactly zero in float32 under softmax and under StableMax cross-entropy.

What is not measured in the quick budget. Grokking with StableMax alone takes about 80,000 epochs
in the paper's Figure 1; 4,000 epochs with moduli 31 and 47 show no trace of it. The full budget
trains it that long. Softmax in float32 has not collapsed after 300 epochs; that is why the collapse
is counted in bfloat16.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from papyrax.losses import stablemax_cross_entropy
from papyrax.metrics import nlm_alignment, softmax_collapse
from papyrax.optim import perpgrad, scale_by_perpgrad
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
    slug="stablemax_perpgrad",
    title="Grokking at the Edge of Numerical Stability",
    authors="L. Prieto, M. Barsbey, P. A. M. Mediano, T. Birdal",
    year=2025,
    arxiv="2501.04697",
    area="classification_loss",
    idea=(
        "Delayed generalization comes from growing the weights along themselves, which ends in a "
        "softmax that is exactly one in floating point. A slower softmax keeps the gradient alive; "
        "projecting the gradient off the weights generalises at once."
    ),
    formula=(
        "s(x) = x + 1 for x >= 0, 1 / (1 - x) for x < 0;  p_i = s(x_i) / sum_j s(x_j)\n"
        "g_perp = g - (<w, g> / <w, w>) w"
    ),
    parts=(
        "papyrax.losses.stablemax",
        "papyrax.losses.log_stablemax",
        "papyrax.losses.stablemax_cross_entropy",
        "papyrax.losses.stablemax_cross_entropy_with_targets",
        "papyrax.optim.scale_by_perpgrad",
        "papyrax.optim.perpgrad",
        "papyrax.metrics.softmax_collapse",
        "papyrax.metrics.nlm_alignment",
    ),
    claim=Claim(
        text=(
            "Without any regularization AdamW memorises modular addition and does not generalise; "
            "with the gradient projected off the weights it generalises almost immediately. "
            "StableMax cross-entropy keeps a gradient where that of softmax is exactly zero."
        ),
        setup=(
            "Addition modulo 113, one-hot pairs, 40% for training, MLP 200-200 without bias, full "
            "batch, learning rate 0.01, betas 0.9 and 0.99, 300 epochs, float32, no weight decay."
        ),
        accept=(
            "Test accuracy at epoch 300 on every seed: perpGrad >= 0.95, AdamW <= 0.2. Collapsed "
            "in bfloat16: perpGrad <= 0.05, AdamW >= 0.95. Cosine of step and weights: below 1e-4 "
            "projected, above 0.5 as it is. Zero gradients with logits times 30: StableMax none, "
            "softmax >= 0.99."
        ),
        method="AdamW with perpGrad",
        baseline="AdamW",
    ),
    venue="ICLR 2025",
    code="LucasPrietoAl/grokking-at-the-edge-of-numerical-stability",
)

Loss = Callable[[Float[Array, "batch classes"], Int[Array, "batch"]], Float[Array, "batch"]]
Weights = list[Float[Array, "inputs outputs"]]

MODULUS = 113
EVERY = 10
SCALE = 30.0


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, "batch"]
) -> Float[Array, "batch"]:
    """Cross-entropy as the paper has it: the label's entry of the log-softmax."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]


def make_data(seed: int, modulus: int = MODULUS) -> tuple[Array, ...]:
    """All pairs of numbers and their sums, split 40 to 60: `pairs, sums, test pairs, test sums`."""
    pairs = np.stack(np.divmod(np.arange(modulus**2), modulus), axis=-1)
    order = np.random.default_rng(seed).permutation(len(pairs))
    train, test = np.split(order, [int(0.4 * len(pairs))])
    sums = pairs.sum(-1) % modulus
    return tuple(map(jnp.asarray, (pairs[train], sums[train], pairs[test], sums[test])))


def init(key: Array, modulus: int = MODULUS, width: int = 200) -> Weights:
    """Three matrices, uniform within one over the root of the number of inputs."""
    shapes = [(2 * modulus, width), (width, width), (width, modulus)]
    return [
        jax.random.uniform(k, shape, minval=-1, maxval=1) / np.sqrt(shape[0])
        for k, shape in zip(jax.random.split(key, 3), shapes)
    ]


def network(weights: Weights, pairs: Int[Array, "batch 2"]) -> Float[Array, "batch classes"]:
    """The logits of an MLP without biases on two one-hot vectors, homogeneous in its weights."""
    # A one-hot vector times a matrix is a row of it.
    modulus = weights[0].shape[0] // 2
    first, second = weights[0][pairs[:, 0]], weights[0][modulus + pairs[:, 1]]
    hidden = jax.nn.relu(jax.nn.relu(first + second) @ weights[1])
    return hidden @ weights[2]


@functools.partial(jax.jit, static_argnames=("tx", "loss", "epochs"))
def train(
    weights: Weights,
    data: tuple[Array, ...],
    *,
    tx: optax.GradientTransformation,
    loss: Loss,
    epochs: int,
) -> tuple[Weights, dict[str, Float[Array, "points"]]]:
    """Full-batch training in one compiled loop, measured every ten epochs."""
    x, y, x_test, y_test = data

    def step(carry: Any, _: None) -> tuple[Any, None]:
        weights, state = carry
        grads = jax.grad(lambda w: loss(network(w, x), y).mean())(weights)
        updates, state = tx.update(grads, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    def block(carry: Any, _: None) -> tuple[Any, dict[str, Array]]:
        carry, _ = jax.lax.scan(step, carry, None, length=EVERY)
        logits, test = network(carry[0], x), network(carry[0], x_test)
        return carry, {
            "train": jnp.mean(logits.argmax(-1) == y),
            "test": jnp.mean(test.argmax(-1) == y_test),
            "collapse": softmax_collapse(logits, y, dtype=jnp.bfloat16),
        }

    start = (weights, tx.init(weights))
    (weights, _), trace = jax.lax.scan(block, start, None, length=epochs // EVERY)
    return weights, trace


@functools.partial(jax.jit, static_argnames=("loss",))
def vanished(
    logits: Float[Array, "batch classes"], labels: Int[Array, "batch"], *, loss: Loss
) -> Float[Array, ""]:
    """Share of the examples that send back an exactly zero gradient."""
    # The logits are an argument: computed in here, a compiler may round them anew at each use, and
    # the largest would no longer equal itself.
    grads = jax.grad(lambda z: loss(z, labels).sum())(logits)
    return jnp.mean(jnp.all(grads == 0, axis=-1))


@jax.jit
def alignment(weights: Weights, data: tuple[Array, ...]) -> tuple[Array, Array]:
    """Cosine of step and weights, as the gradient is and projected, largest over the tensors."""
    x, y, *_ = data
    grads = jax.grad(lambda w: softmax_cross_entropy(network(w, x), y).mean())(weights)
    projected, _ = scale_by_perpgrad().update(grads, optax.EmptyState(), weights)
    raw, off = (jnp.stack(nlm_alignment(weights, g)) for g in (grads, projected))
    return raw.mean(), jnp.abs(off).max()


def optimizers() -> dict[str, optax.GradientTransformation]:
    """The method and the baseline, with the moments of the authors' runs."""
    return {
        "method": perpgrad(0.01, 0.9, 0.99, 1e-25),
        "baseline": optax.adamw(0.01, 0.9, 0.99, 1e-25, weight_decay=0.0),
    }


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" adds 80,000 epochs of StableMax cross-entropy."""
    epochs, all_seeds = 300, seed_range(seed, seeds)
    runs = list(optimizers().items())
    traces: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name, _ in runs}
    raw, projected, gone, kept = [], [], [], []
    grokked: dict[str, list[float]] = {"stablemax": [], "softmax": []}

    for i, s in enumerate(all_seeds):
        data, start = make_data(s), init(jax.random.key(s))
        for j, (name, tx) in enumerate(runs):
            progress((i + j / 2) / seeds, f"seed {s}: {getattr(PAPER.claim, name)}")
            weights, trace = train(start, data, tx=tx, loss=softmax_cross_entropy, epochs=epochs)
            traces[name].append({k: np.asarray(v, float) for k, v in trace.items()})
        # The last weights are the baseline's: memorised and not generalised.
        cosine, off = alignment(weights, data)
        raw.append(float(cosine))
        projected.append(float(off))
        scaled = SCALE * network(weights, data[0])
        gone.append(float(vanished(scaled, data[1], loss=softmax_cross_entropy)))
        kept.append(float(vanished(scaled, data[1], loss=stablemax_cross_entropy)))
        if budget == "full":
            tx = optax.adamw(0.01, 0.9, 0.999, 1e-25, weight_decay=0.0)
            for name, loss in (
                ("stablemax", stablemax_cross_entropy),
                ("softmax", softmax_cross_entropy),
            ):
                progress((i + 0.9) / seeds, f"seed {s}: 80,000 epochs of {name}")
                _, trace = train(start, data, tx=tx, loss=loss, epochs=80_000)
                grokked[name].append(float(trace["test"][-1]))
    progress(1.0, "done")

    def last(name: str, what: str) -> tuple[float, ...]:
        return tuple(float(trace[what][-1]) for trace in traces[name])

    test, plain_test = last("method", "test"), last("baseline", "test")
    collapse, plain_collapse = last("method", "collapse"), last("baseline", "collapse")
    measures = [
        Measure(
            name="test accuracy at epoch 300",
            method=test,
            baseline=plain_test,
            accept="perpGrad >= 0.95 and AdamW <= 0.2 on every seed",
            holds=min(test) >= 0.95 and max(plain_test) <= 0.2,
        ),
        Measure(
            name="training examples collapsed in bfloat16 at epoch 300",
            method=collapse,
            baseline=plain_collapse,
            accept="perpGrad <= 0.05 and AdamW >= 0.95 on every seed",
            holds=max(collapse) <= 0.05 and min(plain_collapse) >= 0.95,
            better="lower",
        ),
        Measure(
            name="cosine of step and weights on the memorised network",
            method=tuple(projected),
            baseline=tuple(raw),
            accept="projected below 1e-4, as it is above 0.5, on every seed",
            holds=max(projected) < 1e-4 and min(raw) > 0.5,
            better="lower",
        ),
        Measure(
            name="exactly zero gradients with logits times 30 (StableMax, softmax)",
            method=tuple(kept),
            baseline=tuple(gone),
            accept="StableMax none and softmax >= 0.99 on every seed",
            holds=max(kept) == 0 and min(gone) >= 0.99,
            better="lower",
        ),
    ]
    if budget == "full":
        measures.append(
            Measure(
                name="test accuracy after 80,000 epochs (StableMax, softmax)",
                method=tuple(grokked["stablemax"]),
                baseline=tuple(grokked["softmax"]),
                accept="StableMax >= 0.95 and softmax <= 0.2 on every seed",
                holds=min(grokked["stablemax"]) >= 0.95 and max(grokked["softmax"]) <= 0.2,
            )
        )
    x = tuple(range(EVERY, epochs + 1, EVERY))
    figure = Figure(
        title="Addition modulo 113 without weight decay",
        x_label="epoch",
        y_label="test accuracy",
        lines=tuple(
            Line(
                getattr(PAPER.claim, name),
                x,
                tuple(tuple(trace["test"].tolist()) for trace in traces[name]),
            )
            for name, _ in runs
        ),
    )
    memorised = min(last("baseline", "train"))
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=all_seeds,
        measures=tuple(measures),
        figure=figure,
        notes=f"AdamW alone fits at least {memorised:.1%} of the training pairs on every seed.",
    )
