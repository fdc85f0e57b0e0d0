"""Hard negatives: those of a batch of pairs, and those made for an example."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check_boolean,
    check_count,
    check_positive,
    check_range,
    check_shape,
    restore,
    upcast,
)
from ._shared import rows_before, rows_of_all, softplus
from .batch_pairs import across
from .contrastive import own_cosines
from .pair_sums import check_views
from .pairs import PairMasks, negative
from .similarity import pairwise_cosine


def hard_negative_sigmoid_loss(
    queries: Float[Array, "batch features"],
    keys: Float[Array, "batch features"],
    negatives: Float[Array, "negatives features"] | Float[Array, "batch negatives features"],
    *,
    scale: float | Float[Array, ""] = 10.0,
    bias: float | Float[Array, ""] = -10.0,
) -> Float[Array, "batch"]:
    """The sigmoid loss of a query with its own hard negatives, and with no others of the batch.

    `-log sigmoid(z_+) - sum_n log sigmoid(-z_n)` with `z = scale s + bias` of cosines `s`. Its
    counterpart with a softmax is `info_nce_loss` with negatives for each query.

    Args:
      queries: embeddings, of images or of captions [batch, features].
      keys: what belongs to each query [batch, features].
      negatives: what nearly does, such as captions with one number changed, for each query
        [batch, negatives, features] or shared [negatives, features].
      scale: the inverse temperature, as a rule learned as an exponential [].
      bias: added to every logit, as a rule learned [].

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Hard Negative Contrastive Learning for Fine-Grained Geometric Understanding in Large
    Multimodal Models, arXiv 2505.20152; `Hard_Negative_Training` of THU-KEG/MMGeoLM, where image
    negatives have the sigmoid and text negatives the softmax. Defaults are those of SigLIP; the
    released code draws the bias from a normal distribution.

    >>> x = jnp.array([[1.0, 0.0]])
    >>> loss = hard_negative_sigmoid_loss(x, x, -x, scale=2.0, bias=0.0)
    >>> np.asarray(loss, float).round(3)
    array([0.254])
    """
    near, far = own_cosines(queries, keys, negatives)
    loss = softplus(-(scale * near + bias)) + jnp.sum(softplus(scale * far + bias), -1)
    return restore(loss, queries, keys, negatives)


def hard_negative_triplet_loss(
    queries: Float[Array, "batch features"],
    keys: Float[Array, "batch features"],
    relevant: Bool[Array, "batch keys"] | None = None,
    *,
    margin: float = 0.3,
    negatives: int = 10,
    temperature: float | None = 0.1,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """Triplet loss of pairs with the hardest of the batch's other keys (NGAME).

    `mean_j w_j [s_j - s_+ + margin]_+` over the `k` negatives of largest cosine `s_j`, with the
    weights `w = softmax(s_j 1[violated] / temperature)`.

    Args:
      queries: embeddings of documents [batch, features].
      keys: embeddings of a label of each, in the same order [batch, features].
      relevant: which keys are right for which query, and so no negatives [batch, keys of all
        devices]; the own key alone by default.
      margin: how much more similar the own key is to be.
      negatives: `k`, at most the keys there are.
      temperature: of the weights; None for weights of one.
      chunk_size: look at so many keys at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the keys round that axis rather than gather them.

    Returns:
      One loss a query [batch]; zero without a negative.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: NGAME: Negative Mining-aware Mini-batching for Extreme Classification, arXiv
    2207.04452, Section 3; `TripletMarginLossOHNM` in `ngame/libs/loss.py` of
    Extreme-classification/ngame agrees where a query has `k` negatives; where it has fewer, the
    code takes positives for them.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> loss = hard_negative_triplet_loss(x, jnp.eye(2), margin=0.5)
    >>> np.asarray(loss, float).round(3)
    array([0. , 0.3])
    """
    check_views(queries=queries, keys=keys)
    check_range("margin", margin, 0)
    check_count(negatives=negatives)
    if temperature is not None:
        check_positive(temperature=temperature)
    pairs = across(
        *upcast(queries, keys),
        compare=pairwise_cosine,
        labels=None if relevant is None else _not_relevant(relevant, len(queries), axis_name),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    near = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
    hardest, there = pairs.hardest(negative, negatives)
    cost = jax.nn.relu(jnp.where(there, hardest - near[:, None] + margin, 0))
    if temperature is not None:
        logits = jnp.where(cost > 0, hardest, 0) / temperature
        logits = jnp.where(there, logits, jnp.finfo(pairs.dtype).min)
        cost = cost * jax.nn.softmax(logits, -1)
    loss = jnp.sum(cost, -1) / jnp.maximum(jnp.sum(there, -1), 1)
    return restore(loss, queries, keys)


def _not_relevant(relevant: Any, batch: int, axis_name: str | None) -> PairMasks:
    """The own key as the positive, and as negatives those that are not relevant."""
    total = rows_of_all(batch, axis_name)
    check_shape("relevant", relevant, (batch, total), "[batch, keys of all devices]")
    relevant = jnp.asarray(relevant)
    check_boolean(relevant=relevant)
    index = jnp.arange(batch) + rows_before(batch, axis_name)
    own = index[:, None] == jnp.arange(total)
    return PairMasks(own, ~own & ~relevant)
