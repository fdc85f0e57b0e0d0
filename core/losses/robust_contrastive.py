"""Global contrastive losses: all examples as negatives, one temperature for each example."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import log_sum_exp
from .batch_pairs import across
from .contrastive import both_views
from .pair_sums import check_views
from .pairs import Pairs, negative
from .similarity import pairwise_cosine

# What stands for the logarithm of zero in a state, so that all its numbers are finite.
_NEVER = -1e30


def robust_global_contrastive_loss(
    differences: Float[Array, "anchors negatives"],
    temperature: Float[Array, "anchors"],
    *,
    rho: float = 0.3,
) -> Float[Array, "anchors"]:
    """The contrastive loss whose temperature is a variable, with what keeps it in place.

    `t log mean_j exp(h_j / t) + t rho`: the dual of the worst weighting of the negatives within a
    Kullback-Leibler distance `rho` of the uniform one. Convex in `t`.

    Args:
      differences: `h`, similarity of each negative less that of the positive [anchors, negatives].
      temperature: `t` of each anchor, positive [anchors].
      rho: how far the weights of the negatives may be from uniform; larger makes temperatures
        smaller.

    Returns:
      One loss an anchor [anchors].

    Raises:
      ValueError: if a shape or dtype does not fit or `rho` is negative.

    Source: Not All Semantics are Created Equal, arXiv 2305.11965, Eq. 4 (the robust global
    contrastive loss); `libauc/losses/contrastive.py` of Optimization-AI/LibAUC has its gradient.

    >>> h = jnp.array([[-1.0, -1.0], [-0.5, -1.5]])
    >>> np.asarray(robust_global_contrastive_loss(h, jnp.array([0.1, 0.1])), float).round(3)
    array([-0.97 , -0.539])
    """
    check_floating(differences=differences, temperature=temperature)
    check_rank("differences", differences, 2)
    check_shape("temperature", temperature, jnp.shape(differences)[:1], "[anchors]")
    check(jnp.shape(differences)[1] > 0, "differences", "got no negatives, takes one or more")
    check_range("rho", rho, 0)
    h, t = upcast(differences, temperature)
    # No anchor divides by zero, whatever an optimizer makes of the temperature.
    t = jnp.maximum(t, jnp.finfo(t.dtype).eps)
    mean = log_sum_exp(h / t[:, None]) - jnp.log(jnp.asarray(h.shape[1], h.dtype))
    return restore(t * (mean + rho), differences, temperature)


class IsogclrState(NamedTuple):
    """State of `isogclr_loss`, one entry an example of the training set.

    Attributes:
      temperature: the temperature of each example [examples].
      log_mean: logarithm of the moving average of `mean_j exp(s_ij / t_i)` [examples].
      velocity: moving average of the gradient of the temperature [examples].
    """

    temperature: Float[Array, "examples"]
    log_mean: Float[Array, "examples"]
    velocity: Float[Array, "examples"]


def isogclr_init(examples: int, *, temperature: float = 0.1) -> IsogclrState:
    """The state of `isogclr_loss` before the first step.

    Every temperature is the given one and nothing has been averaged.

    Args:
      examples: the size of the training set.
      temperature: the first temperature of all examples.

    Returns:
      `IsogclrState` of arrays [examples].

    Raises:
      ValueError: if an argument is not positive.

    Source: Not All Semantics are Created Equal, arXiv 2305.11965, Algorithm 1.

    >>> np.asarray(isogclr_init(3).temperature, float).round(2)
    array([0.1, 0.1, 0.1])
    """
    check_count(examples=examples)
    check_positive(temperature=temperature)
    return IsogclrState(
        jnp.full(examples, temperature, jnp.float32),
        jnp.full(examples, _NEVER, jnp.float32),
        jnp.zeros(examples, jnp.float32),
    )


def isogclr_loss(
    state: IsogclrState,
    view1: Float[Array, "batch features"],
    view2: Float[Array, "batch features"],
    index: Int[Array, "batch"],
    *,
    rho: float = 0.3,
    averaging: float = 0.9,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    temperature_range: tuple[float, float] = (0.05, 0.7),
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> tuple[Float[Array, "batch"], IsogclrState]:
    """iSogCLR: a global contrastive loss from small batches, with a temperature for each example.

    With the cosines `s_ij` of anchor `i` and the other examples' views of the batch:
    `v_i = (1 - g) u_i + g mean_j exp(s_ij / t_i)`, the loss
    `mean_j sg(exp(s_ij / t_i) / v_i) s_ij - s_i+`, and the step of the temperature along
    `log v_i + rho - mean_j (exp(s_ij / t_i) / v_i) s_ij / t_i` with momentum. Each example is an
    anchor by both views: the loss, the temperature's gradient and the new `u`, that of `v`, are
    means of the two.

    Args:
      state: from `isogclr_init` or the step before.
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      index: the number of each example in the training set, no two alike [batch].
      rho: see `robust_global_contrastive_loss`.
      averaging: `g`, the weight of the new estimate (gamma in the paper); 1 where an example is
        seen first.
      learning_rate: of the temperatures.
      momentum: the weight of the old gradient of the temperature is one less this (beta in LibAUC).
      temperature_range: the temperatures are kept between these two.
      chunk_size: look at so many views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch; each device keeps the state of its own
        examples.
      ring: send the views round that axis rather than gather them.

    Returns:
      One loss an example [batch], whose gradient is that of the global loss (its value means
      little), and the new state.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Not All Semantics are Created Equal, arXiv 2305.11965, Algorithm 1, with the raw
    similarities and the two views of `SogCLR_DRO_Loss` in `unimodal_exps/losses.py` of
    zhqiu/contrastive-learning-iSogCLR and of `GCLoss_v1` in Optimization-AI/LibAUC, whose defaults
    these are: twice this loss, its gradients and the state agree with both over several steps. The
    first clips the gradient of the temperature at 3, the second begins a batch anew only if all of
    it is seen first. In logarithms here, so that no temperature overflows.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss, state = isogclr_loss(isogclr_init(5), x, x, jnp.array([0, 3]))
    >>> np.asarray(state.temperature, float).round(4)
    array([0.0973, 0.1   , 0.1   , 0.0973, 0.1   ])
    """
    moves = _check_moves(rho, averaging, learning_rate, momentum, temperature_range)
    _check_state("state", state, "index", index, jnp.shape(view1)[:1])
    pairs = both_views(view1, view2, chunk_size, axis_name, ring)
    pushed, state = _descend(pairs, state, index, jnp.zeros(2 * len(view1), pairs.dtype), **moves)
    pulled = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
    loss = (pushed - pulled).reshape(2, -1).mean(0)
    return restore(loss, view1, view2), state


def isogclr_two_tower_loss(
    states: tuple[IsogclrState, IsogclrState],
    first: Float[Array, "batch features"],
    second: Float[Array, "batch features"],
    index: Int[Array, "batch"],
    second_index: Int[Array, "batch"] | None = None,
    *,
    rho: float = 6.0,
    averaging: float = 0.9,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    temperature_range: tuple[float, float] = (0.005, 0.05),
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> tuple[Float[Array, "batch"], tuple[IsogclrState, IsogclrState]]:
    """Global contrast of images and texts by iSogCLR, with a temperature for each image and text.

    With `h_ij = s_ij - s_ii` for the cosines `s_ij` of an image and the other texts of the batch:
    `u_i <- (1 - g) u_i + g mean_j exp(h_ij / t_i)`, the loss `mean_j sg(exp(h_ij / t_i) / u_i)
    h_ij`, and the step of the temperature along
    `log u_i + rho - mean_j (exp(h_ij / t_i) / u_i) h_ij / t_i` with momentum; the same for a text
    and the other images, and the mean of the two.

    Args:
      states: two from `isogclr_init`, temperature 0.01, or of the step before.
      first: embeddings of one half of each pair (images) [batch, features].
      second: embeddings of the other half (texts) [batch, features].
      index: the number of each first half in the training set, no two alike [batch].
      second_index: that of each second half [batch]; `index` for None.
      rho: see `robust_global_contrastive_loss`.
      averaging: `g`, the weight of the new estimate; 1 where a half is seen first.
      learning_rate: of the temperatures.
      momentum: the weight of the old gradient of the temperature is one less this.
      temperature_range: the temperatures are kept between these two; one number, twice, is SogCLR.
      chunk_size: look at so many embeddings at a time; all for None.
      axis_name: the mesh axis whose devices share the batch; each device keeps the state of its own
        pairs.
      ring: send the embeddings round that axis rather than gather them.

    Returns:
      One loss a pair [batch], whose gradient is that of the global loss, and the new states.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Not All Semantics are Created Equal, arXiv 2305.11965, Algorithm 1 and Section 4 for
    pairs of modalities. `GCLoss_v2` of Optimization-AI/LibAUC, whose defaults these are, agrees in
    gradients and state, its loss with the sum for the mean over `j`; `bimodal_exps` of
    zhqiu/contrastive-learning-iSogCLR counts the pair itself among `j`, over `batch - 1`.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> start = (isogclr_init(4, temperature=0.5),) * 2
    >>> loss, states = isogclr_two_tower_loss(
    ...     start, x, x, jnp.array([0, 3]), temperature_range=(0.1, 0.5)
    ... )
    >>> loss.tolist(), np.asarray(states[0].temperature, float).round(3)
    ([-1.0, -1.0], array([0.446, 0.5  , 0.5  , 0.446]))
    """
    moves = _check_moves(rho, averaging, learning_rate, momentum, temperature_range)
    check_views(first=first, second=second)
    check(len(states) == 2, "states", f"got {len(states)}, takes one for each half")
    other = index if second_index is None else second_index
    rows = jnp.shape(first)[:1]
    _check_state("states[0]", states[0], "index", index, rows)
    _check_state("states[1]", states[1], "second_index", other, rows)
    x, y = upcast(first, second)

    def one_way(state: IsogclrState, x: Array, y: Array, index: Array) -> tuple:
        pairs = across(
            x,
            y,
            compare=pairwise_cosine,
            chunk_size=chunk_size,
            axis_name=axis_name,
            ring=ring,
        )
        near = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
        return _descend(pairs, state, index, near, **moves)

    image, text = one_way(states[0], x, y, index), one_way(states[1], y, x, other)
    return restore((image[0] + text[0]) / 2, first, second), (image[1], text[1])


def _check_state(name: str, state: IsogclrState, called: str, index: Any, rows: Any) -> None:
    check_integer(**{called: index})
    check_shape(called, index, rows, "[batch], one an example")
    for field, x in state._asdict().items():
        shape = jnp.shape(state.temperature)
        check_shape(f"{name}.{field}", x, shape, "[examples], as the temperature")


def _check_moves(
    rho: Any, averaging: Any, learning_rate: Any, momentum: Any, temperature_range: Any
) -> dict[str, Any]:
    """The arguments by name, for `_descend`."""
    check_range("rho", rho, 0)
    check_range("averaging", averaging, 0, 1, open_low=True)
    check_positive(learning_rate=learning_rate)
    check_range("momentum", momentum, 0, 1, open_low=True)
    low, high = temperature_range
    check(0 < low <= high, "temperature_range", f"got {temperature_range}, takes 0 < low <= high")
    return {
        "rho": rho,
        "averaging": averaging,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "temperature_range": temperature_range,
    }


def _descend(
    pairs: Pairs,
    state: IsogclrState,
    index: Any,
    near: Array,
    *,
    rho: Any,
    averaging: Any,
    learning_rate: Any,
    momentum: Any,
    temperature_range: tuple[float, float],
) -> tuple[Float[Array, "anchors"], IsogclrState]:
    """`mean_j sg(exp(h_j / t) / v) h_j` of every anchor and the new state, `h_j = s_j - near`.

    The anchors are the examples `index`, one after the other, for each of their views.
    """
    stop = jax.lax.stop_gradient
    index = jnp.asarray(index)
    batch = len(index)
    t, log_u, velocity = (stop(x[index]).astype(pairs.dtype) for x in state)
    scale = jnp.tile(1 / t, len(near) // batch)

    count = jnp.maximum(pairs.count(negative), 1)
    log_g = pairs.constant().log_sum_exp(
        lambda b, c, n: c * (b.values - n), negative, scale, stop(near)
    ) - jnp.log(count)
    # [views, batch]; a batch of one has no negatives.
    fresh = jnp.where(log_g != -jnp.inf, log_g, 0).reshape(-1, batch)
    old = jnp.log1p(-jnp.asarray(averaging, pairs.dtype)) + log_u
    mixed = jnp.logaddexp(old, jnp.log(jnp.asarray(averaging, pairs.dtype)) + fresh)
    estimates = jnp.where((log_u <= _NEVER) | (averaging == 1), fresh, mixed)
    log_u = jax.nn.logsumexp(estimates, 0) - jnp.log(len(estimates)).astype(pairs.dtype)

    def weighted(b: Any, c: Array, u: Array, n: Array) -> Array:
        difference = b.values - n
        exponent = jnp.where(b.negative, c * stop(difference) - u, 0)
        return jnp.where(b.negative, jnp.exp(exponent) * difference, 0)

    pushed = pairs.total(weighted, scale, estimates.reshape(-1), near) / count
    slope = estimates.mean(0) + rho - stop(pushed).reshape(-1, batch).mean(0) / t
    velocity = (1 - momentum) * velocity + momentum * slope
    moved = jnp.clip(t - learning_rate * velocity, *temperature_range)
    new = (stop(moved), log_u, velocity)
    return pushed, IsogclrState(*(x.at[index].set(v.astype(x.dtype)) for x, v in zip(state, new)))
