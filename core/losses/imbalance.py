"""Regression on imbalanced targets: features kept apart where predictions confuse them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from .batch_pairs import across
from .pairs import Block, either, negative, positive
from .similarity import pairwise_dot

Samples = Float[Array, "batch features"]


def conr_loss(
    features: Samples,
    targets: Float[Array, "batch"],
    predictions: Float[Array, "batch"],
    weights: Float[Array, "batch"] | None = None,
    *,
    window: float = 1.0,
    temperature: float = 0.07,
    push: float = 0.01,
    count_others: bool = False,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """ConR: features of far targets are pushed apart where predictions confuse them.

    With cosines over the temperature `s`, for anchor `i` the positives `|y_i - y_j| <= w` and the
    negatives `|y_i - y_j| > w` but `|yhat_i - yhat_j| <= w`, and the pushes
    `S_ij = r_i exp(e |y_i - y_j|)`: the mean over the positives of
    `-log(exp(s_ij) / (sum_p exp(s_ip) + sum_n S_in exp(s_in)))`, times the weight `r_i`. It is
    zero for an anchor without a negative or without a positive. Added to the loss of regression;
    two augmented views of each input give every anchor a positive.

    Args:
      features: the features before the last layer [batch, features].
      targets: the targets [batch].
      predictions: the predictions [batch]; no gradient goes through them.
      weights: `r`, larger for rarer targets, zero or more [batch]; None for ones.
      window: `w`, within which targets or predictions are alike.
      temperature: divides the cosines.
      push: `e`, how a negative's push grows with the distance of targets.
      count_others: add one to the denominator for every pair that is no positive, as the authors'
        code does.
      chunk_size: look at so many examples at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the examples round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: ConR: Contrastive Regularizer for Deep Imbalanced Regression, arXiv 2309.06651, Eq. 2
    to 4. `ConR` in `agedb-dir/loss.py` of BorealisAI/ConR is the mean of this with
    `count_others=True` where every anchor has a positive, and NaN where one has none; it takes the
    temperature 0.07 whatever is asked for.

    >>> f = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> y, guess = jnp.array([0.0, 0.5, 9.0]), jnp.array([0.0, 5.0, 0.0])
    >>> np.asarray(conr_loss(f, y, guess, temperature=1.0, push=0.0), float).round(3)
    array([1.313, 0.   , 0.   ])
    """
    check_floating(features=features, targets=targets, predictions=predictions)
    check_rank("features", features, 2)
    check(jnp.shape(features)[0] > 0, "features", "got no rows, takes one or more")
    check_shape("targets", targets, jnp.shape(features)[:1], "[batch], one a row of features")
    check_shape("predictions", predictions, jnp.shape(targets), "[batch], as targets")
    check_positive(temperature=temperature)
    check_range("window", window, 0)
    check_range("push", push, 0)
    f, *fixed = upcast(features, targets, predictions)
    y, guess = map(jax.lax.stop_gradient, fixed)
    rarity = jnp.ones_like(y)
    if weights is not None:
        check_floating(weights=weights)
        check_shape("weights", weights, jnp.shape(targets), "[batch], as targets")
        rarity = jax.lax.stop_gradient(jnp.asarray(weights, f.dtype))

    def pushed_cosine(a: Array, b: Array) -> Array:
        apart = jnp.abs(a[:, -1:] - b[:, -1])
        return pairwise_dot(a[:, :-1], b[:, :-1]) + jnp.where(apart > window, push * apart, 0)

    def relate(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        near, alike = (jnp.abs(u[:, None] - v) <= window for u, v in zip(a, b))
        return near, ~near & alike

    # Targets travel with the features, so that the pushes are formed block by block as well.
    unit = safe_normalize(f)
    pairs = across(
        jnp.concatenate([unit / temperature, y[:, None]], 1),
        jnp.concatenate([unit, y[:, None]], 1),
        compare=pushed_cosine,
        labels=(y, guess),
        reference_labels=(y, guess),
        relate=relate,
        exclude_self=True,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    there = rarity > 0
    log_rarity = jnp.log(jnp.where(there, rarity, 1))
    lowest = jnp.finfo(f.dtype).min

    def term(b: Block, log_rarity: Array, there: Array) -> Array:
        weighted = jnp.where(there > 0, b.values + log_rarity, lowest)
        return jnp.where(b.positive, b.values, weighted)

    total = pairs.log_sum_exp(term, either, log_rarity, there)
    positives, negatives = pairs.count(positive), pairs.count(negative)
    if count_others:
        # The anchor itself is one of them.
        total = jnp.logaddexp(total, jnp.log(pairs.size - positives))
    mean = pairs.total(lambda b: jnp.where(b.positive, b.values, 0)) / jnp.maximum(positives, 1)
    has = (positives > 0) & (negatives > 0)
    loss = rarity * jnp.where(has, jnp.where(has, total, 0) - mean, 0)
    return restore(loss, features, targets, predictions)
