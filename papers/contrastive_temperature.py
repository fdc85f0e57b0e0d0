"""Understanding the Behaviour of Contrastive Loss.

The problem. InfoNCE spreads embeddings over the sphere without labels, and therefore also pushes
apart examples of one class. What decides between the two?

The idea. The temperature. The push on a negative is its share `exp(s_ij / t)` of the sum over
negatives: a small temperature spends it on the nearest negatives alone, which makes the embedding
uniform and breaks up classes, a large one on all alike, which tolerates neighbours and loses
uniformity. Between them lies the best. A loss without that hardness (`-s_ii + sum_j s_ij`) fails,
and the same loss on the most similar negatives alone works.

What the authors measured. On CIFAR-10, linear accuracy of 79.8 % at temperature 0.07, 83.3 % at 0.3
and 82.2 % at 1; 74.8 % for the simple loss and 84.8 % for it on hard negatives.

What is measured here. Digits, shifted, in varied contrast and with noise, a perceptron trained
by InfoNCE at four temperatures: uniformity, tolerance and the accuracy of a linear probe on the
embedding, and the probe under the simple loss with and without the choice of hard negatives.

What did not reproduce. Here uniformity is not monotone over the whole grid: it peaks at 0.1 (on
seeds 100 and 101, with 800 steps, 2.9 at 0.05, 3.1 at 0.1, 2.85 at 0.3, 2.5 at 1, and lower still
at 0.02 and 0.01), and tolerance, its mirror, has its least value there. From 0.1 on both go as the
paper says. Twice the steps did not change this. Why was not tested; a guess is that at a very small
temperature only the nearest pairs are pushed apart, which on so few images leaves the rest of the
sphere as it was. The grid and the rule are kept as they were set, so this part fails.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import hard_contrastive_loss, relative_penalty, simple_contrastive_loss
from papyrax.metrics import tolerance, uniformity
from papyrax.numerics import safe_normalize
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
from papyrax.papers.toys import augment, digits_halves, fit, mlp, mlp_init, probe

PAPER = Paper(
    slug="contrastive_temperature",
    title="Understanding the Behaviour of Contrastive Loss",
    authors="F. Wang, H. Liu",
    year=2021,
    arxiv="2012.09740",
    area="contrastive_loss",
    idea=(
        "The temperature sets how much of a contrastive loss goes to the hardest negatives, and so "
        "trades uniformity for tolerance to neighbours of the same meaning."
    ),
    formula="r_ij = exp(s_ij / t) / sum_{k != i} exp(s_ik / t) = |dL / ds_ij| / |dL / ds_ii|",
    parts=(
        "papyrax.losses.hard_contrastive_loss",
        "papyrax.losses.simple_contrastive_loss",
        "papyrax.losses.relative_penalty",
        "papyrax.metrics.uniformity",
        "papyrax.metrics.tolerance",
    ),
    claim=Claim(
        text=(
            "Uniformity falls and tolerance rises with the temperature, and an intermediate one is "
            "best; without hardness the loss fails."
        ),
        setup=(
            "Digits, even examples to train, odd ones to test, two random views; perceptron "
            "64-128-32, batch 256, 400 steps of Adam at temperatures 0.05, 0.1, 0.3 and 1; "
            "logistic regression on the embedding."
        ),
        accept=(
            "On every seed uniformity (minus its logarithm) falls and tolerance rises over the "
            "grid; mean over seeds: the best accuracy is at 0.1 or 0.3, at least that of both "
            "ends, and at least 0.01 above that of the simple loss."
        ),
        method="InfoNCE, best temperature",
        baseline="simple loss",
    ),
    venue="CVPR 2021",
)

TEMPERATURES = (0.05, 0.1, 0.3, 1.0)
HARD = 0.0819


@functools.partial(jax.jit, static_argnames=("kind", "steps"))
def embed(
    key: Array, temperature: Float[Array, ""], train: Array, images: Array, kind: str, steps: int
) -> Float[Array, "examples 32"]:
    """Unit embeddings of all images after training on views of some of them."""
    start, run = jax.random.split(key)

    def loss(layers: tuple, index: Array, key: Array) -> Array:
        views = [mlp(layers, augment(k, train[index])) for k in jax.random.split(key)]
        if kind == "info_nce":
            return jnp.mean(hard_contrastive_loss(*views, temperature=temperature, hard_share=None))
        share = HARD if kind == "hard_simple" else None
        number = HARD * 255 if kind == "hard_simple" else 255
        weight = temperature / number  # of the mean over the negatives that are kept
        return jnp.mean(simple_contrastive_loss(*views, negative_weight=weight, hard_share=share))

    layers = fit(
        loss,
        mlp_init(start, (64, 128, 32)),
        run,
        examples=len(train),
        batch=256,
        steps=steps,
        learning_rate=2e-3,
    )
    return safe_normalize(mlp(layers, images))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains five times as long."""
    all_seeds = seed_range(seed, seeds)
    images, labels, train, test = digits_halves()
    steps = 400 if budget == "quick" else 2000
    x, seen = jnp.asarray(images), jnp.asarray(images[train])
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])

    def run(kind: str, temperature: float) -> Array:
        one = functools.partial(embed, train=seen, images=x, kind=kind, steps=steps)
        return jax.vmap(lambda key: one(key, jnp.asarray(temperature)))(keys)

    def accuracy(embeddings: Array) -> tuple[float, ...]:
        return tuple(probe(np.asarray(z), labels, train, test) for z in embeddings)

    spread, kept, probes, focus = [], [], [], []
    for i, t in enumerate(TEMPERATURES):
        progress(i / 6, f"all seeds: temperature {t:g}")
        embeddings = run("info_nce", t)
        spread.append([-float(uniformity(z[test])) for z in embeddings])
        kept.append([float(tolerance(z[test], jnp.asarray(labels[test]))) for z in embeddings])
        probes.append(accuracy(embeddings))
        r = relative_penalty(embeddings[0][test], embeddings[0][test], temperature=t)
        focus.append(float(jnp.mean(-jnp.sum(jnp.where(r > 0, r * jnp.log(r), 0), -1))))
    progress(4 / 6, "all seeds: the simple loss")
    simple = accuracy(run("simple", 1.0))
    progress(5 / 6, "all seeds: the simple loss on hard negatives")
    hard_simple = accuracy(run("hard_simple", 1.0))
    progress(1.0, "done")

    means = [float(np.mean(p)) for p in probes]
    best = int(np.argmax(means))
    falls, rises = (-np.diff(spread, axis=0)).min(0), np.diff(kept, axis=0).min(0)
    gain = means[best] - float(np.mean(simple))
    ends = tuple(max(a, b) for a, b in zip(probes[0], probes[-1]))
    measures = (
        Measure(
            name="least fall of uniformity from one temperature to the next",
            method=tuple(falls),
            accept="above 0 on every seed",
            holds=min(falls) > 0,
        ),
        Measure(
            name="least rise of tolerance from one temperature to the next",
            method=tuple(rises),
            accept="above 0 on every seed",
            holds=min(rises) > 0,
        ),
        Measure(
            name="probe accuracy at the best temperature, and at the better end of the grid",
            method=probes[best],
            baseline=ends,
            accept="best mean at 0.1 or 0.3",
            holds=0 < best < len(TEMPERATURES) - 1,
        ),
        Measure(
            name="probe accuracy at the best temperature, and of the simple loss",
            method=probes[best],
            baseline=simple,
            accept="mean at least 0.01 above that of the simple loss",
            holds=gain >= 0.01,
        ),
    )
    figure = Figure(
        title="Accuracy of a linear probe",
        x_label="temperature",
        y_label="accuracy on test images",
        lines=(
            Line("InfoNCE", TEMPERATURES, tuple(zip(*probes))),
            Line("simple loss", TEMPERATURES, tuple((v,) * len(TEMPERATURES) for v in simple)),
        ),
        x_log=True,
    )
    notes = (
        f"Best temperature {TEMPERATURES[best]:g}; the simple loss on the {HARD:.1%} hardest "
        f"negatives: {np.mean(hard_simple):.3f}. Entropy of the push over negatives by "
        f"temperature: {', '.join(f'{v:.2f}' for v in focus)}."
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure, notes)
