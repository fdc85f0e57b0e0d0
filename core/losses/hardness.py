"""Which negatives a contrastive loss listens to, and losses that choose them outright."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check, check_positive, check_range, restore, upcast
from ._shared import softplus
from .batch_pairs import across
from .pair_sums import Temperature, check_views, per_anchor
from .pairs import Block, Pairs, negative
from .similarity import pairwise_cosine

Views = Float[Array, "batch features"]


def _pairs(view1: Any, view2: Any, **engine: Any) -> tuple[Pairs, Float[Array, "batch"]]:
    """The pairs of first views with second ones, and the cosines of the positives [batch]."""
    check_views(view1=view1, view2=view2)
    pairs = across(*upcast(view1, view2), compare=pairwise_cosine, **engine)
    return pairs, pairs.total(lambda b: jnp.where(b.positive, b.values, 0))


def _limit(pairs: Pairs, hard_share: Any) -> Float[Array, "batch"]:
    """The cosine above which a negative is kept: the given share of them, at least one."""
    anchors = len(pairs.anchors[0])
    if hard_share is None:
        return jnp.full(anchors, -jnp.inf, pairs.dtype)
    check(
        isinstance(hard_share, float | int) and 0 < hard_share <= 1,
        "hard_share",
        f"got {hard_share!r}, takes None or a number in (0, 1]",
    )
    count = max(1, round(hard_share * (pairs.size - 1)))
    # Computed anew the last of them may round otherwise, and still is one of them.
    return pairs.ranked(negative, count)[0][:, -1] - 8 * jnp.finfo(pairs.dtype).eps


def hard_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    temperature: Temperature = 0.3,
    hard_share: float | None = 0.0819,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """InfoNCE against the most similar negatives alone.

    `-log(exp(s_ii / t) / (exp(s_ii / t) + sum_{k in H_i} exp(s_ik / t)))` with cosines `s_ik` of
    the first view of `i` and the second of `k`, and `H_i` the share of other examples most similar
    to `i`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`, a number or one for each example [batch].
      hard_share: the share of negatives that is kept (the upper quantile alpha of the paper, whose
        CIFAR value is the default); None for all, which is InfoNCE. Equal ones are kept together.
      chunk_size: look at so many second views at a time; all for None. Those that are kept are
        held all the same.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the second views round that axis rather than gather them.

    Returns:
      One loss an example [batch]; zero for a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Understanding the Behaviour of Contrastive Loss, arXiv 2012.09740, Eq. 1 and 9.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> np.asarray(hard_contrastive_loss(x, x, temperature=0.5, hard_share=0.5), float).round(3)
    array([0.127, 0.24 , 0.127])
    """
    pairs, near = _pairs(view1, view2, chunk_size=chunk_size, axis_name=axis_name, ring=ring)
    scale = 1 / per_anchor("temperature", temperature, len(view1), pairs.dtype)
    lowest = jnp.finfo(pairs.dtype).min

    def odds(b: Block, near: Array, scale: Array, limit: Array) -> Array:
        return jnp.where(b.values <= limit, lowest, scale * (b.values - near))

    loss = softplus(pairs.log_sum_exp(odds, negative, near, scale, _limit(pairs, hard_share)))
    return restore(loss, view1, view2)


def simple_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    negative_weight: float | Array = 1.0,
    hard_share: float | None = None,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """The contrastive loss without hardness: every negative pushed alike.

    `-s_ii + w sum_{k in H_i} s_ik` with cosines, as in `hard_contrastive_loss`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      negative_weight: `w` (lambda in the paper).
      hard_share: the share of negatives that is kept; None for all.
      chunk_size: look at so many second views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the second views round that axis rather than gather them.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Understanding the Behaviour of Contrastive Loss, arXiv 2012.09740, Eq. 3, and with
    `hard_share` its explicit hard version (Section 5.1).

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> simple_contrastive_loss(x, x).tolist()
    [-2.0, -1.0, -2.0]
    """
    check_range("negative_weight", negative_weight, 0)
    pairs, near = _pairs(view1, view2, chunk_size=chunk_size, axis_name=axis_name, ring=ring)

    def kept(b: Block, limit: Array) -> Array:
        return jnp.where(b.negative & (b.values > limit), b.values, 0)

    loss = negative_weight * pairs.total(kept, _limit(pairs, hard_share)) - near
    return restore(loss, view1, view2)


def relative_penalty(
    view1: Views, view2: Views, *, temperature: float = 0.3, axis_name: str | None = None
) -> Float[Array, "batch others"]:
    """How InfoNCE spreads its push over the negatives of each anchor.

    `r_ij = exp(s_ij / t) / sum_{k != i} exp(s_ik / t)`, the size of the gradient with respect to
    `s_ij` over that with respect to the positive's `s_ii`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`.
      axis_name: the mesh axis whose devices share the batch; every device has the rows of its own
        anchors.

    Returns:
      Distributions over the negatives, zero at the positive [batch, second views of all].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Understanding the Behaviour of Contrastive Loss, arXiv 2012.09740, Eq. 5.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> np.asarray(relative_penalty(x, x, temperature=0.5), float).round(3)
    array([[0.   , 0.881, 0.119],
           [0.5  , 0.   , 0.5  ],
           [0.119, 0.881, 0.   ]])
    """
    check_positive(temperature=temperature)
    pairs, _ = _pairs(view1, view2, axis_name=axis_name)
    total = pairs.log_sum_exp(lambda b: b.values / temperature, negative)
    block = pairs.dense
    logits = jnp.where(block.negative, block.values / temperature - total[:, None], 0)
    return restore(jnp.where(block.negative, jnp.exp(logits), 0), view1, view2)
