"""Losses that learn from responses known only as averages over bags of examples."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_key,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)

Bags = Float[Array, "... size"]
Members = Bool[Array, "... size"] | None


def _moments(predictions: Any, responses: Any, where: Any) -> tuple[Any, Any, Any]:
    """Response less mean prediction, variance, and whether there is a member, of each bag."""
    check_floating(predictions=predictions, responses=responses)
    check_rank("predictions", predictions, 1, at_least=True)
    shape = jnp.shape(predictions)
    check(shape[-1] > 0, "predictions", "got empty bags, takes one or more on the last axis")
    check_shape("responses", responses, shape[:-1], "[...], one a bag of predictions")
    member = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    check_boolean(where=member)
    check_shape("where", member, shape, "[..., size], as predictions")
    f, y = upcast(predictions, responses)
    count = jnp.sum(member, -1).astype(f.dtype)
    mean = safe_divide(jnp.sum(jnp.where(member, f, 0), -1), count)
    spread = jnp.where(member, f - mean[..., None], 0)
    variance = safe_divide(jnp.sum(jnp.square(spread), -1), count)
    return y - mean, variance, count > 0


def interpolated_bag_loss(
    predictions: Bags,
    responses: Float[Array, "..."],
    *,
    instance_weight: float | Float[Array, ""] = 0.5,
    where: Members = None,
) -> Float[Array, "..."]:
    """Between the bag-level and the instance-level loss: the former, and a share of the variance.

    `(1 - r) (ybar - mean_i f_i)^2 + r mean_i (ybar - f_i)^2 = (ybar - mean_i f_i)^2 + r Var_i f_i`.
    The instance-level loss is the bag-level one regularized towards equal predictions in a bag.

    Args:
      predictions: the predictions `f` of the members of each bag [..., size].
      responses: the mean response `ybar` of each bag [...].
      instance_weight: `r` (rho) from 0, the bag-level loss, to 1, the instance-level one.
      where: which members are there, for bags of different sizes [..., size]; a bag without any
        has loss zero.

    Returns:
      One loss a bag [...].

    Raises:
      ValueError: if a shape, a dtype or `instance_weight` does not fit.

    Source: Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions, arXiv
    2401.11081, the interpolating estimator and the lemma that links both losses. There is no public
    code.

    >>> f, y = jnp.array([[1.0, 3.0]]), jnp.array([2.5])
    >>> interpolated_bag_loss(f, y, instance_weight=0.5).tolist()
    [0.75]
    """
    check_range("instance_weight", instance_weight, 0, 1)
    gap, variance, there = _moments(predictions, responses, where)
    loss = jnp.where(there, jnp.square(gap) + instance_weight * variance, 0)
    return restore(loss, predictions, responses)


def bag_level_loss(
    predictions: Bags, responses: Float[Array, "..."], *, where: Members = None
) -> Float[Array, "..."]:
    """The squared error of a bag's mean prediction.

    `(ybar - mean_i f_i)^2`.

    Args:
      predictions: the predictions of the members of each bag [..., size].
      responses: the mean response of each bag [...].
      where: which members are there [..., size].

    Returns:
      One loss a bag [...].

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions, arXiv
    2401.11081, the bag-level loss.

    >>> bag_level_loss(jnp.array([[1.0, 3.0]]), jnp.array([2.5])).tolist()
    [0.25]
    """
    return interpolated_bag_loss(predictions, responses, instance_weight=0.0, where=where)


def instance_level_loss(
    predictions: Bags, responses: Float[Array, "..."], *, where: Members = None
) -> Float[Array, "..."]:
    """The squared error of every member of a bag, each given the bag's response.

    `mean_i (ybar - f_i)^2`.

    Args:
      predictions: the predictions of the members of each bag [..., size].
      responses: the mean response of each bag [...].
      where: which members are there [..., size].

    Returns:
      One loss a bag [...].

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions, arXiv
    2401.11081, the instance-level loss.

    >>> instance_level_loss(jnp.array([[1.0, 3.0]]), jnp.array([2.5])).tolist()
    [1.25]
    """
    return interpolated_bag_loss(predictions, responses, instance_weight=1.0, where=where)


def private_bag_responses(
    key: Key[Array, ""], responses: Bags, *, bound: float, epsilon: float
) -> Float[Array, "..."]:
    """Mean responses of bags, noisy enough to be private for each member's label.

    `mean_i clip(y_i, -C, C) + Laplace(2 C / (k e))`: changing one response moves the mean by at
    most `2 C / k`, so the release is `e`-label-differentially private where bags do not overlap.
    Larger bags need less noise.

    Args:
      key: a random key [].
      responses: the members' responses [..., size].
      bound: `C`, to which responses are clipped.
      epsilon: `e`, the privacy budget.

    Returns:
      One noisy mean a bag [...].

    Raises:
      ValueError: if `key` is none, `responses` not floating point with members, or a number not
        positive.

    Source: Learning from Aggregate responses: Instance Level versus Bag Level Loss Functions, arXiv
    2401.11081, the label-private mechanism; the Laplace mechanism with the sensitivity of a mean.

    >>> y = jnp.array([[1.0, 3.0], [0.0, 9.0]])
    >>> out = private_bag_responses(jax.random.key(0), y, bound=5.0, epsilon=1e6)
    >>> np.asarray(out, float).round(2)
    array([2. , 2.5])
    """
    check_key(key=key)
    check_floating(responses=responses)
    check_rank("responses", responses, 1, at_least=True)
    size = jnp.shape(responses)[-1]
    check(size > 0, "responses", "got empty bags, takes one or more on the last axis")
    check_positive(bound=bound, epsilon=epsilon)
    y = jnp.mean(jnp.clip(upcast(responses), -bound, bound), -1)
    noise = jax.random.laplace(key, y.shape, y.dtype)
    return restore(y + 2 * bound / (size * epsilon) * noise, responses)
