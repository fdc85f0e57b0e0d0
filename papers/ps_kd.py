"""Self-Knowledge Distillation with Progressive Refinement of Targets.

The problem. One-hot targets make a network overconfident. Softer targets help, but label smoothing
softens all examples alike, and distillation needs a teacher.

The idea. The model's own prediction of an example, when it last saw it, is the teacher: the target
is `(1 - a) onehot(y) + a P_past`, and the weight `a` grows linearly over training, as there is more
and more to be learned from the past. Examples that are still predicted badly get a larger share of
the gradient than with label smoothing.

What the authors measured. On CIFAR-100 and ImageNet, object detection and translation, PS-KD lowers
the error and improves the quality of confidences (NLL, ECE, AURC) over cross-entropy, label
smoothing and other self-distillation.

What is measured here. A classification problem of scikit-learn with 20% random labels in training
and in test data, so that the right confidence is well below one; a network that can memorise it;
calibration error, negative log-likelihood and accuracy after training with PS-KD and with
cross-entropy. Where the labels are clean and the classes easy (digits), there is nothing to refine
and the two do not differ.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.losses import ps_kd, ps_kd_init, ps_kd_weight
from papyrax.metrics import expected_calibration_error
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
from papyrax.papers.toys import mlp, mlp_init

PAPER = Paper(
    slug="ps_kd",
    title="Self-Knowledge Distillation with Progressive Refinement of Targets",
    authors="K. Kim, B. Ji, D. Yoon, S. Hwang",
    year=2020,
    arxiv="2006.12000",
    area="distillation",
    idea=(
        "A model's own predictions of an epoch ago soften its targets, with a weight that grows "
        "over training."
    ),
    formula="-sum_k t_k log p_k,  t = (1 - a) onehot(y) + a P_past,  a = a_T epoch / epochs",
    parts=(
        "papyrax.losses.ps_kd",
        "papyrax.losses.ps_kd_init",
        "papyrax.losses.ps_kd_weight",
    ),
    claim=Claim(
        text="PS-KD improves the quality of confidences, and does not cost accuracy.",
        setup=(
            "make_classification: 20 features, 5 classes, 20% random labels, 1,500 for training "
            "and 2,500 for test; MLP 20-256-256-5, SGD 0.01 with momentum 0.9, batches of 100, "
            "40 epochs, final weight 0.8."
        ),
        accept=(
            "Mean calibration error (15 bins) at most 0.8 times that of cross-entropy, negative "
            "log-likelihood lower on every seed, mean accuracy no more than 0.005 lower."
        ),
        method="PS-KD",
        baseline="cross-entropy",
    ),
    venue="ICCV 2021",
    code="lgcnsai/PS-KD-Pytorch",
)

TRAIN, BATCH, CLASSES = 1500, 100, 5
EPOCHS = 40
FINAL_WEIGHT = 0.8


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardized features and given labels of 4,000 examples."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        4000,
        20,
        n_informative=10,
        n_redundant=5,
        n_classes=CLASSES,
        class_sep=1.0,
        flip_y=0.2,
        random_state=seed,
    )
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y.astype(np.int32)


@functools.partial(jax.jit, static_argnames="epochs")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
def train(
    key: Array, x: Array, y: Array, final_weight: Array, epochs: int
) -> tuple[Float[Array, "epochs"], Float[Array, "test classes"]]:
    """Test loss after every epoch, and the final test logits; weight zero is cross-entropy."""
    tx = optax.sgd(0.01, momentum=0.9)

    def loss(params: Any, memory: Any, batch: Array, weight: Array) -> tuple[Array, Any]:
        values, memory = ps_kd(memory, mlp(params, x[batch]), y[batch], batch, weight=weight)
        return values.mean(), memory

    def epoch(carry: Any, now: Any) -> tuple[Any, Array]:
        number, key = now
        weight = ps_kd_weight(number, epochs=epochs, final_weight=1.0) * final_weight

        def step(carry: Any, batch: Array) -> tuple[Any, None]:
            params, moments, memory = carry
            grads, memory = jax.grad(loss, has_aux=True)(params, memory, batch, weight)
            updates, moments = tx.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments, memory), None

        order = jax.random.permutation(key, TRAIN).reshape(-1, BATCH)
        carry, _ = jax.lax.scan(step, carry, order)
        logits = mlp(carry[0], x[TRAIN:])
        test = optax.softmax_cross_entropy_with_integer_labels(logits, y[TRAIN:]).mean()
        return carry, test

    start, keys = jax.random.split(key)
    params = mlp_init(start, (20, 256, 256, CLASSES))
    carry = (params, tx.init(params), ps_kd_init(y[:TRAIN], classes=CLASSES))
    numbers = jnp.arange(epochs), jax.random.split(keys, epochs)
    carry, curve = jax.lax.scan(epoch, carry, numbers)
    return curve, mlp(carry[0], x[TRAIN:])


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains three times as long."""
    epochs, all_seeds = EPOCHS * (1 if budget == "quick" else 3), seed_range(seed, seeds)
    progress(0.0, "data")
    data = [make_data(s) for s in all_seeds]
    x, y = (np.stack([d[i] for d in data] * 2) for i in (0, 1))
    keys = jnp.stack([jax.random.key(s) for s in all_seeds] * 2)
    weights = np.repeat([FINAL_WEIGHT, 0.0], seeds).astype(np.float32)
    progress(0.1, "training all seeds with both losses")
    curves, logits = (np.asarray(v, float) for v in train(keys, x, y, weights, epochs))
    p = np.asarray(jax.nn.softmax(logits), np.float32)
    test = y[:, TRAIN:]
    ece = np.asarray(jax.vmap(expected_calibration_error)(jnp.asarray(p), jnp.asarray(test)))
    accuracy = (p.argmax(-1) == test).mean(-1)
    nll = curves[:, -1]
    ours, theirs = slice(0, seeds), slice(seeds, None)
    progress(1.0, "done")
    measures = (
        Measure(
            name="expected calibration error, 15 bins",
            method=tuple(ece[ours]),
            baseline=tuple(ece[theirs]),
            accept="mean of method <= 0.8 mean of baseline",
            holds=bool(np.mean(ece[ours]) <= 0.8 * np.mean(ece[theirs])),
            better="lower",
        ),
        Measure(
            name="test negative log-likelihood",
            method=tuple(nll[ours]),
            baseline=tuple(nll[theirs]),
            accept="method < baseline on every seed",
            holds=bool((nll[ours] < nll[theirs]).all()),
            better="lower",
        ),
        Measure(
            name="test accuracy",
            method=tuple(accuracy[ours]),
            baseline=tuple(accuracy[theirs]),
            accept="mean of method >= mean of baseline - 0.005",
            holds=accuracy[ours].mean() >= accuracy[theirs].mean() - 0.005,
        ),
    )
    axis = tuple(range(1, epochs + 1))
    figure = Figure(
        title="A fifth of the labels random",
        x_label="epoch",
        y_label="test negative log-likelihood (nats)",
        lines=(
            Line(PAPER.claim.method, axis, tuple(map(tuple, curves[ours]))),
            Line(PAPER.claim.baseline, axis, tuple(map(tuple, curves[theirs]))),
        ),
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
