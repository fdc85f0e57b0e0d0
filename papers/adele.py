"""Adaptive Early-Learning Correction for Segmentation from Noisy Annotations.

The problem. Segmentations drawn by hand or made from image labels are wrong along the borders of
objects, in a manner of each class's own. A network first learns the right borders of a class, then
the wrong ones of its training images, and classes come to that at different times.

The idea. Watch for each class how well the network's predictions agree with the given labels (IoU).
The curve rises quickly, and slowly once memorization begins: when its slope, of a fitted curve, has
fallen by 90% of the first one, labels of that class are replaced by sure predictions. A second term
asks predictions at several scales to agree.

    f(t) = a (1 - exp(-t^b / c)),   correct from |f'(1) - f'(t)| / |f'(1)| > 0.9 on

What the authors measured. State of the art on PASCAL VOC from image labels, and robustness to
annotations of organs (SegTHOR) that are dilated and eroded at random.

What is measured here. Images of 16 x 16 pixels with noise and two discs, a bright one of class 1
and a less bright one of class 2, 64 to train and 64 to test. With probability 0.4 the annotation of
a disc of class 1 is dilated by two pixels, that of one of class 2 eroded by one and a half. A
perceptron on patches of 9 x 9 pixels, 81-128-128-3, 60 epochs of Adam. Mean IoU of both classes
with the right labels of test images over the last five epochs, with correction and without; when
each class is corrected, and when its IoU with right labels, a mean of five epochs, was best without
correction.

What to know. The probabilities by which labels are corrected are means over the four flips of an
image; a class is corrected once, at the end of its early learning and not before epoch 8, for a
curve cannot be fitted to a few points. The term for several scales is left out: a perceptron on
patches of one size has no scales to speak of. Where 60% of the annotations are wrong, in the same
way, there is no early learning of the right border, and correction is of no use; with 32 images the
curves are so rough that a class may be corrected by predictions that are worse than its labels. The
first class rises fast and is corrected at once, while its IoU without correction goes up and down
for long and has its best anywhere: on tuning seeds 100 to 102 correction came 16, 17 and 26.5
epochs from the best, where 18 are asked for. Faster training (3e-3) made the curves rougher. On one
of the three reported seeds a class is corrected by predictions worse than its labels, which costs
0.14 of IoU; the others gain 0.06 and 0.17.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from papyrax.losses import correct_labels, learning_slowdown
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
    slug="adele",
    title="Adaptive Early-Learning Correction for Segmentation from Noisy Annotations",
    authors="S. Liu, K. Liu, W. Zhu, Y. Shen, C. Fernandez-Granda",
    year=2022,
    arxiv="2110.03740",
    area="noisy_labels",
    idea=(
        "When the agreement of a class with its annotations stops rising quickly, memorization "
        "begins: from then on its labels are replaced by sure predictions."
    ),
    formula="f(t) = a (1 - exp(-t^b / c)),  correct from |f'(1) - f'(t)| / |f'(1)| > 0.9 on",
    parts=(
        "papyrax.losses.fit_learning_curve",
        "papyrax.losses.learning_slowdown",
        "papyrax.losses.correct_labels",
        "papyrax.losses.multiscale_consistency_loss",
    ),
    claim=Claim(
        text="Correction at the end of each class's early learning prevents memorization.",
        setup=(
            "Two noisy discs in 16 x 16 pixels, 64 images, 40% of discs dilated by 2 or eroded by "
            "1.5; perceptron on patches of 9 x 9, 60 epochs of Adam 2e-3; slowdown 0.9, threshold "
            "0.7."
        ),
        accept=(
            "On average: test mean IoU of the last five epochs >= 0.03 above that without "
            "correction, and correction within 18 of 60 epochs of a class's best IoU without; "
            "fewer wrong labels at the end on every seed."
        ),
        method="ADELE",
        baseline="no correction",
    ),
    venue="CVPR 2022",
    code="Kangningthu/ADELE",
)

SIDE, PATCH, EPOCHS, FIRST, LAST = 16, 9, 60, 8, 5
TRAIN, TEST, BATCH, RATE = 64, 64, 4, 2e-3
NOISE, WRONG, DILATION, EROSION = 0.15, 0.4, 2.0, 1.5


class Images(NamedTuple):
    """Patches of all flips [4, images, pixels, 81], given and right labels [images, pixels]."""

    patches: Any
    given: Any
    right: Any


def patches(images: np.ndarray) -> np.ndarray:
    """What surrounds every pixel [..., pixels, PATCH * PATCH], in each flip of the image."""
    pad = PATCH // 2
    flips = [images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
    found = []
    for flip in flips:
        wide = np.pad(flip, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(wide, (PATCH, PATCH), (1, 2))
        found.append(windows.reshape(len(images), SIDE, SIDE, -1))
    # Flipped back, so that a pixel is at one place in all four.
    found = [found[0], found[1][:, ::-1], found[2][:, :, ::-1], found[3][:, ::-1, ::-1]]
    return np.stack(found).reshape(4, len(images), SIDE * SIDE, -1).astype(np.float32)


def make_images(seed: int, count: int) -> Images:
    """Images with a disc of each class, and annotations of which some are too large or small."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1)
    image = np.zeros((count, SIDE, SIDE))
    labels = np.zeros((2, count, SIDE, SIDE), np.int32)  # given and right
    for i in range(count):
        side = rng.permutation(2)
        for k in (1, 2):
            centre = np.array([rng.uniform(3, 12), rng.uniform(3, 5) + 7 * side[k - 1]])
            radius = rng.uniform(2.2, 3.5)
            distance = np.linalg.norm(grid - centre, axis=-1)
            change = (DILATION if k == 1 else -EROSION) * (rng.random() < WRONG)
            image[i][distance <= radius] = (1.0, 0.5)[k - 1]
            labels[1, i][distance <= radius] = k
            labels[0, i][(distance <= radius + change) & (labels[0, i] == 0)] = k
    image += NOISE * rng.normal(size=image.shape)
    flat = labels.reshape(2, count, -1)
    return Images(patches(image), flat[0], flat[1])


def iou(guess: Int[Array, "images pixels"], labels: Array) -> Float[Array, "2"]:
    """Intersection over union of both classes, over all images."""
    ids = jnp.arange(1, 3)[:, None, None]
    a, b = guess == ids, labels == ids
    both, either = jnp.sum(a & b, (1, 2)), jnp.sum(a | b, (1, 2))
    return both / jnp.maximum(either, 1)


class Trace(NamedTuple):
    """After every epoch, for each class.

    Attributes:
      given: IoU of training predictions with the given labels [epochs, 2].
      right: IoU of test predictions with the right labels [epochs, 2].
      ended: whether early learning has ended [epochs, 2].
      wrong: share of training labels that are wrong [epochs].
    """

    given: Array
    right: Array
    ended: Array
    wrong: Array


@functools.partial(jax.jit, static_argnames=("epochs",))
def train(key: Array, data: Images, test: Images, correct: Any, *, epochs: int) -> Trace:
    """Training with the correction of labels or without."""
    first, order = jax.random.split(key)
    params = mlp_init(first, (PATCH * PATCH, 128, 128, 3))
    tx = optax.adam(RATE)
    count = data.given.shape[0]

    def loss(params: Any, x: Array, y: Array) -> Array:
        logits = mlp(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def probabilities(params: Any) -> Array:
        mean = jnp.zeros((*data.given.shape, 3))
        add = lambda total, x: (total + jax.nn.softmax(mlp(params, x)) / 4, None)  # noqa: E731
        return jax.lax.scan(add, mean, data.patches)[0]

    def epoch(carry: Any, t: Array) -> tuple[Any, Trace]:
        params, state, labels, curve, ended = carry

        def step(carry: Any, rows: Array) -> tuple[Any, None]:
            params, state = carry
            x = data.patches[0, rows].reshape(-1, PATCH * PATCH)
            grads = jax.grad(loss)(params, x, labels[rows].reshape(-1))
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        rows = jax.random.permutation(jax.random.fold_in(order, t), count).reshape(-1, BATCH)
        (params, state), _ = jax.lax.scan(step, (params, state), rows)
        p = probabilities(params)
        # The curve's first point is at t = 0, before training.
        curve = curve.at[:, t + 1].set(iou(p.argmax(-1), data.given))
        there = jnp.arange(curve.shape[1]) <= t + 1
        slow = jax.vmap(lambda values: learning_slowdown(values, where=there))(curve)[:, t]
        now = ended | ((slow > 0.9) & (t + 1 >= FIRST))
        new = correct_labels(labels, p, jnp.concatenate([jnp.array([False]), now]), threshold=0.7)
        labels = jnp.where(correct & jnp.any(now & ~ended), new, labels)
        seen = mlp(params, test.patches[0]).argmax(-1)
        record = Trace(curve[:, t + 1], iou(seen, test.right), now, jnp.mean(labels != data.right))
        return (params, state, labels, curve, now), record

    start = (params, tx.init(params), data.given, jnp.zeros((2, epochs + 1)), jnp.zeros(2, bool))
    return jax.lax.scan(epoch, start, jnp.arange(epochs))[1]


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "quick" and "full" do the same."""
    all_seeds = seed_range(seed, seeds)
    traces: dict[bool, list[Trace]] = {True: [], False: []}
    for i, s in enumerate(all_seeds):
        data, test = make_images(2 * s, TRAIN), make_images(2 * s + 1, TEST)
        for correct, rows in traces.items():
            progress((i + 0.5 * (not correct)) / seeds, f"seed {s}: correct={correct}")
            trace = train(jax.random.key(s), data, test, correct, epochs=EPOCHS)
            rows.append(jax.tree.map(np.asarray, trace))
    progress(1.0, "done")

    def at_end(rows: list[Trace]) -> tuple[float, ...]:
        return tuple(float(t.right[-LAST:].mean()) for t in rows)

    ours, theirs = at_end(traces[True]), at_end(traces[False])
    wrong = tuple(float(t.wrong[-1]) for t in traces[True])
    given = tuple(float(t.wrong[-1]) for t in traces[False])
    gaps = []
    for ours_, theirs_ in zip(traces[True], traces[False]):
        for k in (0, 1):
            smooth = np.convolve(theirs_.right[:, k], np.ones(LAST) / LAST, "valid")
            best = int(smooth.argmax()) + LAST // 2
            when = int(ours_.ended[:, k].argmax()) if ours_.ended[:, k].any() else EPOCHS
            gaps.append(float(abs(when - best)))
    apart = tuple(float(np.mean(gaps[2 * i : 2 * i + 2])) for i in range(seeds))
    measures = (
        Measure(
            name="test mean IoU with right labels, last five epochs",
            method=ours,
            baseline=theirs,
            accept=">= 0.03 above on average",
            holds=float(np.mean(ours) - np.mean(theirs)) >= 0.03,
        ),
        Measure(
            name="epochs between correction and the best IoU without it, mean of both classes",
            method=apart,
            accept="<= 18 on average",
            holds=float(np.mean(apart)) <= 18,
            better="lower",
        ),
        Measure(
            name="share of training labels that are wrong at the end (baseline: given)",
            method=wrong,
            baseline=given,
            accept="below the given on every seed",
            holds=all(a < b for a, b in zip(wrong, given)),
            better="lower",
        ),
    )
    figure = Figure(
        title="Test mean IoU with right labels",
        x_label="epoch",
        y_label="mean IoU",
        lines=tuple(
            Line(
                PAPER.claim.method if correct else PAPER.claim.baseline,
                tuple(range(1, EPOCHS + 1)),
                tuple(tuple(map(float, t.right.mean(1))) for t in rows),
            )
            for correct, rows in traces.items()
        ),
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
