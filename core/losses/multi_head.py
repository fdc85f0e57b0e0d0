"""Contrastive learning with several heads and a temperature for every pair."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_broadcastable,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from ._shared import rows_before, rows_of_all

Views = Float[Array, "heads batch features"]


def bounded_temperature(
    logits: Float[Array, "..."], *, low: float = 1e-5, high: float = 2.0
) -> Float[Array, "..."]:
    """Temperatures between two bounds from any numbers.

    `low + (high - low) sigmoid(a)`.

    Args:
      logits: `a`, such as a network's output for each pair [...].
      low: the lowest temperature; about 0.1 where the loss is to be trained alone.
      high: the highest.

    Returns:
      Temperatures [...].

    Raises:
      ValueError: if `logits` is not floating point or the bounds do not fit.

    Source: Adaptive Multi-head Contrastive Learning, arXiv 2310.05615, the adaptive temperature;
    `src/amcl_components/adaptive_temperature.py` of LeiWangR/cl agrees.

    >>> bounded_temperature(jnp.array([0.0]), low=0.5, high=1.5).tolist()
    [1.0]
    """
    check_floating(logits=logits)
    check_positive(low=low)
    check_range("high", high, low, open_low=True)
    return restore(low + (high - low) * jax.nn.sigmoid(upcast(logits)), logits)


def multi_head_contrastive_loss(
    first: Views,
    second: Views,
    temperature: Any = 0.5,
    *,
    regularization: float = 0.1,
    is_smooth: bool = True,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """AMCL: contrastive losses of several heads, with a temperature for every pair that is learned.

    `sum_heads log sum_n exp(s_n / t_n - b O(t_n)) - (s_+ / t_+ - b O(t_+))` with cosines `s`, the
    negatives `n` both views of the other examples, and `O(t) = (features / 2) log t + 1 / t`, with
    which `s / t - O(t)` is the log-likelihood of unit vectors under a Gaussian of variance `t`.

    Args:
      first: embeddings of one view by every head [heads, batch, features].
      second: embeddings of the other view [heads, batch, features].
      temperature: a number, or what broadcasts to [heads, 2 batch, 2 batch]: of every pair of the
        first views followed by the second ones. Of several devices it has the rows of the own
        examples, and columns for the first views of all, then for their second views.
      regularization: `b`.
      is_smooth: False takes the largest term over the negatives in place of the log-sum-exp, as
        the paper's table has it.
      axis_name: the mesh axis whose devices share the batch. Their views are gathered: a
        temperature for every pair is as large as the similarities.

    Returns:
      One loss an example [batch], the mean over its views as anchors; zero in a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Adaptive Multi-head Contrastive Learning, arXiv 2310.05615, the loss for SimCLR as
    in Table 2 of LeiWangR/cl (`images/table2.png`), with the log-sum-exp for its maximum; the
    released training code has no negatives.

    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> loss = multi_head_contrastive_loss(x, x, 0.5, regularization=0.0)
    >>> np.asarray(loss, float).round(3)
    array([-1.307, -1.307])
    """
    check_floating(first=first, second=second)
    check_rank("first", first, 3)
    check(min(jnp.shape(first)[:2]) > 0, "first", "got no heads or no rows, takes one or more")
    check_shape("second", second, jnp.shape(first), "[heads, batch, features], as first")
    heads, batch, features = jnp.shape(first)
    total = rows_of_all(batch, axis_name)
    pairs = (heads, 2 * batch, 2 * total)
    check_broadcastable("temperature", temperature, pairs, "[heads, 2 batch, 2 batch of all]")
    check_positive(temperature=temperature)
    check_range("regularization", regularization, 0)
    x, y = map(safe_normalize, upcast(first, second))
    if total == 1:
        return restore(0 * jnp.sum(x + y, (0, 2)), first, second)
    own = others = (x, y)
    if axis_name is not None:
        others = tuple(jax.lax.all_gather(a, axis_name, axis=1, tiled=True) for a in own)
    index = jnp.arange(batch) + rows_before(batch, axis_name)
    z, everyone = jnp.concatenate(own, 1), jnp.concatenate(others, 1)
    t = jnp.broadcast_to(jnp.asarray(temperature, x.dtype), pairs)
    cosines = jnp.einsum("hif,hjf->hij", z, everyone, precision=jax.lax.Precision.HIGHEST)
    terms = cosines / t - regularization * (features / 2 * jnp.log(t) + 1 / t)
    negative = jnp.tile(index, 2)[:, None] != jnp.tile(jnp.arange(total), 2)
    partner = jnp.concatenate([index + total, index])
    near = jnp.take_along_axis(terms, partner[None, :, None], -1)[..., 0]
    masked = jnp.where(negative, terms, -jnp.inf)
    far = jax.nn.logsumexp(masked, -1) if is_smooth else jnp.max(masked, -1)
    each = jnp.sum(far - near, 0)
    return restore((each[:batch] + each[batch:]) / 2, first, second)
