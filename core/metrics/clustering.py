"""How well clusters agree with classes, whatever the clusters are called."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import check, check_integer, check_rank, check_shape, safe_divide

Labels = Int[Array, "examples"]


def contingency(labels: Any, clusters: Any, count: Any) -> Float[Array, "classes clusters"]:
    """How many examples of each class are in each cluster [count, count]; checked."""
    check_integer(labels=labels, clusters=clusters)
    check_rank("labels", labels, 1)
    check_shape("clusters", clusters, jnp.shape(labels), "[examples], as labels")
    good = isinstance(count, int) and count > 0
    check(good, "count", f"got {count!r}, takes a positive integer, above every label and cluster")
    place = jnp.asarray(labels) * count + jnp.asarray(clusters)
    return jnp.zeros(count * count).at[place].add(1.0).reshape(count, count)


def normalized_mutual_information(
    labels: Labels, clusters: Labels, *, count: int
) -> Float[Array, ""]:
    """Information that clusters give about classes, over the mean of both entropies.

    `2 I(labels; clusters) / (H(labels) + H(clusters))`.

    Args:
      labels: the class of each example, from 0 on [examples].
      clusters: the cluster of each example, from 0 on [examples].
      count: a number above every label and cluster.

    Returns:
      From zero to one []; one where both are constant. In float32.

    Raises:
      ValueError: if a shape or dtype does not fit or `count` is not positive.

    Source: textbook definition with the arithmetic mean, as `normalized_mutual_info_score` of
    scikit-learn.

    >>> a, b = jnp.array([0, 0, 1, 1]), jnp.array([1, 1, 0, 0])
    >>> print(f"{normalized_mutual_information(a, b, count=2):.3f}")
    1.000
    """
    shared, both = _information(contingency(labels, clusters, count), len(labels))
    return jnp.where(both > 1e-6, 2 * shared / jnp.maximum(both, 1e-6), 1)


def _information(table: Array, examples: int) -> tuple[Array, Array]:
    """Mutual information of rows and columns, and the sum of both entropies."""
    p = table / max(examples, 1)

    def entropy(q: Array) -> Array:
        return -jnp.sum(jnp.where(q > 0, q * jnp.log(jnp.where(q > 0, q, 1)), 0))

    both = entropy(p.sum(1)) + entropy(p.sum(0))
    return jnp.maximum(both - entropy(p), 0), both


def adjusted_mutual_information(
    labels: Labels, clusters: Labels, *, count: int
) -> Float[Array, ""]:
    """Information that clusters give about classes, beyond what chance would give.

    `(I - E) / ((H(labels) + H(clusters)) / 2 - E)` with `E` the mean of the information `I` over
    all random clusters of the same sizes, of which each entry of the contingency table has a
    hypergeometric distribution.

    Args:
      labels: the class of each example, from 0 on [examples].
      clusters: the cluster of each example, from 0 on [examples].
      count: a number above every label and cluster.

    Returns:
      At most one, around zero for random clusters []; one where both put all examples together or
      all apart. In float32, to 1e-4 for 100,000 examples; more where float64 is enabled.

    Raises:
      ValueError: if a shape or dtype does not fit or `count` is not positive.

    Source: Information Theoretic Measures for Clusterings Comparison (Vinh, Epps, Bailey, JMLR
    2010), Eq. 24a, with the mean of both entropies, as `adjusted_mutual_info_score` of
    scikit-learn.

    >>> a, b = jnp.array([0, 0, 1, 1]), jnp.array([1, 1, 0, 0])
    >>> print(f"{adjusted_mutual_information(a, b, count=2):.3f}")
    1.000
    """
    table = contingency(labels, clusters, count)
    n = len(labels)
    shared, both = _information(table, n)
    a, b = table.sum(1)[:, None], table.sum(0)[None]
    there = (a > 0) & (b > 0)

    def log_factorial(x: Array) -> Array:
        return jax.scipy.special.gammaln(x + 1)

    fixed = sum(map(log_factorial, (a, b, n - a, n - b))) - log_factorial(jnp.asarray(n, a.dtype))

    def add(total: Array, k: Array) -> tuple[Array, None]:
        """What entries of the table that are `k` contribute to the mean."""
        rest = (a - k, b - k, n - a - b + k)
        possible = there & (jnp.min(jnp.stack(jnp.broadcast_arrays(*rest)), 0) >= 0)
        others = sum(log_factorial(jnp.maximum(x, 0)) for x in (k, *rest))
        gain = k / n * jnp.log(n * k / jnp.where(there, a * b, 1))
        return total + jnp.sum(jnp.where(possible, gain * jnp.exp(fixed - others), 0)), None

    sizes = jnp.arange(1, n + 1, dtype=a.dtype)
    chance, _ = jax.lax.scan(add, jnp.zeros((), a.dtype), sizes)
    span = both / 2 - chance
    return jnp.where(jnp.abs(span) > 1e-6, safe_divide(shared - chance, span), 1)


def adjusted_rand_index(labels: Labels, clusters: Labels, *, count: int) -> Float[Array, ""]:
    """Share of pairs on which classes and clusters agree, beyond what chance would give.

    `(sum_ij C(n_ij, 2) - E) / ((sum_i C(a_i, 2) + sum_j C(b_j, 2)) / 2 - E)` with
    `E = sum_i C(a_i, 2) sum_j C(b_j, 2) / C(n, 2)`.

    Args:
      labels: the class of each example, from 0 on [examples].
      clusters: the cluster of each example, from 0 on [examples].
      count: a number above every label and cluster.

    Returns:
      At most one, around zero for random clusters []; one where both put all examples together or
      all apart. In float32.

    Raises:
      ValueError: if a shape or dtype does not fit or `count` is not positive.

    Source: Comparing Partitions (Hubert, Arabie, 1985), as `adjusted_rand_score` of scikit-learn.

    >>> a, b = jnp.array([0, 0, 1, 1]), jnp.array([1, 1, 0, 0])
    >>> print(f"{adjusted_rand_index(a, b, count=2):.3f}")
    1.000
    """
    table = contingency(labels, clusters, count)
    n = len(labels)

    def pairs(x: Array) -> Array:
        return jnp.sum(x * (x - 1) / 2)

    # As shares of all pairs, so that large counts stay exact enough in float32.
    total = max(n * (n - 1) / 2, 1.0)
    both, rows, columns = (pairs(x) / total for x in (table, table.sum(1), table.sum(0)))
    chance = rows * columns
    span = (rows + columns) / 2 - chance
    return jnp.where(jnp.abs(span) > 1e-9, safe_divide(both - chance, span), 1)


def _assign(cost: Float[Array, "count count"]) -> Int[Array, "count"]:
    """The row of each column in the cheapest one-to-one assignment (Hungarian algorithm).

    Rows enter one by one; a shortest augmenting path in reduced costs makes room for each.
    """
    count = cost.shape[0]
    far = jnp.asarray(jnp.inf, cost.dtype)
    # Column `count` is where the entering row waits.
    cost = jnp.concatenate([cost, jnp.zeros((count, 1), cost.dtype)], 1)

    def enter(row: Array, state: Any) -> Any:
        u, v, owner = state
        owner = owner.at[count].set(row)

        def searching(s: Any) -> Array:
            return owner[s[0]] >= 0

        def search(s: Any) -> Any:
            column, u, v, least, back, seen = s
            seen = seen.at[column].set(True)
            i = owner[column]
            reduced = cost[i] - u[i] - v
            shorter = ~seen & (reduced < least)
            least = jnp.where(shorter, reduced, least)
            back = jnp.where(shorter, column, back)
            open_ = jnp.where(seen, far, least).at[count].set(far)
            column = jnp.argmin(open_)
            step = open_[column]
            # Every row of the tree (the owners of seen columns) moves by the same step.
            moved = jnp.zeros(count + 1, u.dtype).at[owner].add(jnp.where(seen, step, 0))
            u = u + moved.at[count].set(0)
            v = v - jnp.where(seen, step, 0)
            least = jnp.where(seen, least, least - step)
            return column, u, v, least, back, seen

        start = (
            jnp.asarray(count),
            u,
            v,
            jnp.full(count + 1, far),
            jnp.full(count + 1, count),
            jnp.zeros(count + 1, bool),
        )
        column, u, v, _, back, _ = jax.lax.while_loop(searching, search, start)

        def shift(s: Any) -> Any:
            column, owner = s
            return back[column], owner.at[column].set(owner[back[column]])

        _, owner = jax.lax.while_loop(lambda s: s[0] != count, shift, (column, owner))
        return u, v, owner.at[count].set(-1)

    zeros = jnp.zeros(count + 1, cost.dtype)
    state = (zeros, zeros, jnp.full(count + 1, -1))
    return jax.lax.fori_loop(0, count, enter, state)[2][:count]


def clustering_accuracy(labels: Labels, clusters: Labels, *, count: int) -> Float[Array, ""]:
    """Accuracy under the best one-to-one naming of the clusters by classes.

    `max_pi sum_i 1[y_i = pi(c_i)] / n`.

    Args:
      labels: the class of each example, from 0 on [examples].
      clusters: the cluster of each example, from 0 on [examples].
      count: a number above every label and cluster.

    Returns:
      From zero to one [], in float32.

    Raises:
      ValueError: if a shape or dtype does not fit or `count` is not positive.

    Source: Unsupervised Deep Embedding for Clustering Analysis, arXiv 1511.06335, Eq. 10; the
    naming by the Hungarian algorithm (Kuhn, 1955).

    >>> a, b = jnp.array([0, 0, 1, 1]), jnp.array([1, 1, 0, 1])
    >>> print(f"{clustering_accuracy(a, b, count=2):.3f}")
    0.750
    """
    table = contingency(labels, clusters, count)
    rows = _assign(-table)
    return jnp.sum(table[rows, jnp.arange(count)]) / max(len(labels), 1)
