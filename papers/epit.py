"""Learning Non-Local Spatial-Angular Correlation for Light Field Image Super-Resolution.

The problem. The views of a light field show the same points, displaced by their disparity. Networks
that mix views by convolutions learn the displacements they were trained on and fail at larger ones.

The idea. In an epipolar-plane image (views by positions) a point is a line, whatever its disparity.
Attend in such images, horizontal and vertical ones with the same weights, between tokens of all
views along a band of positions:

    (i, j) sees (i', j')  <=>  |j' - j| <= 5,   out = softmax(q.k) v within the image

What the authors measured. Super-resolution of light fields, 2 and 4 times, above earlier networks
on five sets, with a far smaller loss when the disparity is enlarged by shearing.

What is measured here. The attention without training, as it gathers the views of a point: lines of
noisy pixels, 5 views by 48 positions, queries and keys the 7 pixels around a place, values the
pixel, logits minus the squared distance over 4. PSNR at disparities from 0 to 4 positions a view,
for attention in the band of all views, for attention of each view in itself with the same band, and
for the mean of the views at one position, which is what is left of the angular axis without
correspondence.

What is left out. The network and its training for super-resolution; one layer without trained maps
cannot sharpen. The gain shrinks as the disparity grows, since lines leave the band of 5 positions:
at 4 a view only the next view is within it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.attention import epipolar_attention
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
    slug="epit",
    title="Learning Non-Local Spatial-Angular Correlation for Light Field Image Super-Resolution",
    authors="Z. Liang, Y. Wang, L. Wang, J. Yang, S. Zhou, Y. Guo",
    year=2023,
    arxiv="2302.08058",
    area="vision",
    idea=(
        "A point of the scene is a line in an epipolar-plane image, so attention within such "
        "images, along a band of positions, finds its views whatever the disparity."
    ),
    formula=(
        "(i, j) sees (i', j')  <=>  -floor(b/2) <= j' - j < ceil(b/2),  b = 11, all views\n"
        "out = softmax(q.k) v within each epipolar-plane image"
    ),
    parts=("papyrax.attention.epipolar_attention", "papyrax.attention.epipolar_mask"),
    claim=Claim(
        text=(
            "Attention in epipolar-plane images uses the other views, and loses far less than "
            "mixing of views at one position when the disparity grows."
        ),
        setup=(
            "128 images a seed of 5 views and 48 positions: sums of 12 waves, displaced by 0 to 4 "
            "positions a view, noise of half their deviation; attention of patches of 7 pixels, "
            "no training."
        ),
        accept=(
            "PSNR: all views >= own view + 0.5 dB in the mean over disparities, on every seed. "
            "Loss from disparity 0 to 4: at most 3 dB, and at least 5 dB less than for the mean "
            "of the views, on every seed."
        ),
        method="all views",
        baseline="own view",
    ),
    venue="ICCV 2023",
    code="ZhengyuLiang24/EPIT",
)

VIEWS, WIDTH, TAPS, BAND, NOISE, SHARPNESS = 5, 48, 7, 11, 0.5, 0.25
DISPARITIES = (0.0, 1.0, 2.0, 3.0, 4.0)
KINDS = ("all views", "own view", "mean of views")


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Clean images [disparities, count, views, positions + 6] of variance one."""
    frequency, phase = rng.uniform(0.1, 1.5, (count, 12)), rng.uniform(0, 2 * np.pi, (count, 12))
    size = rng.normal(size=(count, 12))
    size /= np.sqrt((size**2).sum(1, keepdims=True) / 2)
    place = np.arange(WIDTH + TAPS - 1) - np.array(DISPARITIES)[:, None, None] * (
        np.arange(VIEWS)[:, None] - VIEWS // 2
    )
    angle = frequency[:, None, None] * place[:, None, ..., None] + phase[:, None, None]
    return np.einsum("nk,dnvwk->dnvw", size, np.cos(angle)).astype(np.float32)


@functools.partial(jax.jit, static_argnames="kind")
def restored(noisy: Float[Array, "N V X"], *, kind: str) -> Float[Array, "N V W"]:
    """The pixels in the middle of their patches, by one of the three."""
    half = TAPS // 2
    value = noisy[..., half:-half]
    if kind == "mean of views":
        return jnp.broadcast_to(jnp.mean(value, axis=1, keepdims=True), value.shape)
    patch = noisy[..., np.arange(WIDTH)[:, None] + np.arange(TAPS)]
    square = jnp.sum(patch**2, axis=-1, keepdims=True)
    # -|f_i - f_j|^2 / 2 but for the term of i, which softmax does not see.
    query = jnp.concatenate([patch, jnp.ones_like(square)], axis=-1)
    key = jnp.concatenate([patch, -square / 2], axis=-1)
    field = (1 if kind == "own view" else 2 * VIEWS, BAND)
    heads = (query[..., None, :], key[..., None, :], value[..., None, None])
    return epipolar_attention(*heads, field=field, scale=2 * SHARPNESS)[..., 0, 0]


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" takes eight times as many images."""
    all_seeds, count = seed_range(seed, seeds), 1024 if budget == "full" else 128
    got = np.zeros((len(KINDS), seeds, len(DISPARITIES)))
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}")
        rng = np.random.default_rng(s)
        clean = draw(rng, count)
        noisy = clean + (NOISE * rng.normal(size=clean.shape)).astype(np.float32)
        half = TAPS // 2
        wanted = clean[..., half:-half]
        for j, kind in enumerate(KINDS):
            for k in range(len(DISPARITIES)):
                error = np.asarray(restored(noisy[k], kind=kind)) - wanted[k]
                got[j, i, k] = -10 * np.log10(np.mean(np.square(error, dtype=np.float64)))
    progress(1.0, "done")
    return _result(budget, all_seeds, got)


def _result(
    budget: Budget, seeds: tuple[int, ...], got: Float[np.ndarray, "kinds seeds disparities"]
) -> Result:
    ours, own, _ = got.mean(-1)
    loss, _, lost = got[..., 0] - got[..., -1]
    measures = (
        Measure(
            name="PSNR over the texture's variance, dB, mean over disparities",
            method=tuple(ours),
            baseline=tuple(own),
            accept="all views >= own view + 0.5 on every seed",
            holds=bool(np.all(ours >= own + 0.5)),
        ),
        Measure(
            name="PSNR lost from disparity 0 to 4, dB (baseline: mean of views)",
            method=tuple(loss),
            baseline=tuple(lost),
            accept="all views <= 3 and <= mean of views - 5 on every seed",
            holds=bool(np.all(loss <= 3) and np.all(loss <= lost - 5)),
            better="lower",
        ),
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="Noisy views of a light field, averaged by attention",
            x_label="disparity, positions a view",
            y_label="PSNR, dB",
            lines=tuple(
                Line(kind, DISPARITIES, tuple(map(tuple, each))) for kind, each in zip(KINDS, got)
            ),
        ),
    )
