"""Average precision made smooth: ranks as sums of sigmoids of differences of similarities.

Every pair of references is compared for every anchor, one anchor at a time in memory.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import check, check_positive, restore
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, References
from .pairs import Labels, Pairs
from .similarity import SIMILARITIES, Similarity, named

Variant = Literal["O", "Ds", "Dq", "Iu", "Ib"]


def _of_ranks(
    pairs: Pairs, temperature: float, includes_anchor: bool, cost: Callable[..., Array]
) -> PerAnchor:
    """The mean of `cost` over the positives of each anchor; zero without any.

    `cost(ahead, ahead_positive, ahead_negative)` [references] has how many references, smoothly
    counted, are more similar to the anchor than each is, of all, of positives and of negatives.
    """
    block = pairs.dense
    positive = block.positive
    if includes_anchor and pairs.exclude_self:
        positive |= pairs.anchors[2][:, None] == block.number[None]

    @jax.checkpoint
    def one(row: tuple[Array, Array, Array]) -> Array:
        values, near, far = row
        above = jax.nn.sigmoid((values[None] - values[:, None]) / temperature)
        above = jnp.where(jnp.eye(len(values), dtype=bool), 0, above)
        counts = above @ jnp.stack([near | far, near, far], 1).astype(above.dtype)
        return jnp.sum(jnp.where(near, cost(*counts.T), 0)) / jnp.maximum(jnp.sum(near), 1)

    loss = jax.lax.map(one, (block.values, positive, block.negative))
    return jnp.where(jnp.any(block.positive, 1), loss, 0)


def smooth_ap_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    temperature: float = 0.01,
    includes_anchor: bool = False,
    similarity: str | Similarity = "cosine",
    axis_name: str | None = None,
) -> PerAnchor:
    """Smooth-AP: one minus the average precision of each anchor's ranking, made smooth.

    `1 - mean_p (1 + sum_{q != p} g(s_aq - s_ap)) / (1 + sum_{j != p} g(s_aj - s_ap))` with
    positives `p` and `q`, all references `j` and `g(x) = sigmoid(x / temperature)`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      temperature: tau in the paper.
      includes_anchor: whether an anchor finds itself, as a positive, as in the authors' code.
      similarity: "cosine", "dot" or a function of two arrays of embeddings.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an anchor [batch]; zero for one without positives.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, arXiv 2007.12163,
    Eq. 6 and 7; `Smooth_AP_loss.py` of Andrew-Brown1/Smooth_AP for `includes_anchor=True`, which
    `SmoothAPLoss` of KevinMusgrave/pytorch-metric-learning follows (right where a batch has as many
    classes as examples of each).

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    >>> np.asarray(smooth_ap_loss(x, jnp.array([0, 0, 1, 2])), float).round(3)
    array([0.5  , 0.667, 0.   , 0.   ])
    """
    check_positive(temperature=temperature)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("similarity", similarity, SIMILARITIES),
        axis_name=axis_name,
    )
    loss = _of_ranks(
        pairs, temperature, includes_anchor, lambda ahead, near, _: 1 - (1 + near) / (1 + ahead)
    )
    return restore(loss, embeddings)


def pnp_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    variant: Variant = "O",
    temperature: float = 0.01,
    scale: float = 2.0,
    power: float = 1.0,
    includes_anchor: bool = False,
    similarity: str | Similarity = "cosine",
    axis_name: str | None = None,
) -> PerAnchor:
    """PNP: penalize the negatives that stand before positives, and nothing else.

    `mean_p f(r_p)` with `r_p = sum_n sigmoid((s_an - s_ap) / temperature)` and `f(r)` by variant:
    `r` ("O"), `(1 + r) log(1 + r)` ("Iu"), `(b r - log(1 + b r)) / b^2` ("Ib"), `log(1 + r)` ("Ds")
    or `1 - (1 + r)^-power` ("Dq"). The gradient grows with `r` in the "I" ones and shrinks in the
    "D" ones.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      variant: "O", "Iu", "Ib", "Ds" or "Dq".
      temperature: of the sigmoid.
      scale: `b` of "Ib".
      power: alpha of "Dq".
      includes_anchor: whether an anchor finds itself, as a positive, as in the authors' code.
      similarity: "cosine", "dot" or a function of two arrays of embeddings.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an anchor [batch]; zero for one without positives.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances
    before Positive Ones is Enough, arXiv 2102.04640, Section 3; `PNPLoss` of
    KevinMusgrave/pytorch-metric-learning agrees for `includes_anchor=True`.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    >>> np.asarray(pnp_loss(x, jnp.array([0, 0, 1, 2])), float).round(3)
    array([1., 2., 0., 0.])
    """
    check_positive(temperature=temperature, scale=scale, power=power)
    variants: dict[str, Callable[[Array], Array]] = {
        "O": lambda r: r,
        "Ds": jnp.log1p,
        "Dq": lambda r: -jnp.expm1(-power * jnp.log1p(r)),
        "Iu": lambda r: (1 + r) * jnp.log1p(r),
        "Ib": lambda r: (scale * r - jnp.log1p(scale * r)) / scale**2,
    }
    known = ", ".join(map(repr, variants))
    check(variant in variants, "variant", f"got {variant!r}, takes {known}")
    penalty = variants[variant]
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("similarity", similarity, SIMILARITIES),
        axis_name=axis_name,
    )
    loss = _of_ranks(pairs, temperature, includes_anchor, lambda _all, _near, far: penalty(far))
    return restore(loss, embeddings)
