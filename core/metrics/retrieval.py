"""Nearest-neighbour retrieval, and how consistent one threshold is for all classes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..losses.similarity import SIMILARITIES, Similarity, named, pairwise_cosine
from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_range,
    check_rank,
    check_shape,
    safe_divide,
    upcast,
)
from .ranking import hit_at_k, map_at_r, precision_at_k, r_precision


class RetrievalScores(NamedTuple):
    """What `retrieval_scores` measures, for each query.

    Attributes:
      hit_at_k: whether a relevant one is among the k nearest (Recall@k) [depths, queries].
      precision_at_1: whether the nearest is relevant [queries].
      r_precision: precision at the number of relevant ones [queries].
      map_at_r: mean average precision at the number of relevant ones [queries].
      relevant: the number of relevant references [queries].
    """

    hit_at_k: Float[Array, "depths queries"]
    precision_at_1: Float[Array, "queries"]
    r_precision: Float[Array, "queries"]
    map_at_r: Float[Array, "queries"]
    relevant: Float[Array, "queries"]


def retrieval_scores(
    queries: Float[Array, "queries features"],
    labels: Int[Array, "queries"],
    references: Float[Array, "references features"] | None = None,
    reference_labels: Int[Array, "references"] | None = None,
    *,
    k: tuple[int, ...] = (1, 2, 4, 8),
    similarity: str | Similarity = "cosine",
    chunk_size: int | None = 256,
) -> RetrievalScores:
    """Recall@k, R-precision and MAP@R of nearest-neighbour retrieval.

    Every query ranks all references by similarity; relevant are those of its label. Without
    references the queries are looked up among themselves, each without itself.

    Args:
      queries: embeddings [queries, features].
      labels: the class of each query [queries].
      references: embeddings to be retrieved [references, features].
      reference_labels: their classes [references].
      k: depths for Recall@k.
      similarity: "cosine", "dot" or a function of two arrays of embeddings.
      chunk_size: how many queries are looked up at a time; all for None. It bounds the memory to
        `chunk_size` rows of similarities.

    Returns:
      `RetrievalScores`, zero for a query without relevant references; in float32.

    Raises:
      ValueError: if a shape, a dtype or a depth does not fit.

    Source: A Metric Learning Reality Check, arXiv 2003.08505, Section 3.1, for R-precision and
    MAP@R; Deep Metric Learning via Lifted Structured Feature Embedding, arXiv 1511.06452, for
    Recall@k.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> retrieval_scores(x, jnp.array([0, 0, 1, 0]), k=(1, 2)).map_at_r.tolist()
    [1.0, 1.0, 0.0, 0.25]
    """
    check_floating(queries=queries)
    check_rank("queries", queries, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(queries)[:1], "[queries]")
    own = references is None
    if references is None:
        references, reference_labels = queries, labels
    check_floating(references=references)
    check_shape("references", references, (None, jnp.shape(queries)[1]), "as queries")
    if reference_labels is None:
        raise ValueError("reference_labels: got None, takes the classes of the references")
    check_integer(reference_labels=reference_labels)
    check_shape("reference_labels", reference_labels, jnp.shape(references)[:1], "[references]")
    count = jnp.shape(references)[0]
    for depth in k:
        good = isinstance(depth, int) and 0 < depth <= count
        check(good, "k", f"got {k!r}, takes integers from 1 to {count}, the number of references")
    good = chunk_size is None or (isinstance(chunk_size, int) and chunk_size > 0)
    check(good, "chunk_size", f"got {chunk_size!r}, takes None or a positive integer")
    compare = named("similarity", similarity, SIMILARITIES)
    x, y = upcast(queries, references)
    classes = jnp.asarray(reference_labels)

    def look_up(row: Any) -> RetrievalScores:
        query, label, number = row
        scores = compare(query[None], y)
        relevant = (classes == label)[None]
        if own:
            itself = jnp.arange(count)[None] == number
            scores, relevant = jnp.where(itself, -jnp.inf, scores), relevant & ~itself
        found = [hit_at_k(scores, relevant, k=depth)[0] for depth in k]
        return RetrievalScores(
            jnp.stack(found) if found else jnp.zeros(0),
            precision_at_k(scores, relevant, k=1)[0],
            r_precision(scores, relevant)[0],
            map_at_r(scores, relevant)[0],
            jnp.sum(relevant, dtype=jnp.float32),
        )

    rows = (x, jnp.asarray(labels), jnp.arange(len(x)))
    out = jax.lax.map(look_up, rows, batch_size=min(chunk_size or len(x), len(x)))
    return out._replace(hit_at_k=out.hit_at_k.T)


def threshold_inconsistency(
    embeddings: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    *,
    classes: int,
    false_accept_range: tuple[float, float] = (1e-2, 1e-1),
    thresholds: int = 100,
    worst_share: float | None = None,
) -> Float[Array, ""]:
    """OPIS: how differently the classes fare under one threshold of distance.

    `mean_i mean_t (U_i(t) - mean_j U_j(t))^2` with the utility of a class at threshold `t` the
    harmonic mean of its shares of positive pairs accepted and of negative pairs rejected. The
    thresholds are evenly spaced between those at which the share of all negative pairs accepted is
    at the ends of `false_accept_range`. Angular distances; the memory is that of all pairs.

    Args:
      embeddings: embeddings [batch, features].
      labels: class of each, from 0 on [batch].
      classes: the number of classes; those without a positive or a negative pair do not count.
      false_accept_range: the range of false acceptance rates that fixes that of the thresholds.
      thresholds: how many thresholds.
      worst_share: for epsilon-OPIS, the share of classes, those of the lowest mean utility, that
        are compared with the mean of all; None for all.

    Returns:
      The inconsistency [], zero where all classes behave alike.

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Threshold-Consistent Margin Loss for Open-World Deep Metric Learning, arXiv 2307.04047,
    the definitions of OPIS and epsilon-OPIS; the calibration range is an argument, as the paper
    sets it by data set.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> print(f"{threshold_inconsistency(x, jnp.array([0, 0, 1, 1]), classes=2):.3f}")
    0.000
    """
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(embeddings)[:1], "[batch], one an embedding")
    check_count(classes=classes)
    low, high = false_accept_range
    check(
        0 <= low < high <= 1, "false_accept_range", f"got {(low, high)}, takes 0 <= low < high <= 1"
    )
    good = isinstance(thresholds, int) and thresholds > 1
    check(good, "thresholds", f"got {thresholds!r}, takes an integer above one")
    if worst_share is not None:
        check_range("worst_share", worst_share, 0, 1, open_low=True)
    x = upcast(embeddings)
    labels = jnp.asarray(labels)
    distance = jnp.arccos(jnp.clip(pairwise_cosine(x, x), -1, 1))
    same = labels[:, None] == labels[None]
    different = ~same
    same &= ~jnp.eye(len(x), dtype=bool)

    apart = jnp.sort(jnp.where(different, distance, jnp.inf).reshape(-1))
    number = jnp.sum(different)

    def accepting(rate: float) -> Array:
        place = jnp.clip(jnp.ceil(rate * number).astype(int) - 1, 0, apart.size - 1)
        return jnp.where(number > 0, apart[place], 0)

    at = jnp.linspace(accepting(low), accepting(high), thresholds)

    # The first threshold that accepts each pair; one count for each class and threshold.
    accepted = jnp.searchsorted(at, distance)

    def share(pairs: Array) -> tuple[Array, Array]:
        places = labels[:, None] * (thresholds + 1) + accepted
        empty = jnp.zeros(classes * (thresholds + 1), x.dtype)
        counts = empty.at[places.reshape(-1)].add(pairs.reshape(-1).astype(x.dtype))
        counts = counts.reshape(classes, -1)
        total = jnp.sum(counts, -1, keepdims=True)
        return safe_divide(jnp.cumsum(counts, -1)[:, :-1], total), total[:, 0]

    (hits, positives), (false, negatives) = share(same), share(different)
    utility = safe_divide(2 * hits * (1 - false), hits + 1 - false)
    counted = (positives > 0) & (negatives > 0)
    mean = safe_divide(counted.astype(x.dtype) @ utility, jnp.sum(counted).astype(x.dtype))
    spread = jnp.mean(jnp.square(utility - mean), -1)
    if worst_share is not None:
        order = jnp.argsort(jnp.where(counted, jnp.mean(utility, -1), jnp.inf))
        rank = jnp.argsort(order)
        counted &= rank < jnp.ceil(worst_share * jnp.sum(counted))
    chosen = counted.astype(x.dtype)
    return safe_divide(jnp.sum(chosen * spread), jnp.sum(chosen))
