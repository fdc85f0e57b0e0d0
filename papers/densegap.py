"""DenseGAP: Graph-Structured Dense Correspondence Learning with Anchor Points.

The problem. Descriptors of small patches cannot tell repeated textures apart when every pixel of an
image is to be matched with one of another, and attention between all pixels is too expensive.

The idea. A few matches are reliable. Take them as anchors: matched anchors exchange what they know,
anchors of one image attend to each other, and every pixel reads the anchors of its image along
directed edges, so that the cost is pixels times anchors:

    f_p <- f_p + sum_a softmax_a(q_p . k_a) v_a

What the authors measured. Dense matching, pose estimation and optical flow on MegaDepth, ScanNet
and HPatches: better than earlier descriptors, at high resolution and low memory.

What is measured here. The directed edges without training: two crops of one scene, whose texture
repeats four descriptors so that a pixel has about 60 equal candidates. 12 anchors are matched, one
in ten of them wrongly. Both anchors of a match carry one random code; a pixel reads the codes of
its image's anchors with weights that fall with the distance to them, and is described by its own
descriptor and what it has read. Pixels are matched by the nearest description, with anchors and
without, and with anchors whose codes do not agree between the images.

What is reconstructed. The authors' repository holds no code; of the network only what the paper's
abstract says is used, the directed edges, with positions as queries and keys. The other layers, the
multi-scale maps, the cycle-consistent refinement and training are left out.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from papyrax.attention import anchor_attention
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
    slug="densegap",
    title="DenseGAP: Graph-Structured Dense Correspondence Learning with Anchor Points",
    authors="Z. Kuang, J. Li, M. He, T. Wang, Y. Zhao",
    year=2021,
    arxiv="2112.06910",
    area="attention",
    idea=(
        "A few matched anchor points carry the context of both images to every pixel along "
        "directed edges, at a cost of pixels times anchors."
    ),
    formula="f_p <- f_p + sum_a softmax_a(q_p . k_a) v_a,  a in the anchors of p's image",
    parts=("papyrax.attention.anchor_attention",),
    claim=Claim(
        text="Context from anchor points makes repeated textures matchable.",
        setup=(
            "32 pairs a seed of 16 x 16 crops, 1 to 6 pixels apart, of scenes that repeat 4 "
            "descriptors of 8 numbers with noise 0.3; 12 anchors, 10 % wrong; codes of 32 numbers, "
            "weights of the squared distance over 8; no training. Share of the pixels that both "
            "crops have which are matched within one pixel."
        ),
        accept=(
            "With anchors >= without + 0.20, and >= with codes that disagree + 0.20, on every seed."
        ),
        method="anchors",
        baseline="no anchors",
    ),
    code="formyfamily/DenseGAP",
)

SIZE, ANCHORS, WRONG, CODE, NOISE, SPREAD = 16, 12, 0.1, 32, 0.3, 4.0
COUNTS = (4, 8, 12, 24)
KINDS = ("anchors", "no anchors", "codes that disagree")


def draw(rng: np.random.Generator, anchors: int) -> dict[str, np.ndarray]:
    """Descriptors of both crops, their offset, matched anchors and codes of a pair."""
    kinds = rng.normal(size=(4, 8))
    scene = np.tile(kinds[rng.permutation(4)].reshape(2, 2, 8), (11, 11, 1))  # 22 x 22
    offset = rng.integers(1, 7, 2)
    first = scene[:SIZE, :SIZE]
    second = scene[offset[0] : offset[0] + SIZE, offset[1] : offset[1] + SIZE]
    # Anchors of the second image are places that the first has too.
    shared = SIZE - offset
    chosen = rng.choice(shared[0] * shared[1], anchors, replace=False)
    in_second = np.stack(np.divmod(chosen, shared[1]), axis=-1)
    in_first = in_second + offset
    wrong = rng.random(anchors) < WRONG
    in_first[wrong] = rng.integers(0, SIZE, (int(wrong.sum()), 2))
    codes = rng.normal(size=(2, anchors, CODE)) / np.sqrt(CODE)
    return {
        "descriptors": np.stack(
            [x + NOISE * rng.normal(size=x.shape) for x in (first, second)]
        ).reshape(2, SIZE**2, 8),
        "anchors": np.stack([p[:, 0] * SIZE + p[:, 1] for p in (in_first, in_second)]),
        "codes": codes,
        "offset": offset,
    }


def described(
    descriptors: Float[Array, "2 P d"], anchors: Int[Array, "2 A"], codes: Float[Array, "2 A c"]
) -> Float[Array, "2 P e"]:
    """Own descriptors, and the codes of the anchors weighted by exp(-distance^2 / (2 spread))."""
    place = jnp.stack(jnp.divmod(jnp.arange(SIZE**2), SIZE), axis=-1).astype(
        jnp.asarray(codes).dtype
    )
    square = jnp.sum(place**2, axis=-1, keepdims=True)
    query = jnp.concatenate([place, jnp.ones_like(square)], axis=-1)
    key = jnp.concatenate([place, -square / 2], axis=-1)
    query, key = (jnp.broadcast_to(x[:, None], (2, SIZE**2, 1, 3)) for x in (query, key))
    # Codes stand at the places of the anchors; no other point is read.
    value = jax.vmap(lambda at, code: jnp.zeros((SIZE**2, CODE)).at[at].set(code))(anchors, codes)
    read = anchor_attention(query, key, value[:, :, None], anchors=anchors, scale=1 / SPREAD)
    return jnp.concatenate([descriptors, 4 * read[:, :, 0]], axis=-1)


@functools.partial(jax.jit, static_argnames="kind")
def accuracy(pairs: dict[str, Array], *, kind: str) -> Float[Array, ""]:
    """Share of the second crop's pixels in the first that are matched within a pixel."""

    def one(pair: dict[str, Array]) -> tuple[Array, Array]:
        x = pair["descriptors"]
        if kind != "no anchors":
            codes = pair["codes"]
            codes = jnp.stack([codes[0], codes[0]]) if kind == "anchors" else codes
            x = described(x, pair["anchors"], codes)
        first, second = x
        distance = jnp.sum(first**2, axis=-1) - 2 * second @ first.T
        found = jnp.stack(jnp.divmod(jnp.argmin(distance, axis=-1), SIZE), axis=-1)
        place = jnp.stack(jnp.divmod(jnp.arange(SIZE**2), SIZE), axis=-1)
        true = place + pair["offset"]
        shared = jnp.all(true < SIZE, axis=-1)
        right = jnp.all(jnp.abs(found - true) <= 1, axis=-1)
        return jnp.sum(shared & right), jnp.sum(shared)

    right, shared = jax.lax.map(one, pairs)
    return jnp.sum(right) / jnp.sum(shared)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" draws eight times as many pairs."""
    all_seeds, count = seed_range(seed, seeds), 256 if budget == "full" else 32
    got = np.zeros((len(KINDS), seeds, len(COUNTS)))
    for i, s in enumerate(all_seeds):
        for j, anchors in enumerate(COUNTS):
            progress((i + j / len(COUNTS)) / seeds, f"seed {s}, {anchors} anchors")
            rng = np.random.default_rng((s, anchors))
            drawn = [draw(rng, anchors) for _ in range(count)]
            pairs = jax.tree.map(lambda *x: np.stack(x), *drawn)
            pairs = {
                k: v.astype(np.float32 if v.dtype.kind == "f" else int) for k, v in pairs.items()
            }
            for k, kind in enumerate(KINDS):
                got[k, i, j] = float(accuracy(pairs, kind=kind))
    progress(1.0, "done")
    return _result(budget, all_seeds, got)


def _result(
    budget: Budget, seeds: tuple[int, ...], got: Float[np.ndarray, "kinds seeds counts"]
) -> Result:
    ours, without, disagree = got[:, :, COUNTS.index(ANCHORS)]
    measures = tuple(
        Measure(
            name=f"share of pixels matched within one (baseline: {name})",
            method=tuple(ours),
            baseline=tuple(other),
            accept=f"anchors >= {name} + 0.20 on every seed",
            holds=bool(np.all(ours >= other + 0.20)),
        )
        for name, other in (("no anchors", without), ("codes that disagree", disagree))
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="Pixels of a repeated texture, matched",
            x_label="anchors",
            y_label="share matched within one pixel",
            lines=tuple(
                Line(kind, COUNTS, tuple(map(tuple, each))) for kind, each in zip(KINDS, got)
            ),
        ),
    )
