"""What a cloud of embeddings looks like: its spread, its tightness, its rank."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..losses.batch_pairs import across, in_batch
from ..losses.pairs import check_pair_labels, either
from ..losses.similarity import pairwise_cosine, pairwise_squared_euclidean
from ..losses.spread import distances_of_views, log_mean_potential
from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_normalize,
    upcast,
)

Embeddings = Float[Array, "batch features"]


def _check(embeddings: Any, name: str = "embeddings") -> None:
    check_floating(**{name: embeddings})
    check_rank(name, embeddings, 2)
    check(jnp.shape(embeddings)[0] > 0, name, "got no rows, takes one or more")


def uniformity(
    embeddings: Embeddings, *, scale: float = 2.0, chunk_size: int | None = None
) -> Float[Array, ""]:
    """How evenly directions cover the sphere; lower is more even.

    `log mean_{i != j} exp(-scale |x_i - x_j|^2)` of unit vectors.

    Args:
      embeddings: embeddings, made unit vectors here [batch, features].
      scale: `t` in the paper.
      chunk_size: look at so many embeddings at a time; all for None.

    Returns:
      The uniformity [], zero for equal directions and for a batch of one.

    Raises:
      ValueError: if `embeddings` or a hyper-parameter does not fit.

    Source: Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere, arXiv 2005.10242, Section 4.1.2 and Figure 5.

    >>> print(f"{uniformity(jnp.array([[1.0, 0.0], [-2.0, 0.0]])):.3f}")
    -8.000
    """
    _check(embeddings)
    check_positive(scale=scale)
    x = safe_normalize(upcast(embeddings))
    return restore(log_mean_potential(x, scale, chunk_size), embeddings)


def alignment(
    first: Embeddings, second: Embeddings, *, power: float = 2.0
) -> Float[Array, "batch"]:
    """How far the two views of each example are apart; lower is closer.

    `|x_i - y_i|^power` of unit vectors.

    Args:
      first: embeddings of one view, made unit vectors here [batch, features].
      second: embeddings of the other view [batch, features].
      power: alpha in the paper.

    Returns:
      One value an example [batch]; the paper's is their mean.

    Raises:
      ValueError: if a shape, a dtype or `power` does not fit.

    Source: Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere, arXiv 2005.10242, Section 4.1.1 and Figure 5.

    >>> np.asarray(alignment(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 3.0]])), float).round(3)
    array([2.])
    """
    check_floating(first=first, second=second)
    check_rank("first", first, 2)
    check_shape("second", second, jnp.shape(first), "[batch, features], as first")
    check_positive(power=power)
    x, y = map(safe_normalize, upcast(first, second))
    return restore(distances_of_views(x, y, power), first, second)


def tolerance(
    embeddings: Embeddings, labels: Int[Array, "batch"], *, chunk_size: int | None = None
) -> Float[Array, ""]:
    """How close examples of one class stay: tolerance to semantically similar examples.

    `mean_{i != j} cos(x_i, x_j) 1[y_i = y_j]`, over all pairs, those of different classes as zeros.

    Args:
      embeddings: embeddings [batch, features].
      labels: class of each [batch].
      chunk_size: look at so many embeddings at a time; all for None.

    Returns:
      The tolerance [], zero for a batch of one.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: Understanding the Behaviour of Contrastive Loss, arXiv 2012.09740, Eq. 11, over pairs of
    two examples.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> print(f"{tolerance(x, jnp.array([0, 0, 1])):.3f}")
    0.200
    """
    _check(embeddings)
    check_pair_labels("labels", labels, len(embeddings))
    pairs = in_batch(embeddings, labels, compare=pairwise_cosine, chunk_size=chunk_size)
    n = len(embeddings)
    total = jnp.sum(pairs.total(lambda b: jnp.where(b.positive, b.values, 0)))
    return restore(total / max(n * (n - 1), 1), embeddings)


def utilization(
    queries: Float[Array, "queries features"],
    references: Float[Array, "references features"],
    *,
    chunk_size: int | None = None,
) -> Float[Array, "queries"]:
    """How far each test embedding is from what training has seen; lower is better explored.

    `min_x |q - x|^2` over the training embeddings `x`, clean or mixed. Further references never
    raise it.

    Args:
      queries: test embeddings [queries, features].
      references: training embeddings [references, features].
      chunk_size: look at so many references at a time; all for None.

    Returns:
      One value a query [queries]; the paper's is their mean.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: It Takes Two to Tango: Mixup for Deep Metric Learning, arXiv 2106.04990, utilization.

    >>> x = jnp.array([[0.0, 0.0], [4.0, 0.0]])
    >>> utilization(jnp.array([[3.0, 0.0]]), x).tolist()
    [1.0]
    """
    _check(queries, "queries")
    _check(references, "references")
    check_shape("references", references, (None, jnp.shape(queries)[1]), "as queries")
    pairs = across(queries, references, compare=pairwise_squared_euclidean, chunk_size=chunk_size)
    return restore(pairs.largest(either, -1), queries, references)


def rankme(embeddings: Embeddings, *, epsilon: float = 1e-7) -> Float[Array, ""]:
    """RankMe: the effective rank of a matrix of embeddings, a score that needs no labels.

    `exp(-sum_k p_k log p_k)` with `p_k = s_k / sum_j s_j + epsilon` of the singular values `s`.

    Args:
      embeddings: projector outputs, not centred [batch, features].
      epsilon: added to each share.

    Returns:
      The effective rank [], from one to the smaller of batch and features.

    Raises:
      ValueError: if `embeddings` or `epsilon` does not fit.

    Source: RankMe: Assessing the downstream performance of pretrained self-supervised
    representations by their rank, arXiv 2210.02885, Eq. 1; `rankme_evaluator.py` of
    johnwikman/rankme-reprod agrees.

    >>> print(f"{rankme(jnp.eye(3)):.3f}")
    3.000
    """
    _check(embeddings)
    check_range("epsilon", epsilon, 0, open_low=True)
    x = upcast(embeddings)
    # The scale cancels; dividing by it first keeps the squares of large entries in range.
    x = safe_divide(x, jnp.max(jnp.abs(x)))
    s = jnp.linalg.svd(x, compute_uv=False)
    p = safe_divide(s, jnp.sum(s)) + epsilon
    return restore(jnp.exp(-jnp.sum(p * jnp.log(p))), embeddings)
