"""Facial Landmark Points Detection Using Knowledge Distillation-Based Neural Networks.

The problem. Small networks place facial landmarks badly. Distillation would help, but a teacher of
coordinates is not right where it differs from the annotation: being drawn to it can be wrong.

The idea. Two teachers, a tough one trained on the annotated points and a tolerant one on points
smoothed by an active shape model. Mirrored to the student's side of the annotation, each attracts a
student that is farther off than itself, and repels one between itself and the annotation. The main
loss is linear up to the tolerant teacher's error and quadratic beyond it.

What the authors measured. A MobileNetV2 trained with the KD-Loss has a lower error on 300W, COFW
and WFLW than one trained with the squared error, and comes close to much larger networks.

What is measured here. Synthetic faces: ten landmarks, an affine map of a mean shape plus four modes
of deformation, seen through random nonlinear features with noise; 5% of the training coordinates
are outliers. The teachers are wide perceptrons, the tolerant one trained on shapes smoothed by
their principal components; the student is narrow. Its mean error with the KD-Loss and with the
squared error. With the absolute error alone, which the notes of the result have, the student is
slightly better still: here the gain comes from the linear part of the main loss, which outliers
cannot bend, and not from the teachers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import landmark_distillation_loss
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
from papyrax.papers.toys import fit, mlp, mlp_init

PAPER = Paper(
    slug="kd_loss_landmarks",
    title="Facial Landmark Points Detection Using Knowledge Distillation-Based Neural Networks",
    authors="A. Pourramezan Fard, M. H. Mahoor",
    year=2021,
    arxiv="2111.07047",
    area="distillation",
    idea=(
        "A tough and a tolerant teacher attract a student that is farther off than they are and "
        "repel one that is closer."
    ),
    formula=(
        "main (3 d if d <= e_tol else d^2 + 3 e_tol - e_tol^2)\n"
        "+ sum_T |d - e_T| (pull if d > e_T, push if band e_T <= d <= e_T)"
    ),
    parts=("papyrax.losses.landmark_distillation_loss",),
    claim=Claim(
        text="A small network trained with the KD-Loss places landmarks better than with MSE.",
        setup=(
            "Synthetic faces of 10 landmarks behind 64 noisy nonlinear features; 1,000 for "
            "training with 5% outliers, 2,000 for testing; teachers MLP 64-256-20, student "
            "64-16-20; 2,000 steps of Adam 2e-3 in batches of 100."
        ),
        accept=(
            "Mean absolute test error of KD-Loss at most 0.93 times that of MSE on the mean of "
            "the seeds, and lower than it on every seed."
        ),
        method="KD-Loss",
        baseline="MSE",
    ),
    venue="Computer Vision and Image Understanding 2022",
    code="aliprf/KD-Loss",
)

TRAIN, TEST, POINTS, STEPS = 1000, 2000, 10, 2000
MODES, OUTLIERS = 4, 0.05
WAYS = ("KD-Loss", "MSE", "absolute error")


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [examples, 64], true and given coordinates [examples, 20]."""
    rng = np.random.default_rng(seed)
    n = TRAIN + TEST
    mean = rng.uniform(-0.3, 0.3, 2 * POINTS)
    modes = rng.normal(size=(MODES, 2 * POINTS)) * 0.05
    pose = np.concatenate([rng.normal(size=(n, MODES)), rng.uniform(-1, 1, (n, 3))], 1)
    shapes = (mean + pose[:, :MODES] @ modes).reshape(n, POINTS, 2)
    angle = 0.3 * pose[:, MODES, None]
    turned = np.stack(
        [
            np.cos(angle) * shapes[..., 0] - np.sin(angle) * shapes[..., 1],
            np.sin(angle) * shapes[..., 0] + np.cos(angle) * shapes[..., 1],
        ],
        -1,
    )
    true = (turned + 0.1 * pose[:, None, MODES + 1 :]).reshape(n, -1)
    hidden = np.tanh(pose @ rng.normal(size=(MODES + 3, 64)) / 2 + rng.normal(size=64))
    x = hidden + 0.1 * rng.normal(size=hidden.shape)
    wrong = rng.random(true.shape) < OUTLIERS
    given = np.where(wrong, rng.uniform(-0.5, 0.5, true.shape), true)
    return x.astype(np.float32), true.astype(np.float32), given.astype(np.float32)


def smooth_shapes(shapes: np.ndarray, keep: float = 0.9) -> np.ndarray:
    """Shapes on their first principal components, each within three standard deviations."""
    mean = shapes.mean(0)
    _, scale, axes = np.linalg.svd(shapes - mean, full_matrices=False)
    count = int(np.searchsorted(np.cumsum(scale**2) / np.sum(scale**2), keep)) + 1
    limit = 3 * scale[:count] / np.sqrt(len(shapes))
    at = np.clip((shapes - mean) @ axes[:count].T, -limit, limit)
    return mean + at @ axes[:count]


@functools.partial(jax.jit, static_argnames="steps")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, 0, None))
def train(
    key: Array, x: Array, true: Array, given: Array, smooth: Array, steps: int
) -> Float[Array, "ways"]:
    """Mean absolute test error of the student for each loss."""
    keys = jax.random.split(key, 3)
    outputs = 2 * POINTS

    def regress(loss: Any, key: Array, hidden: int, learning_rate: float = 2e-3) -> Any:
        init, run = jax.random.split(key)
        return fit(
            lambda params, index, key: jnp.mean(loss(mlp(params, x[index]), index)),
            mlp_init(init, (64, hidden, outputs)),
            run,
            examples=TRAIN,
            batch=100,
            steps=steps,
            learning_rate=learning_rate,
        )

    tough = regress(lambda z, i: jnp.square(z - given[i]), keys[0], 256)
    tolerant = regress(lambda z, i: jnp.square(z - smooth[i]), keys[1], 256)
    hard, soft = mlp(tough, x[:TRAIN]), mlp(tolerant, x[:TRAIN])

    def one(way: Array) -> Array:
        def loss(z: Array, i: Array) -> Array:
            kd = landmark_distillation_loss(z, given[i], hard[i], soft[i])
            gap = z - given[i]
            return way @ jnp.stack([kd, jnp.square(gap).mean(-1), jnp.abs(gap).mean(-1)])

        student = regress(loss, keys[2], 16)
        return jnp.abs(mlp(student, x[TRAIN:]) - true[TRAIN:]).mean()

    return jax.lax.map(one, jnp.eye(len(WAYS)))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains five times as long."""
    steps = STEPS * (1 if budget == "quick" else 5)
    all_seeds = seed_range(seed, seeds)
    x, true, given = map(np.stack, zip(*map(make_data, all_seeds)))
    smooth = np.stack([smooth_shapes(g[:TRAIN]) for g in given]).astype(np.float32)
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])
    progress(0.1, "teachers and students of all seeds")
    errors = dict(zip(WAYS, np.asarray(train(keys, x, true, given, smooth, steps), float).T))
    progress(1.0, "done")
    ours, theirs = errors["KD-Loss"], errors["MSE"]
    measures = (
        Measure(
            name="mean absolute test error of the student",
            method=tuple(ours),
            baseline=tuple(theirs),
            accept="mean of method <= 0.93 mean of baseline, and below it on every seed",
            holds=ours.mean() <= 0.93 * theirs.mean() and bool((ours < theirs).all()),
            better="lower",
        ),
    )
    axis = tuple(range(seeds))
    figure = Figure(
        title="Landmarks of a narrow student, seed by seed",
        x_label="seed, counted from the first",
        y_label="mean absolute test error",
        lines=tuple(Line(way, axis, (tuple(v),)) for way, v in errors.items()),
    )
    notes = f"Mean error with the absolute error alone: {errors['absolute error'].mean():.4f}."
    return Result(PAPER.slug, budget, all_seeds, measures, figure, notes)
