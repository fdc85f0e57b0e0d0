"""Other images as positives: a memory of all embeddings with pseudo-labels that are kept online."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_range,
    check_rank,
    check_shape,
    safe_divide,
    safe_normalize,
    upcast,
)
from .similarity import pairwise_dot, pairwise_squared_euclidean


class PseudoLabelBank(NamedTuple):
    """One entry an example of the training set, and the clusters that give the labels.

    Attributes:
      embeddings: the latest unit embedding of each example [examples, features].
      labels: the cluster of each [examples].
      centroids: means of the clusters' embeddings [clusters, features].
    """

    embeddings: Float[Array, "examples features"]
    labels: Int[Array, "examples"]
    centroids: Float[Array, "clusters features"]


def pseudo_label_bank_init(
    embeddings: Float[Array, "examples features"],
    labels: Int[Array, "examples"],
    *,
    clusters: int,
) -> PseudoLabelBank:
    """The bank before training, from embeddings of all examples and a first clustering of them.

    Embeddings are made unit vectors; the centroids are the means of their clusters.

    Args:
      embeddings: of all examples [examples, features].
      labels: the cluster of each, such as of k-means [examples].
      clusters: how many clusters there are; those of no example start at the origin.

    Returns:
      `PseudoLabelBank` of arrays [examples, features], [examples] and [clusters, features].

    Raises:
      ValueError: if a shape, a dtype or `clusters` does not fit.

    Source: Delving into Inter-Image Invariance for Unsupervised Visual Representations, arXiv
    2008.11702; `init_memory` in `interclr_memory.py` of open-mmlab/mmselfsup.

    >>> x = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    >>> pseudo_label_bank_init(x, jnp.array([0, 1, 0]), clusters=2).centroids.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(embeddings)[:1], "[examples]")
    check_count(clusters=clusters)
    x = safe_normalize(jnp.asarray(embeddings, jnp.float32))
    labels = jnp.asarray(labels, jnp.int32)
    return pseudo_label_centroids(
        PseudoLabelBank(x, labels, jnp.zeros((clusters, x.shape[1]), x.dtype))
    )


def pseudo_label_centroids(bank: PseudoLabelBank) -> PseudoLabelBank:
    """The bank with its centroids computed anew from its embeddings and labels.

    `c_k = mean of the embeddings with label k`; the centroid of an empty cluster stays, so that
    embeddings may come back to it.

    Args:
      bank: the state, with arrays [examples, ...] and [clusters, features].

    Returns:
      The new `PseudoLabelBank`.

    Raises:
      ValueError: if `labels` is not an integer for each of the embeddings.

    Source: Delving into Inter-Image Invariance for Unsupervised Visual Representations, arXiv
    2008.11702, at intervals of some steps; `update_centroids_memory` in `interclr_memory.py` of
    open-mmlab/mmselfsup, which also dissolves clusters of fewer than 20 and splits the largest.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> bank = PseudoLabelBank(x, jnp.array([1, 1]), jnp.full((2, 2), 7.0))
    >>> pseudo_label_centroids(bank).centroids.tolist()
    [[7.0, 7.0], [0.5, 0.5]]
    """
    check_integer(labels=bank.labels)
    check_shape("labels", bank.labels, jnp.shape(bank.embeddings)[:1], "[examples]")
    bank = PseudoLabelBank(*map(jnp.asarray, bank))
    x, old = bank.embeddings, bank.centroids
    total = jax.ops.segment_sum(x, bank.labels, len(old))
    count = jax.ops.segment_sum(jnp.ones(len(x), x.dtype), bank.labels, len(old))[:, None]
    return bank._replace(centroids=jnp.where(count > 0, safe_divide(total, count), old))


def pseudo_label_bank_update(
    bank: PseudoLabelBank,
    keys: Float[Array, "batch features"],
    index: Int[Array, "batch"],
    *,
    momentum: float = 1.0,
    is_nearest: bool = True,
) -> PseudoLabelBank:
    """The bank after a step: new embeddings of a batch, and for each the nearest centroid's label.

    `f_i <- normalize((1 - m) f_i + m k_i)`, `label_i <- argmin_k |f_i - c_k|`.

    Args:
      bank: the state before.
      keys: embeddings of the batch, constants for the gradient [batch, features].
      index: the number of each example in the training set, no two alike [batch].
      momentum: `m`, the weight of the new embedding.
      is_nearest: False takes the centroid of the largest inner product, whatever its length, as the
        released code does.

    Returns:
      The new `PseudoLabelBank`.

    Raises:
      ValueError: if a shape, a dtype or `momentum` does not fit.

    Source: Delving into Inter-Image Invariance for Unsupervised Visual Representations, arXiv
    2008.11702, online pseudo-labels; `update_samples_memory` in `interclr_memory.py` of
    open-mmlab/mmselfsup for `is_nearest=False`.

    >>> bank = pseudo_label_bank_init(jnp.eye(2), jnp.array([0, 1]), clusters=2)
    >>> pseudo_label_bank_update(bank, jnp.array([[0.1, 0.9]]), jnp.array([0])).labels.tolist()
    [1, 1]
    """
    check_floating(keys=keys)
    check_shape("keys", keys, (None, jnp.shape(bank.embeddings)[1]), "[batch, features]")
    check_integer(index=index)
    check_shape("index", index, jnp.shape(keys)[:1], "[batch], one an example")
    check_range("momentum", momentum, 0, 1)
    bank = PseudoLabelBank(*map(jnp.asarray, bank))
    x = bank.embeddings
    new = safe_normalize(jax.lax.stop_gradient(keys).astype(x.dtype))
    new = safe_normalize((1 - momentum) * x[index] + momentum * new)
    if is_nearest:
        nearest = jnp.argmin(pairwise_squared_euclidean(new, bank.centroids), 1)
    else:
        nearest = jnp.argmax(pairwise_dot(new, bank.centroids), 1)
    return bank._replace(
        embeddings=x.at[index].set(new),
        labels=bank.labels.at[index].set(nearest.astype(bank.labels.dtype)),
    )


def pseudo_label_samples(
    key: Array,
    bank: PseudoLabelBank,
    queries: Float[Array, "batch features"],
    index: Int[Array, "batch"],
    *,
    negatives: int,
    pool: int | None = None,
) -> tuple[Int[Array, "batch"], Int[Array, "batch negatives"]]:
    """Which entries of the bank are a query's positive and its semi-hard negatives.

    The positive is drawn from the others with the pseudo-label of the query's example. The
    negatives are drawn, each anew, from the `pool` entries of other labels that are most similar to
    the query: a pool as small as `negatives` has hard negatives, one of all entries random ones.

    Args:
      key: a typed key [].
      bank: the state.
      queries: embeddings of the batch [batch, features].
      index: the number of each example in the training set [batch].
      negatives: how many negatives are drawn.
      pool: how many of the most similar entries they are drawn from; all for None.

    Returns:
      The numbers of the positives [batch], its own for an example alone in its cluster, and of the
      negatives [batch, negatives]; where all examples have one label these are no negatives.

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Delving into Inter-Image Invariance for Unsupervised Visual Representations, arXiv
    2008.11702, semi-hard sampling. `interclr_moco.py` of open-mmlab/mmselfsup takes the pool from
    all entries and draws again what has the query's label, and a positive may be the example.

    >>> bank = pseudo_label_bank_init(jnp.eye(4), jnp.array([0, 0, 1, 2]), clusters=3)
    >>> positive, negative = pseudo_label_samples(
    ...     jax.random.key(0), bank, jnp.eye(4)[:1], jnp.array([0]), negatives=5
    ... )
    >>> int(positive[0]), sorted(set(negative[0].tolist()))
    (1, [2, 3])
    """
    check_key(key=key)
    check_floating(queries=queries)
    examples, features = jnp.shape(bank.embeddings)
    check_shape("queries", queries, (None, features), "[batch, features], as the bank")
    check_integer(index=index)
    check_shape("index", index, jnp.shape(queries)[:1], "[batch], one an example")
    check_count(negatives=negatives)
    pool = examples if pool is None else pool
    check_count(pool=pool)
    check(pool <= examples, "pool", f"got {pool}, takes at most the {examples} of the bank")
    bank = PseudoLabelBank(*map(jnp.asarray, bank))
    index = jnp.asarray(index)
    mine = bank.labels[index][:, None] == bank.labels[None]
    other = jnp.arange(examples)[None] != index[:, None]
    first, second = jax.random.split(key)
    # The largest of random numbers is a draw; an example's own stands below all others.
    noise = jax.random.uniform(first, mine.shape, jnp.float32)
    positive = jnp.argmax(jnp.where(mine, noise + other, -1), 1)
    x, memory = upcast(queries, bank.embeddings)
    similar = jnp.where(mine, -jnp.inf, pairwise_dot(jax.lax.stop_gradient(x), memory))
    _, nearest = jax.lax.top_k(similar, pool)
    count = jnp.minimum(jnp.sum(~mine, 1, keepdims=True), pool)
    draw = jax.random.uniform(second, (len(index), negatives), jnp.float32)
    place = jnp.minimum((draw * count).astype(jnp.int32), jnp.maximum(count - 1, 0))
    return positive, jnp.take_along_axis(nearest, place, 1)
