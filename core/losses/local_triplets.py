"""Triplets of local descriptors: patches of two images that match, against those of others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_floating,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from .regions import Matches
from .similarity import pairwise_cosine, pairwise_squared_euclidean

Patches = Float[Array, "patches features"]


def attended_matches(
    first: Patches,
    second: Float[Array, "others features"],
    attention: Float[Array, "patches"] | None = None,
    *,
    ratio: float = 0.9,
    share: float = 0.5,
) -> Matches:
    """Patches that are each other's nearest, clearly so, and attended to.

    `j = argmin_j d_ij`, `i = argmin_i d_ij` and `d_ij <= ratio d_ik` for the second nearest `k`,
    with Euclidean distances `d` of unit vectors, among the patches `i` of the largest attention.

    Args:
      first: local features of one image [patches, features].
      second: of another [others, features].
      attention: how much each patch of the first image is attended to [patches]; all alike for
        None, so that every patch may match.
      ratio: how near the nearest must be, of the distance of the second nearest.
      share: the share of the patches, rounded down, that the attention lets through.

    Returns:
      `Matches` [patches] of the patches of `first`, with cosines for similarities.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Learning Super-Features for Image Retrieval, arXiv 2201.13182, the matching; Coarse-to-
    Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval, arXiv
    2308.04008, whose second stage adds the attention; agrees with `match_attn` in
    `core/losses/super_loss.py` of bassyess/CFCD.

    >>> x = jnp.eye(3)
    >>> matches = attended_matches(x, x[::-1], jnp.array([3.0, 1.0, 2.0]), share=0.7)
    >>> matches.partner.tolist(), matches.is_match.tolist()
    ([2, 1, 0], [True, False, True])
    """
    _check_features(first, "first", second, "second")
    check_range("ratio", ratio, 0, 1)
    check_range("share", share, 0, 1)
    x, y = (safe_normalize(jax.lax.stop_gradient(a)) for a in upcast(first, second))
    squares = pairwise_squared_euclidean(x, y)
    partner, back = jnp.argmin(squares, 1), jnp.argmin(squares, 0)
    chosen = jnp.arange(len(y)) == partner[:, None]
    nearest = jnp.min(squares, 1)
    second_nearest = jnp.min(jnp.where(chosen, jnp.inf, squares), 1)
    # Of two that are equally far, none is the match.
    good = (nearest <= ratio**2 * second_nearest) & (second_nearest > 0)
    good &= back[partner] == jnp.arange(len(x))
    if attention is not None:
        check_floating(attention=attention)
        check_shape("attention", attention, jnp.shape(first)[:1], "[patches], one a row of first")
        good &= _largest(jnp.asarray(attention), int(share * len(x)))
    similarity = jnp.take_along_axis(pairwise_cosine(x, y), partner[:, None], 1)[:, 0]
    return Matches(partner, restore(similarity, first, second), good)


def local_triplet_loss(
    query: Patches,
    positive: Float[Array, "others features"],
    negatives: Float[Array, "images patches_ features"],
    matches: Matches,
    *,
    margin: float = 0.1,
) -> Float[Array, ""]:
    """A patch is nearer to its match in an image of the same place than to any of other places.

    `sum_i sum_n relu(|q_i - p_i|^2 - |q_i - x_in|^2 + margin)` over the matches `(q_i, p_i)` and
    the negative images `n`, with unit vectors and the patch `x_in` of `n` that is nearest to `q_i`.

    Args:
      query: local features of an image [patches, features].
      positive: of another of the same place or object [others, features].
      negatives: of images of others [images, patches_, features].
      matches: for each patch of `positive` the one of `query`: of
        `attended_matches(positive, query, attention)`.
      margin: by how much nearer.

    Returns:
      The loss of the tuple of images [], zero without a match.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Learning Super-Features for Image Retrieval, arXiv 2201.13182; the second stage of
    Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval,
    arXiv 2308.04008. Values and gradients agree with `core/losses/super_loss.py` of bassyess/CFCD,
    whose configuration has the margin 0.1 and six negatives.

    >>> x = jnp.eye(3)
    >>> matches = attended_matches(x, x)
    >>> float(local_triplet_loss(x, x, x[None, :2], matches, margin=0.5))
    1.0
    """
    _check_features(query, "query", positive, "positive")
    check_floating(negatives=negatives)
    shape = (None, None, jnp.shape(query)[1])
    check_shape("negatives", negatives, shape, "[images, patches_, features], as query")
    check(jnp.shape(negatives)[1] > 0, "negatives", "got no patches, takes one or more")
    for name, x in matches._asdict().items():
        check_shape(f"matches.{name}", x, jnp.shape(positive)[:1], "[others], as positive")
    check_range("margin", margin, 0)
    q, p, others = map(safe_normalize, upcast(query, positive, negatives))
    q = q[matches.partner]  # one for every patch of the positive
    near = jnp.sum(jnp.square(q - p), -1)

    def far(x: Patches) -> Float[Array, "others"]:
        at = jnp.argmin(jax.lax.stop_gradient(pairwise_squared_euclidean(q, x)), 1)
        return jnp.sum(jnp.square(q - x[at]), -1)

    cost = jax.nn.relu(near - jax.vmap(far)(others) + margin)
    loss = jnp.sum(jnp.where(matches.is_match, cost, 0))
    return restore(loss, query, positive, negatives)


def _largest(x: Float[Array, "n"], count: int) -> Bool[Array, "n"]:
    """Which are the `count` largest."""
    order = jnp.argsort(-x)
    return jnp.zeros(len(x), bool).at[order[:count]].set(True)


def _check_features(first: Array, name: str, second: Array, other: str) -> None:
    check_floating(**{name: first, other: second})
    check_rank(name, first, 2)
    check_shape(other, second, (None, jnp.shape(first)[1]), f"[others, features], as {name}")
    check(min(len(first), len(second)) > 0, name, "got no patches, takes one or more")
