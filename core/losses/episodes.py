"""Losses of few-shot episodes: classes apart, by neighbours or by prototypes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import everyone, is_label, pick, rows_before
from .similarity import pairwise_squared_euclidean


def _distances(x: Array, y: Array) -> Array:
    return jnp.sqrt(pairwise_squared_euclidean(x, y) + 1e-6)


def _share(values: Array, where: Array, epsilon: float) -> tuple[Array, Array]:
    """Means of the rows' values that are there, and which rows have any."""
    count = jnp.sum(where, -1)
    return jnp.sum(jnp.where(where, values, 0), -1) / (count + epsilon), count > 0


def _mean(values: Array, where: Array, epsilon: float) -> Array:
    return jnp.sum(jnp.where(where, values, 0)) / (jnp.sum(where) + epsilon)


def icnn_loss(
    embeddings: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    *,
    neighbours: int = 4,
    reach: int | None = None,
    epsilon: float = 1e-7,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """ICNN loss: minus the logarithm of how well neighbours keep to their class.

    `-log(((same + different) / 2 + purity) / 2)` over the `k` nearest neighbours `n` of each
    example `i`, at distances `d_in = sqrt(|x_i - x_n|^2 + 1e-6)`:

    - `same = 1 - mean_i mean_{n of i's class} r_in`, with `r_in` the distance relative to that of
      the nearest example of another class, divided by the largest of the row if that is above one;
      zero where no neighbour is of the example's class;
    - `different = mean_i mean_{n of another class} d_in / max d`, one where there are none;
    - `purity`, the share of neighbours of the example's class.

    Args:
      embeddings: the examples of an episode, support and queries [batch, features].
      labels: the class of each [batch].
      neighbours: `k`; at most two fewer than the examples.
      reach: among how many neighbours the nearest example of another class is looked for;
        `k + 1` by default, shots plus queries of a class in the authors' code. An example with
        none there counts as perfect in `same`.
      epsilon: added to denominators.
      axis_name: the mesh axis whose devices share the episode. Their examples are gathered:
        neighbours are found among all distances of an example.

    Returns:
      The loss of the batch, the same for each example [batch]; zero where all neighbours within
      reach are of one class, and for a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: SuSana Distancia is all you need, arXiv 2305.09062, the ICNN loss;
    `algorithms/icnn_loss.py` of maumruiz/FSL-Loss, the first author's, agrees in values and
    gradients. In a batch of at most `k + 2` examples the code sets the purity to one, and `same`
    where nobody has a neighbour of its class; here both are measured.

    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
    >>> np.asarray(icnn_loss(x, jnp.array([0, 0, 1, 1]), neighbours=1), float).round(3)
    array([0.065, 0.065, 0.065, 0.065])
    """
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    batch = jnp.shape(embeddings)[0]
    check(batch > 0, "embeddings", "got no rows, takes one or more")
    check_integer(labels=labels)
    check_shape("labels", labels, (batch,), "[batch], one an embedding")
    check_count(neighbours=neighbours)
    if reach is not None:
        check_count(reach=reach)
    check_range("epsilon", epsilon, 0, open_low=True)
    x, y = upcast(embeddings), jnp.asarray(labels)
    others, classes = everyone((x, y), axis_name)
    total = len(others)
    if total == 1:
        return restore(0 * jnp.sum(x, -1), embeddings)
    k = min(neighbours, max(total - 2, 1))
    wide = min(max(neighbours + 1 if reach is None else reach, k), total - 1)
    distances = _distances(x, others)
    index = jnp.arange(batch) + rows_before(batch, axis_name)
    own = index[:, None] == jnp.arange(total)
    order = jnp.argsort(jnp.where(own, jnp.inf, jax.lax.stop_gradient(distances)), -1)[:, :wide]
    d = jnp.take_along_axis(distances, order, -1)
    other = classes[order] != y[:, None]
    bound = jnp.min(jnp.where(other, d, jnp.inf), -1, keepdims=True)
    bounded = bound < jnp.inf
    d, other = d[:, :k], other[:, :k]
    ratio = jnp.where(bounded, d / (jnp.where(bounded, bound, 1) + epsilon), 0)
    ratio = ratio / jnp.maximum(1, jnp.max(ratio, -1, keepdims=True))
    spread, has_same = everyone(_share(ratio, ~other, epsilon), axis_name)
    same = jnp.where(jnp.any(has_same), 1 - _mean(spread, has_same, epsilon), 0)
    largest = jnp.max(everyone(jnp.max(jnp.where(other, d, 0), -1), axis_name))
    apart, has_other = everyone(_share(d / (largest + epsilon), other, epsilon), axis_name)
    different = jnp.where(jnp.any(has_other), _mean(apart, has_other, epsilon), 1)
    purity = jnp.mean(everyone(jnp.mean(~other, -1, dtype=x.dtype), axis_name))
    score = ((same + different) / 2 + purity) / 2
    loss = -jnp.log(jnp.maximum(score, epsilon))
    return restore(jnp.broadcast_to(loss, (batch,)), embeddings)


def prototype_triplet_loss(
    queries: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    prototypes: Float[Array, "classes features"],
    *,
    margin: float = 0.5,
) -> Float[Array, "batch"]:
    """Proto-Triplet loss: closer to the own prototype than to any other, by a margin.

    `[d(x, c_y) - min_{k != y} d(x, c_k) + margin]_+` with `d(x, c) = sqrt(|x - c|^2 + 1e-6)`.

    Args:
      queries: the examples [batch, features].
      labels: the class of each [batch].
      prototypes: the mean of each class's support [classes, features].
      margin: how much closer.

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: SuSana Distancia is all you need, arXiv 2305.09062, the Proto-Triplet loss;
    `algorithms/icnn_loss.py` of maumruiz/FSL-Loss, the first author's, agrees in values and
    gradients.

    >>> x = jnp.array([[0.0, 1.0], [3.0, 0.0]])
    >>> prototypes = jnp.array([[0.0, 0.0], [3.0, 1.0]])
    >>> loss = prototype_triplet_loss(x, jnp.array([0, 0]), prototypes)
    >>> np.asarray(loss, float).round(3)
    array([0. , 2.5])
    """
    check_floating(queries=queries, prototypes=prototypes)
    check_rank("queries", queries, 2)
    features = jnp.shape(queries)[1]
    check_shape("prototypes", prototypes, (None, features), "[classes, features], as queries")
    classes = jnp.shape(prototypes)[0]
    check(classes > 1, "prototypes", f"got {classes} classes, takes two or more")
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(queries)[:1], "[batch], one a query")
    check_range("margin", margin, 0)
    x, c = upcast(queries, prototypes)
    distances = _distances(x, c)
    y = jnp.asarray(labels)
    nearest = jnp.min(jnp.where(is_label(y, classes), jnp.inf, distances), -1)
    return restore(jax.nn.relu(pick(distances, y) - nearest + margin), queries, prototypes)
