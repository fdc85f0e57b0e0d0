"""Early-Learning Regularization Prevents Memorization of Noisy Labels.

The problem. A network that is trained on labels of which some are wrong first learns what the right
ones say and predicts well even the examples whose labels are wrong; then it memorizes these.

The idea. Keep for every training example a running mean of the model's own predictions, `t`, and
add `l log(1 - <t, p>)` to cross-entropy. Early on the targets are right for most examples; the
term's gradient then cancels that of a wrong label and goes on rewarding a right one, whose own
gradient has become small.

What the authors measured. Near the state of the art on CIFAR-10 and CIFAR-100 with 20 to 80%
symmetric label noise, Clothing1M and WebVision.

What is measured here. The digits of scikit-learn, 1,000 for training of which 40% are given another
digit for a label, an MLP trained by SGD until cross-entropy has memorized them: clean test accuracy
at the end, and the share of the wrong labels that the network reproduces.

Both settings of the authors (3 with momentum 0.7, and 7 with 0.9) work here; the first is used.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from papyrax.losses import elr_init, elr_loss
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
from papyrax.papers.ldr_loss import Data, make_data
from papyrax.papers.toys import mlp, mlp_init

PAPER = Paper(
    slug="elr",
    title="Early-Learning Regularization Prevents Memorization of Noisy Labels",
    authors="S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda",
    year=2020,
    arxiv="2007.00151",
    area="noisy_labels",
    idea=(
        "A running mean of the model's own predictions remembers what it learnt before it began to "
        "memorize wrong labels; agreeing with it is rewarded."
    ),
    formula="-log p_y + l log(1 - <t, p>),  t <- m t + (1 - m) p",
    parts=(
        "papyrax.losses.elr_regularizer",
        "papyrax.losses.elr_init",
        "papyrax.losses.elr_loss",
    ),
    claim=Claim(
        text="Early-learning regularization prevents the memorization of wrong labels.",
        setup=(
            "Digits, 1,000 for training, 40% of the labels another digit, MLP 64-256-256-10, SGD "
            "with momentum 0.9 and learning rate 0.02, batches of 100, 100 epochs; strength 3, "
            "momentum of the targets 0.7."
        ),
        accept=(
            "On every seed: clean test accuracy of ELR at the last epoch >= 0.90 and >= "
            "cross-entropy + 0.15; share of the wrong labels reproduced <= 0.15 for ELR and >= 0.8 "
            "for cross-entropy."
        ),
        method="ELR",
        baseline="cross-entropy",
    ),
    venue="NeurIPS 2020",
    code="shengliu66/ELR",
)

EPOCHS = 100
BATCH = 100


@functools.partial(jax.jit, static_argnames=("regularized", "epochs"))
@functools.partial(jax.vmap, in_axes=(0, 0, None, None))
def train(key: Array, data: Data, regularized: bool, epochs: int) -> tuple[Array, Array]:
    """After every epoch the clean test accuracy and the share of wrong labels reproduced."""
    examples = len(data.x)
    tx = optax.sgd(0.02, momentum=0.9)

    def loss(params: Any, state: Any, batch: Array) -> tuple[Array, Any]:
        logits, labels = mlp(params, data.x[batch]), data.y[batch]
        if regularized:
            values, state = elr_loss(state, logits, labels, batch)
        else:
            values = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return values.mean(), state

    def step(carry: Any, batch: Array) -> tuple[Any, None]:
        params, moments, state = carry
        grads, state = jax.grad(loss, has_aux=True)(params, state, batch)
        updates, moments = tx.update(grads, moments)
        return (optax.apply_updates(params, updates), moments, state), None

    def epoch(carry: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
        order = jax.random.permutation(key, examples)
        carry, _ = jax.lax.scan(step, carry, order.reshape(-1, BATCH))
        clean = jnp.mean(mlp(carry[0], data.x_test).argmax(-1) == data.y_test)
        same = mlp(carry[0], data.x).argmax(-1) == data.y
        return carry, (clean, jnp.sum(same & data.wrong) / jnp.sum(data.wrong))

    init, order = jax.random.split(key)
    params = mlp_init(init, (64, 256, 256, 10))
    start = (params, tx.init(params), elr_init(examples, 10))
    return jax.lax.scan(epoch, start, jax.random.split(order, epochs))[1]


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains three times as long."""
    epochs, all_seeds = EPOCHS if budget == "quick" else 3 * EPOCHS, seed_range(seed, seeds)
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])
    data = Data(*map(np.stack, zip(*(make_data(s, 0.4) for s in all_seeds))))
    traces = []
    for i, regularized in enumerate((True, False)):
        progress(i / 2, PAPER.claim.method if regularized else PAPER.claim.baseline)
        traces.append([np.asarray(t, float) for t in train(keys, data, regularized, epochs)])
    progress(1.0, "done")
    (ours, ours_wrong), (theirs, theirs_wrong) = [[t[:, -1] for t in pair] for pair in traces]
    names = (PAPER.claim.method, PAPER.claim.baseline)
    figure = Figure(
        title="Digits with 40% wrong labels",
        x_label="epoch",
        y_label="clean test accuracy",
        lines=tuple(
            Line(name, tuple(range(1, epochs + 1)), tuple(map(tuple, accuracy)))
            for name, (accuracy, _) in zip(names, traces)
        ),
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=all_seeds,
        measures=(
            Measure(
                name="clean test accuracy at the last epoch",
                method=tuple(ours),
                baseline=tuple(theirs),
                accept="method >= 0.90 and method >= baseline + 0.15 on every seed",
                holds=bool((ours >= 0.90).all() and (ours >= theirs + 0.15).all()),
            ),
            Measure(
                name="share of the wrong labels reproduced",
                method=tuple(ours_wrong),
                baseline=tuple(theirs_wrong),
                accept="method <= 0.15 and baseline >= 0.8 on every seed",
                holds=bool((ours_wrong <= 0.15).all() and (theirs_wrong >= 0.8).all()),
                better="lower",
            ),
        ),
        figure=figure,
    )
