"""Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head.

The problem. A softmax hides part of what a teacher's logits say. A loss on the logits themselves
(BinaryKL) would teach it, but added to cross-entropy on the same classifier it makes the student
worse than either alone: near neural collapse the gradients of the two contradict each other in the
last layer, though not in the backbone.

The idea. Give each loss its own head on one backbone: cross-entropy the classifier, the logit loss
an auxiliary head that is dropped after training. BinaryKL-Norm, which depends only on the
difference of the logits, keeps the auxiliary gradient bounded, and where the gradients still
conflict, the auxiliary one is projected.

What the authors measured. On CIFAR-100 and ImageNet the dual head beats logit and feature
distillation, while cross-entropy plus BinaryKL on one head falls below cross-entropy or fails.

What is measured here. Digits: a teacher trained on 1,200, a narrow student on 400 of them, with
cross-entropy, with cross-entropy plus BinaryKL-Norm on one head, and with the dual head. A seed's
number is the mean over several draws of split and weights. See the notes of the result for KD and
for the dual head without aligned gradients.

What does not reproduce. The dual head beats cross-entropy by half a point, but one head with both
losses beats them both: fitting the teacher's logits is good distillation for a perceptron whose
features have not collapsed, and the auxiliary head keeps part of it away from the classifier.
Tried on other seeds: with all 1,200 images for the student one head
falls below cross-entropy, as the paper says, and so does the dual head (16 hidden units: 0.966 and
0.967 to 0.971; 6 units: 0.87 and 0.87 to 0.93).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.losses import align_gradients, binary_kl_norm_loss, knowledge_distillation_loss
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
from papyrax.papers.toys import digits, fit, mlp, mlp_init

PAPER = Paper(
    slug="dhkd",
    title="Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head",
    authors="P. Yang, C.-C. Zong, S.-J. Huang, L. Feng, B. An",
    year=2024,
    arxiv="2411.08937",
    area="distillation",
    idea=(
        "A loss on logits teaches through an auxiliary head, so that the backbone gains and the "
        "classifier is not disturbed."
    ),
    formula=(
        "CE(head(f), y) + a T^2 sum_k log cosh((aux(f)_k - z_k) / (2 T))\n"
        "g_kd <- g_kd - min(<g_kd, g_ce>, 0) / |g_ce|^2 g_ce"
    ),
    parts=(
        "papyrax.losses.binary_kl_norm_loss",
        "papyrax.losses.binary_kl_loss",
        "papyrax.losses.align_gradients",
    ),
    claim=Claim(
        text=(
            "A logit loss through an auxiliary head makes the student better than cross-entropy "
            "does, and better than the same loss on its only head."
        ),
        setup=(
            "Digits; teacher MLP 64-256-256-10 trained on 1,200, student 64-16-10 on 400; 1,500 "
            "steps of Adam 2e-3 in batches of 50; temperature 2, both weights 1. A seed is the "
            "mean of four draws."
        ),
        accept=(
            "Mean test accuracy over the seeds: dual head >= one head with both losses and >= "
            "cross-entropy + 0.005."
        ),
        method="dual head",
        baseline="one head, both losses",
    ),
    code="penghui-yang/DHKD",
)

STEPS, DRAWS, TEMPERATURE, WIDTH = 1500, 4, 2.0, 16
LABELLED, SEEN, TEACHER_STEPS = 400, 1200, 600
# Whether the logit loss acts, on the auxiliary head, with aligned gradients; and whether KD does.
WAYS = {
    "dual head": (1.0, 1.0, 1.0, 0.0),
    "dual head, not aligned": (1.0, 1.0, 0.0, 0.0),
    "one head, both losses": (1.0, 0.0, 0.0, 0.0),
    "KD": (0.0, 0.0, 0.0, 1.0),
    "cross-entropy": (0.0, 0.0, 0.0, 0.0),
}


def student(params: Any, x: Float[Array, "batch 64"]) -> tuple[Array, Array]:
    """Logits of the classifier and of the auxiliary head."""
    f = jax.nn.relu(mlp(params["body"], x))
    return mlp(params["head"], f), mlp(params["auxiliary"], f)


@functools.partial(jax.jit, static_argnames="steps")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
def train(key: Array, x: Array, y: Array, steps: int) -> Float[Array, "ways"]:
    """Test accuracy of the student for each way of training it."""
    teacher_init, teacher_run, body, head, auxiliary, run = jax.random.split(key, 6)

    def teacher_loss(params: Any, index: Array, key: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(
            mlp(params, x[index]), y[index]
        ).mean()

    teacher = fit(
        teacher_loss,
        mlp_init(teacher_init, (64, 256, 256, 10)),
        teacher_run,
        examples=SEEN,
        batch=50,
        steps=TEACHER_STEPS,
        learning_rate=1e-3,
    )
    taught = mlp(teacher, x[:LABELLED])
    start = {
        "body": mlp_init(body, (64, WIDTH)),
        "head": mlp_init(head, (WIDTH, 10)),
        "auxiliary": mlp_init(auxiliary, (WIDTH, 10)),
    }
    tx = optax.adam(2e-3)

    def one(way: Array) -> Array:
        logit, dual, aligned, kd = way

        def supervised(params: Any, index: Array) -> Array:
            z = student(params, x[index])[0]
            return optax.softmax_cross_entropy_with_integer_labels(z, y[index]).mean()

        def distilled(params: Any, index: Array) -> Array:
            z, auxiliary = student(params, x[index])
            where = dual * auxiliary + (1 - dual) * z
            norm = binary_kl_norm_loss(where, taught[index], temperature=TEMPERATURE)
            soft = knowledge_distillation_loss(z, taught[index], temperature=4.0)
            return jnp.mean(logit * norm + kd * soft)

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            params, moments = carry
            index = jax.random.choice(key, LABELLED, (50,), replace=False)
            g, h = jax.grad(supervised)(params, index), jax.grad(distilled)(params, index)
            joint = align_gradients(g, h)
            grads = jax.tree.map(lambda a, b, c: aligned * a + (1 - aligned) * (b + c), joint, g, h)
            updates, moments = tx.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        keys = jax.random.split(run, steps)
        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), keys)
        return jnp.mean(student(params, x[SEEN:])[0].argmax(-1) == y[SEEN:])

    return jax.lax.map(one, jnp.array(list(WAYS.values())))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" averages over four times as many draws."""
    draws, all_seeds = DRAWS * (1 if budget == "quick" else 4), seed_range(seed, seeds)
    pairs = [(s, d) for s in all_seeds for d in range(draws)]
    images, labels = digits()
    orders = np.stack([np.random.default_rng(p).permutation(len(images)) for p in pairs])
    keys = jnp.stack([jax.random.fold_in(jax.random.key(s), d) for s, d in pairs])
    progress(0.1, "teachers and students of all seeds")
    out = np.asarray(train(keys, images[orders], labels[orders], STEPS), float)
    means = dict(zip(WAYS, out.reshape(seeds, draws, -1).mean(1).T))
    progress(1.0, "done")
    ours = means["dual head"]

    def against(way: str, gap: float) -> Measure:
        return Measure(
            name=f"test accuracy, against {way}",
            method=tuple(ours),
            baseline=tuple(means[way]),
            accept=f"mean of method >= mean of baseline + {gap}",
            holds=ours.mean() >= means[way].mean() + gap,
        )

    axis = tuple(range(seeds))
    figure = Figure(
        title="Students of one teacher, seed by seed",
        x_label="seed, counted from the first",
        y_label="test accuracy",
        lines=tuple(Line(way, axis, (tuple(v),)) for way, v in means.items()),
    )
    others = ("dual head, not aligned", "KD")
    notes = "Mean test accuracy: " + ", ".join(f"{w} {means[w].mean():.4f}" for w in others) + "."
    measures = (against(PAPER.claim.baseline, 0.0), against("cross-entropy", 0.005))
    return Result(PAPER.slug, budget, all_seeds, measures, figure, notes)
