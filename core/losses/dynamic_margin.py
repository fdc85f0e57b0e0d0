"""A soft margin that follows training: each triplet weighs by its rank among those seen lately."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check_count, check_range, check_rank, restore, upcast
from ._shared import everyone, mean_of_devices, rows_before
from .pair_sums import PerAnchor, check_views
from .similarity import pairwise_euclidean


class DynamicMargin(NamedTuple):
    """How the gaps of the triplets seen lately are distributed.

    Attributes:
      histogram: share of the gaps at each node from -2 to 2, all zero before the first [nodes].
    """

    histogram: Float[Array, "nodes"]


def dynamic_soft_margin_init(*, bins: int = 511) -> DynamicMargin:
    """The state before the first step: no gap seen.

    Args:
      bins: how many intervals there are between the nodes.

    Returns:
      `DynamicMargin` of an array [bins + 1].

    Raises:
      ValueError: if `bins` is not positive.

    Source: Learning Local Descriptors With a CDF-Based Dynamic Soft Margin (Zhang and Rusinkiewicz,
    ICCV 2019); the authors' code has 512 nodes.

    >>> dynamic_soft_margin_init(bins=3).histogram.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    check_count(bins=bins)
    return DynamicMargin(jnp.zeros(bins + 1, jnp.float32))


def dynamic_soft_margin_loss(
    state: DynamicMargin,
    first: Float[Array, "batch features"],
    second: Float[Array, "batch features"],
    *,
    momentum: float = 0.01,
    axis_name: str | None = None,
) -> tuple[PerAnchor, DynamicMargin]:
    """Hardest-in-batch triplets without a margin to choose: the harder among the recent, the more.

    `F(g_i) g_i` with the gap `g_i = d(x_i, y_i) - min_{j != i} min(d(x_i, y_j), d(x_j, y_i))` of
    distances of unit vectors, and the share `F(g)` of gaps up to `g` in a running histogram, a
    constant for the gradient.

    Args:
      state: from `dynamic_soft_margin_init` or the step before; its histogram has [nodes] entries.
      first: embeddings of one view of each example [batch, features].
      second: embeddings of the other view [batch, features].
      momentum: weight of the batch in the running histogram; the first batch has weight one.
      axis_name: the mesh axis whose devices share the batch; the state is the same on all.

    Returns:
      One loss a pair [batch], below zero for most, and zero in a batch of one; and the new state.

    Raises:
      ValueError: if a shape, a dtype or `momentum` does not fit.

    Source: Learning Local Descriptors With a CDF-Based Dynamic Soft Margin (Zhang and Rusinkiewicz,
    ICCV 2019), Eq. 6 to 9; `modules/dynamic_soft_margin.py` of lg-zhang/dynamic-soft-margin-pytorch
    agrees but for 1e-6 in roots and sums, and negatives nearer than 0.008, which it takes for
    mistakes of the data. `DynamicSoftMarginLoss` of KevinMusgrave/pytorch-metric-learning adds up
    batches without dividing by their size, and lets gradients into the histogram.

    >>> x, y = jnp.eye(2), jnp.array([[0.8, 0.6], [0.6, 0.8]])
    >>> loss, state = dynamic_soft_margin_loss(dynamic_soft_margin_init(bins=4), x, y)
    >>> np.asarray(loss, float).round(3), np.asarray(state.histogram, float).round(3)
    (array([-0.069, -0.069]), array([0.   , 0.262, 0.738, 0.   , 0.   ]))
    """
    check_rank("state.histogram", state.histogram, 1)
    check_views(first=first, second=second)
    check_range("momentum", momentum, 0, 1)
    x, y = upcast(first, second)
    all_x, all_y = everyone((x, y), axis_name)
    own = jnp.arange(len(x)) + rows_before(len(x), axis_name)
    to_y, to_x = (pairwise_euclidean(a, b, normalize=True) for a, b in ((x, all_y), (y, all_x)))
    if len(all_x) == 1:
        return restore(0 * to_y[:, 0], first, second), state
    itself = own[:, None] == jnp.arange(len(all_x))
    nearest = (jnp.min(jnp.where(itself, jnp.inf, d), 1) for d in (to_y, to_x))
    gap = jnp.take_along_axis(to_y, own[:, None], 1)[:, 0] - jnp.minimum(*nearest)
    seen = jax.lax.stop_gradient(gap)
    bins = len(state.histogram) - 1
    place = jnp.clip((seen + 2) / 4 * bins, 0, bins)
    low = jnp.minimum(place.astype(jnp.int32), bins - 1)
    share = place - low
    new = jnp.zeros(bins + 1, seen.dtype).at[low].add(1 - share).at[low + 1].add(share)
    new = mean_of_devices(new / len(seen), axis_name)
    old = jax.lax.stop_gradient(state.histogram).astype(new.dtype)
    weight = jnp.where(jnp.any(old > 0), momentum, 1)
    histogram = (1 - weight) * old + weight * new
    below = jnp.cumsum(histogram)[place.astype(jnp.int32)]
    return restore(below * gap, first, second), DynamicMargin(
        histogram.astype(state.histogram.dtype)
    )
