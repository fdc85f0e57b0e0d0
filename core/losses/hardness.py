"""Which negatives a contrastive loss listens to, and losses that choose them outright."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import check, check_positive, check_range, restore, upcast
from ._shared import log_sum_exp, softplus
from .pair_sums import check_views
from .similarity import pairwise_cosine

Views = Float[Array, "batch features"]


def _cosines(view1: Any, view2: Any) -> tuple[Array, Array, Array]:
    """Cosines of all pairs [batch, batch], those of the positives [batch], who is a negative."""
    check_views(view1=view1, view2=view2)
    cosine = pairwise_cosine(*upcast(view1, view2))
    return cosine, jnp.diagonal(cosine), ~jnp.eye(len(cosine), dtype=bool)


def _hardest(
    cosine: Float[Array, "batch batch"], others: Bool[Array, "batch batch"], hard_share: Any
) -> Bool[Array, "batch batch"]:
    """The given share of negatives, at least one, that are most similar to the anchor."""
    if hard_share is not None:
        check(
            isinstance(hard_share, float | int) and 0 < hard_share <= 1,
            "hard_share",
            f"got {hard_share!r}, takes None or a number in (0, 1]",
        )
    if hard_share is None or len(cosine) == 1:
        return others
    count = max(1, round(hard_share * (len(cosine) - 1)))
    values = jax.lax.stop_gradient(jnp.where(others, cosine, -jnp.inf))
    return others & (values >= jax.lax.top_k(values, count)[0][:, -1:])


def hard_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    temperature: float | Array = 0.3,
    hard_share: float | None = 0.0819,
) -> Float[Array, "batch"]:
    """InfoNCE against the most similar negatives alone.

    `-log(exp(s_ii / t) / (exp(s_ii / t) + sum_{k in H_i} exp(s_ik / t)))` with cosines `s_ik` of
    the first view of `i` and the second of `k`, and `H_i` the share of other examples most similar
    to `i`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`.
      hard_share: the share of negatives that is kept (the upper quantile alpha of the paper, whose
        CIFAR value is the default); None for all, which is InfoNCE.

    Returns:
      One loss an example [batch]; zero for a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Understanding the Behaviour of Contrastive Loss, arXiv 2012.09740, Eq. 1 and 9.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> np.asarray(hard_contrastive_loss(x, x, temperature=0.5, hard_share=0.5), float).round(3)
    array([0.127, 0.24 , 0.127])
    """
    check_positive(temperature=temperature)
    cosine, near, others = _cosines(view1, view2)
    kept = _hardest(cosine, others, hard_share)
    loss = softplus(log_sum_exp((cosine - near[:, None]) / temperature, kept))
    return restore(loss, view1, view2)


def simple_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    negative_weight: float | Array = 1.0,
    hard_share: float | None = None,
) -> Float[Array, "batch"]:
    """The contrastive loss without hardness: every negative pushed alike.

    `-s_ii + w sum_{k in H_i} s_ik` with cosines, as in `hard_contrastive_loss`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      negative_weight: `w` (lambda in the paper).
      hard_share: the share of negatives that is kept; None for all.

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
    cosine, near, others = _cosines(view1, view2)
    kept = _hardest(cosine, others, hard_share)
    loss = negative_weight * jnp.sum(jnp.where(kept, cosine, 0), -1) - near
    return restore(loss, view1, view2)


def relative_penalty(
    view1: Views, view2: Views, *, temperature: float = 0.3
) -> Float[Array, "batch batch"]:
    """How InfoNCE spreads its push over the negatives of each anchor.

    `r_ij = exp(s_ij / t) / sum_{k != i} exp(s_ik / t)`, the size of the gradient with respect to
    `s_ij` over that with respect to the positive's `s_ii`.

    Args:
      view1: embeddings of one view of each example, the anchors [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`.

    Returns:
      Distributions over the negatives, zero on the diagonal [batch, batch].

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
    cosine, _, others = _cosines(view1, view2)
    logits = cosine / temperature
    total = log_sum_exp(logits, others, keepdims=True)
    share = jnp.exp(jnp.where(others, logits - total, 0))
    return restore(jnp.where(others, share, 0), view1, view2)
