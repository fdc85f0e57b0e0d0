"""PEPSI++: Fast and Lightweight Network for Image Inpainting.

The problem. Networks that fill holes in images run twice, coarse then fine, so that the second pass
can attend from a guess of the missing part to what is known. That costs time, and the attention by
cosine ignores how strong a patch is.

The idea. One encoder with two decoding paths, coarse and inpainting, that share weights; the second
one's features come from a contextual attention of Euclidean distances, standardized and truncated:

    s_ij = -tanh((d_ij - mean_j d_ij) / std_j d_ij),   d_ij = |f_i - b_j|^2
    hole = overlapping sum of softmax_j(50 s_ij) b_j

What the authors measured. PSNR and SSIM on CelebA and Places2 above coarse-to-fine networks, at
half the time; for the attention alone, Euclidean above cosine.

What is measured here. The attention alone, without training: periodic textures of 16 x 16 in bands
of four rows that differ in strength, a hole of 6 x 6 over two bands, and a guess of it that is the
truth with noise. PSNR in the hole, over 200 textures a seed, of the Euclidean and of the cosine
attention, and of the Euclidean one with the wrong sign, which a mistake would make.

What does not carry over. Where every row has a strength of its own, a patch of three rows can be
told by its direction; there cosine was 0.7 dB better on tuning seeds, with the same scale of 50.

What is left out. The network, its losses, the discriminator and the rate-adaptive convolutions. As
in the authors' code the background is all patches of the known image, those with a part of the hole
(zeros) among them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.attention import contextual_attention
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
    slug="pepsi",
    title="PEPSI++: Fast and Lightweight Network for Image Inpainting",
    authors="Y.-G. Shin, M.-C. Sagong, Y.-J. Yeo, S.-W. Kim, S.-J. Ko",
    year=2019,
    arxiv="1905.09010",
    area="vision",
    idea=(
        "One encoder with a coarse and an inpainting path, whose attention fills the hole from "
        "known patches by standardized and truncated Euclidean distance."
    ),
    formula=(
        "s_ij = -tanh((d_ij - mean_j d_ij) / std_j d_ij),  d_ij = |f_i - b_j|^2\n"
        "hole = overlap-add of softmax_j(50 s_ij) b_j / 9"
    ),
    parts=("papyrax.attention.contextual_attention",),
    claim=Claim(
        text=(
            "Attention by truncated Euclidean distance fills holes better than by cosine, which "
            "does not see how strong a patch is."
        ),
        setup=(
            "200 textures a seed of 16 x 16, bands of 4 rows of strengths from 0.2 to 2, period 8; "
            "a hole of 6 x 6 and a guess of it with noise of half the texture's deviation; no "
            "training, scale 50 and patches of 3 x 3 for both."
        ),
        accept=(
            "PSNR in the hole: Euclidean >= cosine + 0.5 dB and >= wrong sign + 3 dB on every seed."
        ),
        method="Euclidean",
        baseline="cosine",
    ),
    venue="IEEE TNNLS 2020",
    code="Forty-lock/PEPSI-Fast_image_inpainting_with_parallel_decoding_network",
)

SIZE, HOLE, NOISES = 16, slice(5, 11), (0.25, 0.5, 1.0)
KINDS = ("Euclidean", "cosine", "wrong sign")


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Textures [count, 16, 16, 1] and noise of their deviation of the same shape."""
    columns = rng.normal(size=(count, 1, 4, 1))
    strengths = np.exp(rng.uniform(np.log(0.2), np.log(2), (count, 2, 1, 1)))
    x = np.tile(np.repeat(strengths, 4, axis=1), (1, 2, 1, 1)) * np.tile(columns, (1, 1, 4, 1))
    noise = rng.normal(size=x.shape) * x.std(axis=(1, 2), keepdims=True)
    return x.astype(np.float32), noise.astype(np.float32)


def fill(kind: str, x: Array, guess: Array) -> Float[Array, "B 16 16 1"]:
    """The image with its hole filled by one of the three attentions."""
    mask = jnp.ones((len(x), SIZE, SIZE), bool).at[:, HOLE, HOLE].set(False)
    if kind == "cosine":
        return contextual_attention(x, mask, guess, similarity="cosine")
    if kind == "Euclidean":
        return contextual_attention(x, mask, guess)
    # |f + b|^2 in place of |f - b|^2: the farthest patches are taken for the nearest.
    return contextual_attention(x, mask, -guess)


@functools.partial(jax.jit, static_argnames="kind")
def psnr(x: Array, noise: Array, *, kind: str) -> Float[Array, "noises"]:
    """In dB over the range of each image, mean over images, for every strength of noise."""

    def one(strength: Array) -> Array:
        inside = jnp.zeros((1, SIZE, SIZE, 1)).at[:, HOLE, HOLE].set(1)
        filled = fill(kind, x * (1 - inside), x + strength * noise * inside)
        error = jnp.mean((filled - x)[:, HOLE, HOLE] ** 2, axis=(1, 2, 3))
        peak = jnp.max(x, axis=(1, 2, 3)) - jnp.min(x, axis=(1, 2, 3))
        return jnp.mean(10 * jnp.log10(peak**2 / jnp.maximum(error, 1e-12)))

    return jax.lax.map(one, jnp.asarray(NOISES))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" fills five times as many textures."""
    all_seeds, count = seed_range(seed, seeds), 1000 if budget == "full" else 200
    got = np.zeros((len(KINDS), seeds, len(NOISES)))
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}")
        x, noise = draw(np.random.default_rng(s), count)
        for j, kind in enumerate(KINDS):
            parts = [
                np.asarray(psnr(x[k : k + 100], noise[k : k + 100], kind=kind))
                for k in range(0, count, 100)
            ]
            got[j, i] = np.mean(parts, axis=0)
    progress(1.0, "done")
    return _result(budget, all_seeds, got)


def _result(
    budget: Budget, seeds: tuple[int, ...], got: Float[np.ndarray, "kinds seeds noises"]
) -> Result:
    ours, cosine, wrong = got[:, :, NOISES.index(0.5)]
    measures = (
        Measure(
            name="PSNR in the hole, dB",
            method=tuple(ours),
            baseline=tuple(cosine),
            accept="Euclidean >= cosine + 0.5 on every seed",
            holds=bool(np.all(ours >= cosine + 0.5)),
        ),
        Measure(
            name="PSNR in the hole, dB (baseline: wrong sign)",
            method=tuple(ours),
            baseline=tuple(wrong),
            accept="Euclidean >= wrong sign + 3 on every seed",
            holds=bool(np.all(ours >= wrong + 3)),
        ),
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="Holes in periodic textures",
            x_label="noise of the guess over the texture's deviation",
            y_label="PSNR in the hole, dB",
            lines=tuple(
                Line(kind, NOISES, tuple(map(tuple, each))) for kind, each in zip(KINDS, got)
            ),
        ),
    )
