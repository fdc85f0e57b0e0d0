"""What several families of losses share: reading labels, masks and sums of exponentials."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
)


def everyone(tree: Any, axis_name: str | None) -> Any:
    """The rows of all devices of the axis, one below the other; as they are for None."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda a: jax.lax.all_gather(a, axis_name, tiled=True), tree)


def rows_before(count: int, axis_name: str | None) -> int | Int[Array, ""]:
    """How many rows the devices before this one have, of `count` rows each."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * count


def rows_of_all(count: int, axis_name: str | None) -> int:
    """How many rows all devices have together, of `count` each."""
    return count if axis_name is None else count * jax.lax.axis_size(axis_name)


def mean_of_devices(value: Any, axis_name: str | None) -> Any:
    """The mean over all devices of the axis; the value itself for None."""
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def mean_of_rows(values: Array, axis_name: str | None) -> Array:
    """The mean over the rows of all devices of the axis."""
    return mean_of_devices(jnp.mean(values, 0), axis_name)


def check_labels(logits: Any, labels: Any, name: str = "logits") -> None:
    """Raise unless `logits` is a floating [..., classes] and `labels` an integer [...]."""
    check_floating(**{name: logits})
    check_rank(name, logits, 1, at_least=True)
    check(jnp.shape(logits)[-1] > 0, name, "got no classes, takes one or more on the last axis")
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(logits)[:-1], f"[...], one a row of {name}")


def check_targets(logits: Any, targets: Any, name: str = "targets") -> None:
    """Raise unless both are floating [..., classes] of one shape."""
    check_floating(**{"logits": logits, name: targets})
    check_rank("logits", logits, 1, at_least=True)
    check(jnp.shape(logits)[-1] > 0, "logits", "got no classes, takes one or more on the last axis")
    check_shape(name, targets, jnp.shape(logits), "[..., classes], as logits")


def class_mask(where: Any, logits: Any) -> Bool[Array, "..."] | None:
    """`where` as a mask that broadcasts to logits [..., classes].

    A mask with one axis less than `logits` says which examples are there, one with as many axes
    which classes; the rule of `optax.losses`.
    """
    if where is None:
        return None
    where = jnp.asarray(where)
    check_boolean(where=where)
    if where.ndim == jnp.ndim(logits) - 1:
        where = where[..., None]
    check_broadcastable("where", where, jnp.shape(logits), "[..., classes], or [...] for examples")
    return jnp.broadcast_to(where, jnp.shape(logits))


def _wide(labels: Int[Array, "..."]) -> Int[Array, "..."]:
    """Labels in a dtype that holds the number of classes, too: 300 do not fit one byte."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def as_index(labels: Int[Array, "..."], classes: int) -> Int[Array, "..."]:
    """Labels as indices: those below zero, which would count from the last class, beyond all."""
    labels = _wide(labels)
    return jnp.where(labels < 0, classes, labels)


def pick(values: Array, labels: Int[Array, "..."]) -> Array:
    """The entry of each row of values [..., classes] that its label names: [...].

    NaN where the label is none of the classes: what is wrong with the data is to be seen.
    """
    index = as_index(labels, values.shape[-1])[..., None]
    return jnp.take_along_axis(values, index, axis=-1)[..., 0]


def is_label(labels: Int[Array, "..."], classes: int) -> Bool[Array, "... classes"]:
    """True at the label of each row, [..., classes]."""
    labels = _wide(labels)
    return labels[..., None] == jnp.arange(classes, dtype=labels.dtype)


def label_is_there(
    labels: Int[Array, "..."], where: Bool[Array, "... classes"]
) -> Bool[Array, "..."]:
    """Whether a row has classes, and its label is none that is masked out: [...].

    So a row without any is absent whatever its label is, such as the -100 of padding.
    """
    return jnp.any(where, -1) & ~jnp.any(is_label(labels, where.shape[-1]) & ~where, -1)


def pick_present(
    values: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    where: Bool[Array, "... classes"] | None,
) -> Float[Array, "..."]:
    """`pick`, but zero, without a derivative, where the label is masked out."""
    own = pick(values, labels)
    return own if where is None else jnp.where(label_is_there(labels, where), own, 0)


def log_sum_exp(
    values: Float[Array, "..."],
    where: Bool[Array, "..."] | None = None,
    axis: int = -1,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """`log sum exp` over the entries that are there; over none, minus infinity of gradient zero."""
    top, total = shifted_sum(values, where, axis)
    none = total == 0
    out = jnp.where(none, -jnp.inf, top + jnp.log(jnp.where(none, 1, total)))
    return out if keepdims else jnp.squeeze(out, axis)


def shifted_sum(
    values: Float[Array, "..."], where: Bool[Array, "..."] | None = None, axis: int = -1
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Largest entry, without gradient, and `sum exp(value - largest)`, with the axis kept."""
    there = values if where is None else jnp.where(where, values, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(there, axis=axis, keepdims=True, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return top, jnp.sum(jnp.exp(there - top), axis=axis, keepdims=True)


def others_log_odds(
    scores: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    where: Bool[Array, "... classes"] | None = None,
) -> Float[Array, "..."]:
    """`log(sum_{j != y} exp(f_j) / exp(f_y))`: the log-odds against the label.

    `softplus` of it is cross-entropy. Other than `logsumexp(f) - f_y`, which is exactly zero once
    the label's share rounds to one, it keeps the small probability of the other classes to full
    relative precision. Minus infinity where there is no other class.
    """
    others = ~is_label(labels, scores.shape[-1])
    if where is not None:
        others &= where
    top, total = (x[..., 0] for x in shifted_sum(scores, others))
    none = total == 0
    # The difference first: next to large scores the logarithm would lose its digits.
    odds = (top - pick_present(scores, labels, where)) + jnp.log(jnp.where(none, 1, total))
    return jnp.where(none, -jnp.inf, odds)


def sine(cosine: Float[Array, "..."]) -> Float[Array, "..."]:
    """`sin(arccos(c))`; a floor keeps its derivative finite at `c = +-1`."""
    floor = 16 * jnp.finfo(cosine.dtype).eps
    inside = 1 - cosine * cosine
    return jnp.where(inside > floor, jnp.sqrt(jnp.where(inside > floor, inside, 1)), 0)


def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log(1 + exp(x))` with finite derivatives of every order at plus and minus infinity."""
    none = x == -jnp.inf
    return jnp.where(none, 0, jax.nn.softplus(jnp.where(none, 0, x)))


def keep_present(
    loss: Float[Array, "..."], labels: Int[Array, "..."], where: Bool[Array, "..."] | None
) -> Float[Array, "..."]:
    """`loss` with zero for the examples whose own label is masked out."""
    return loss if where is None else jnp.where(label_is_there(labels, where), loss, 0)


def exp_with_linear_tail(x: Float[Array, "..."], minus_one: bool = False) -> Float[Array, "..."]:
    """`exp(x)`, or `expm1(x)`, that goes on along its tangent where it would leave the dtype."""
    # Two thirds of the largest exponent leave room for a factor of `x` itself.
    cap = math.log(float(jnp.finfo(x.dtype).max)) * 2 / 3
    below = jnp.minimum(x, cap)
    beyond = jnp.maximum(x - cap, 0)
    value = jnp.expm1(below) if minus_one else jnp.exp(below)
    return value + beyond * math.exp(cap)
