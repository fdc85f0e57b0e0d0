"""Label Distributionally Robust Losses: Consistency, Robustness and Adaptivity.

The problem. Cross-entropy is consistent but memorises wrong labels; symmetric losses resist uniform
label noise but underfit. One wants both, for every example as much of each as its label deserves.

The idea. Let an adversary weigh the classes, held back by a divergence from the uniform weighting:
`max_p sum_k p_k (f_k - f_y + c 1[k != y]) - t KL(p | 1/K)`, in closed form
`t log mean_k exp((f_k - f_y + c 1[k != y]) / t)`. The temperature leads from the hinge of Crammer
and Singer (0) over cross-entropy (1) to a symmetric, noise-robust loss (infinity). ALDR-KL
maximizes over a temperature for each training example as well, with a quadratic prior: confident
examples get a lower, contested ones a higher temperature.

What the authors measured. On seven data sets under six settings of noise ALDR-KL is consistently
competitive among 13 losses, and so it is on mini-WebVision.

What is measured here. The digits of scikit-learn, 1,000 for training with no or 60% uniform label
noise, a network with one hidden layer, the authors' recipe for tabular data (SGD with momentum 0.9,
weight decay 5e-3, 30 epochs, the learning rate divided by ten after 10 and 20), scores normalized
as in their code: clean test accuracy of ALDR-KL and cross-entropy, and the temperatures of the
examples with wrong and with right labels.

The gain scatters by two points from one split and noise to another (three single draws gave 3.0
points on the mean, eight others 4.7), so a seed's number is the mean over four draws. That was
decided after seeds 0 to 2 had been seen; the recorded result therefore has eight seeds, of which 3
to 7 were new to it, and on these alone the gain is 3.4 points.

What was tried, on other seeds. The prior temperature is chosen from 1, 3 and 10, as the authors
choose it from 0.1, 1 and 10, and it decides: with 1 the loss memorises more than cross-entropy
does. So it does in 100 epochs without decay of the learning rate, since normalized scores take the
sting out of weight decay; without normalization ALDR-KL gains one to two points there. A
learning rate of 0.06 and margins of 1 and 2 change little.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.losses import aldr_kl, aldr_kl_init
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
    slug="ldr_loss",
    title=(
        "Label Distributionally Robust Losses for Multi-class Classification: Consistency, "
        "Robustness and Adaptivity"
    ),
    authors="D. Zhu, Y. Ying, T. Yang",
    year=2023,
    arxiv="2112.14869",
    area="classification_loss",
    idea=(
        "The worst case over weightings of the classes joins the hinge, cross-entropy and "
        "symmetric losses; a temperature for each example adapts to the noise of its label."
    ),
    formula=(
        "max_p sum_k p_k (f_k - f_y + c 1[k != y]) - t KL(p | 1/K)\n"
        "= t log mean_k exp((f_k - f_y + c 1[k != y]) / t)"
    ),
    parts=(
        "papyrax.losses.ldr_kl",
        "papyrax.losses.aldr_kl_init",
        "papyrax.losses.aldr_kl",
        "papyrax.losses.linear_ldr_kl",
        "papyrax.losses.linear_aldr_kl",
    ),
    claim=Claim(
        text=(
            "ALDR-KL resists label noise better than cross-entropy and loses nothing without "
            "noise; its temperatures tell contested examples from confident ones."
        ),
        setup=(
            "Digits, 1,000 for training, uniform label noise of 0 and 60%, MLP 64-256-10, SGD with "
            "momentum 0.9, weight decay 5e-3, learning rate 0.03 divided by ten at epochs 10 and "
            "20 of 30; prior temperature 10, adaptivity 2, margin 0.1. A seed is the mean of four "
            "draws of split, noise and weights."
        ),
        accept=(
            "Mean test accuracy over the seeds: at 60% noise ALDR-KL >= cross-entropy + 0.03, "
            "without noise >= cross-entropy - 0.01. Mean temperature of wrongly labelled examples "
            "above that of the others on every seed."
        ),
        method="ALDR-KL",
        baseline="cross-entropy",
    ),
    venue="ICML 2023",
    code="Optimization-AI/ICML2023_LDR",
)

EPOCHS = 30
BATCH = 50
TEMPERATURE = 10.0
DRAWS = 4


class Data(NamedTuple):
    """Training images, given labels, which of them are wrong, and clean test data."""

    x: Any
    y: Any
    wrong: Any
    x_test: Any
    y_test: Any


def make_data(seed: int, noise: float, examples: int = 1000, draw: int = 0) -> Data:
    """Digits, split at random; a share `noise` of the training labels is another digit."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    rng = np.random.default_rng([seed, draw])
    train, test = np.split(rng.permutation(len(images)), [examples])
    wrong = rng.random(examples) < noise
    given = np.where(wrong, (digits[train] + rng.integers(1, 10, examples)) % 10, digits[train])
    return Data(images[train], given, wrong, images[test], digits[test])


def network(params: list[Array], x: Float[Array, "batch 64"]) -> Float[Array, "batch 10"]:
    """Scores of the digits."""
    return jax.nn.relu(x @ params[0] + params[1]) @ params[2] + params[3]


def init(key: Array, width: int = 256) -> list[Array]:
    """He initialization."""
    a, b = jax.random.split(key)
    return [
        jax.random.normal(a, (64, width)) * np.sqrt(2 / 64),
        jnp.zeros(width),
        jax.random.normal(b, (width, 10)) * np.sqrt(1 / width),
        jnp.zeros(10),
    ]


@functools.partial(jax.jit, static_argnames=("adaptive", "epochs"))
@functools.partial(jax.vmap, in_axes=(0, 0, None, None))
def train(key: Array, data: Data, adaptive: bool, epochs: int) -> tuple[Array, Array]:
    """For each draw the clean test accuracy after every epoch, and the last temperatures."""
    steps = len(data.x) // BATCH
    rate = optax.piecewise_constant_schedule(
        0.03, {steps * epochs // 3: 0.1, 2 * steps * epochs // 3: 0.1}
    )
    tx = optax.chain(optax.add_decayed_weights(5e-3), optax.sgd(rate, momentum=0.9))

    def loss(params: Any, state: Any, batch: Array) -> tuple[Array, Any]:
        scores, labels = network(params, data.x[batch]), data.y[batch]
        if not adaptive:
            xent = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
            return xent.mean(), state
        values, state = aldr_kl(
            state, scores, labels, batch, temperature=TEMPERATURE, normalization="l1"
        )
        return values.mean(), state

    def step(carry: Any, batch: Array) -> tuple[Any, None]:
        params, moments, state = carry
        grads, state = jax.grad(loss, has_aux=True)(params, state, batch)
        updates, moments = tx.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, state), None

    def epoch(carry: Any, key: Array) -> tuple[Any, Array]:
        order = jax.random.permutation(key, len(data.x))[: steps * BATCH]
        carry, _ = jax.lax.scan(step, carry, order.reshape(steps, BATCH))
        guess = network(carry[0], data.x_test).argmax(-1)
        return carry, jnp.mean(guess == data.y_test)

    params = init(key)
    start = (params, tx.init(params), aldr_kl_init(len(data.x), temperature=TEMPERATURE))
    (_, _, state), accuracy = jax.lax.scan(epoch, start, jax.random.split(key, epochs))
    return accuracy, state.temperatures


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains three times as long with the same schedule."""
    epochs = EPOCHS if budget == "quick" else 3 * EPOCHS
    all_seeds = seed_range(seed, seeds)
    draws = [(s, d) for s in all_seeds for d in range(DRAWS)]
    keys = jnp.stack([jax.random.fold_in(jax.random.key(s), d) for s, d in draws])
    traces: dict[tuple[float, bool], np.ndarray] = {}

    def by_seed(values: Any) -> np.ndarray:
        values = np.asarray(values, float)
        return values.reshape(seeds, DRAWS, *values.shape[1:]).mean(1)

    hot: list[float] = []
    cold: list[float] = []
    for i, noise in enumerate((0.6, 0.0)):
        data = Data(*map(np.stack, zip(*(make_data(s, noise, draw=d) for s, d in draws))))
        for j, adaptive in enumerate((True, False)):
            what = PAPER.claim.method if adaptive else PAPER.claim.baseline
            progress((2 * i + j) / 4, f"{what}, {noise:.0%} noise")
            accuracy, temperatures = train(keys, data, adaptive, epochs)
            traces[noise, adaptive] = by_seed(accuracy)
            if adaptive and noise:
                pairs = list(zip(np.asarray(temperatures, float), data.wrong))
                hot = list(by_seed([t[w].mean() for t, w in pairs]))
                cold = list(by_seed([t[~w].mean() for t, w in pairs]))
    progress(1.0, "done")

    def accuracy_at(noise: float, gap: float) -> Measure:
        ours, theirs = (traces[noise, adaptive][:, -1] for adaptive in (True, False))
        return Measure(
            name=f"clean test accuracy at {noise:.0%} label noise",
            method=tuple(ours),
            baseline=tuple(theirs),
            accept=f"mean of method >= mean of baseline {gap:+}",
            holds=bool(ours.mean() >= theirs.mean() + gap),
        )

    figure = Figure(
        title="Digits with 60% wrong labels",
        x_label="epoch",
        y_label="clean test accuracy",
        lines=tuple(
            Line(
                PAPER.claim.method if adaptive else PAPER.claim.baseline,
                tuple(range(1, epochs + 1)),
                tuple(map(tuple, traces[0.6, adaptive])),
            )
            for adaptive in (True, False)
        ),
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=all_seeds,
        measures=(
            accuracy_at(0.6, 0.03),
            accuracy_at(0.0, -0.01),
            Measure(
                name="mean temperature of wrongly and of rightly labelled examples",
                method=tuple(hot),
                baseline=tuple(cold),
                accept="wrongly labelled above the others on every seed",
                holds=all(h > c for h, c in zip(hot, cold)),
            ),
        ),
        figure=figure,
    )
