"""Two encoders, one space: images and texts, queries and documents."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check_floating, check_range, check_rank, check_shape, restore, upcast
from ._shared import softplus
from .batch_pairs import across, in_batch
from .pair_sums import Temperature, check_views, decoupled, per_anchor
from .pairs import Labels, Pairs, either
from .similarity import pairwise_cosine

Views = Float[Array, "batch features"]


def symmetric_info_nce_loss(
    first: Views,
    second: Views,
    *,
    temperature: Temperature = 0.07,
    label_smoothing: float = 0.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """The loss of CLIP: each half of a pair must find the other in the batch, both ways.

    The mean of `-sum_j q_j log softmax_j(s_aj / t)` for the first half as anchor and for the
    second, with cosines `s` and target `q = (1 - e) onehot + e / batch`.

    Args:
      first: embeddings of one half of each pair (images) [batch, features].
      second: embeddings of the other half (texts) [batch, features].
      temperature: `t`, a number or one for each pair [batch]; CLIP learns `log(1 / t)`.
      label_smoothing: `e`.
      chunk_size: look at so many embeddings at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the embeddings round that axis rather than gather them.

    Returns:
      One loss a pair [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    Figure 3; with label smoothing, Sample4Geo, arXiv 2303.11851 (`sample4geo/loss.py` of
    Skyy93/Sample4Geo agrees, values and gradients).

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(symmetric_info_nce_loss(x, x, temperature=0.5), float).round(3)
    array([0.127, 0.127])
    """
    check_range("label_smoothing", label_smoothing, 0, 1)

    def one_way(pairs: Pairs, scale: Array, total: Array, near: Array) -> Array:
        every = pairs.total(lambda b: jnp.where(either(b), b.values, 0)) / pairs.count(either)
        return total - scale * ((1 - label_smoothing) * near + label_smoothing * every)

    return _both_ways(
        one_way, first, second, temperature, chunk_size=chunk_size, axis_name=axis_name, ring=ring
    )


def cross_modal_alignment_loss(
    first: Views,
    second: Views,
    *,
    temperature: Temperature = 0.01,
    energy_weight: float | Float[Array, ""] = 1e-3,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """CMA: the loss of CLIP with less weight on the denominator, which closes the modality gap.

    The mean of `-s_a+ / t + (1 - l) log sum_j exp(s_aj / t)` for the first half as anchor and for
    the second, with cosines `s`. The share `l` that is left out is the likelihood of the anchor
    under a model of energy `-log sum_j exp(s_aj / t)`.

    Args:
      first: embeddings of one half of each pair (images) [batch, features].
      second: embeddings of the other half (texts) [batch, features].
      temperature: `t`, a number or one for each pair [batch]; that of a trained CLIP by default.
      energy_weight: `l`; 0 for the loss of CLIP, 1 for nothing but the cosine of the pair.
      chunk_size: look at so many embeddings at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the embeddings round that axis rather than gather them.

    Returns:
      One loss a pair [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Enhanced OoD Detection through Cross-Modal Alignment of Multi-Modal Representations,
    arXiv 2503.18817; `utils/train_utils.py` of ma-kjh/CMA-OoDD agrees in values and gradients.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = cross_modal_alignment_loss(x, x, temperature=0.5, energy_weight=0.1)
    >>> np.asarray(loss, float).round(3)
    array([-0.086, -0.086])
    """
    check_range("energy_weight", energy_weight, 0, 1)

    def one_way(_: Pairs, scale: Array, total: Array, near: Array) -> Array:
        return (1 - energy_weight) * total - scale * near

    return _both_ways(
        one_way, first, second, temperature, chunk_size=chunk_size, axis_name=axis_name, ring=ring
    )


def _both_ways(
    one_way: Callable[[Pairs, Array, Array, Array], Array],
    first: Any,
    second: Any,
    temperature: Any,
    **engine: Any,
) -> Float[Array, "batch"]:
    """The mean of `one_way` over the two halves as anchors.

    `one_way(pairs, scale, total, near)` is given the inverse temperature, the log-sum-exp of scaled
    cosines over the batch and the cosine of the pair, each [batch].
    """
    check_views(first=first, second=second)
    a, b = upcast(first, second)

    def loss(x: Array, y: Array) -> Array:
        pairs = across(x, y, compare=pairwise_cosine, **engine)
        scale = 1 / per_anchor("temperature", temperature, len(x), pairs.dtype)
        total = pairs.log_sum_exp(lambda b, c: c * b.values, either, scale)
        near = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
        return one_way(pairs, scale, total, near)

    return restore((loss(a, b) + loss(b, a)) / 2, first, second)


def siglip_loss(
    first: Views,
    second: Views,
    *,
    scale: float | Float[Array, ""] = 10.0,
    bias: float | Float[Array, ""] = -10.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """SigLIP: every pair of the batch is its own yes-or-no question.

    `-sum_j log sigmoid(z_aj (scale s_aj + bias))` with cosines `s` and `z = 1` for the two
    halves of a pair, `-1` for all others.

    Args:
      first: embeddings of one half of each pair (images) [batch, features].
      second: embeddings of the other half (texts) [batch, features].
      scale: the inverse temperature, as a rule learned as an exponential [].
      bias: added to every logit, as a rule learned [].
      chunk_size: look at so many embeddings at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the embeddings round that axis rather than gather them.

    Returns:
      One loss a pair [batch]; their mean is the paper's.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343, Eq. of Section 3.2 and
    Algorithm 1.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(siglip_loss(x, x), float).round(3)
    array([0.693, 0.693])
    """
    check_views(first=first, second=second)
    pairs = across(
        *upcast(first, second),
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    rows = jnp.ones(len(first), pairs.dtype)

    def term(b: Any, scale: Array, bias: Array) -> Array:
        logits = scale * b.values + bias
        cost = softplus(jnp.where(b.positive, -logits, logits))
        return jnp.where(either(b), cost, 0)

    return restore(pairs.total(term, rows * scale, rows * bias), first, second)


def decoupled_softmax_loss(
    queries: Float[Array, "batch features"],
    keys: Float[Array, "keys features"],
    labels: Labels,
    key_labels: Labels | None = None,
    *,
    temperature: Temperature = 0.05,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """Decoupled softmax (DEXML): each positive against the negatives, not against other positives.

    `mean_p log(1 + sum_n exp((s_an - s_ap) / t))` with cosines `s`.

    Args:
      queries: embeddings [batch, features].
      keys: embeddings of labels or documents [keys, features].
      labels: which keys belong to each query: `PairMasks`, or labels as for the other losses
        [batch] with `key_labels` [keys].
      key_labels: labels of the keys [keys]; none with `PairMasks`.
      temperature: `t`, a number or one for each query [batch].
      chunk_size: look at so many keys at a time; all for None.
      axis_name: the mesh axis over which the keys are spread.
      ring: send the keys round that axis rather than gather them.

    Returns:
      One loss a query [batch]; zero for a query without positives.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Dual-Encoders for Extreme Multi-Label Classification, arXiv 2310.10636, the decoupled
    softmax; `losses.py` of nilesh2797/DEXML agrees in values and gradients.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = decoupled_softmax_loss(x, x, jnp.array([0, 1]), jnp.array([0, 1]), temperature=0.5)
    >>> np.asarray(loss, float).round(3)
    array([0.127, 0.127])
    """
    check_floating(queries=queries)
    check_rank("queries", queries, 2)
    check_floating(keys=keys)
    check_shape("keys", keys, (None, jnp.shape(queries)[1]), "[keys, features], as queries")
    pairs = in_batch(
        queries,
        labels,
        keys,
        key_labels,
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    scale = 1 / per_anchor("temperature", temperature, len(queries), pairs.dtype)
    return restore(decoupled(pairs, scale), queries, keys)
