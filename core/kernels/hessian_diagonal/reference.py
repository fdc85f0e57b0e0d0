"""The step of one leaf, in plain JAX: backends and `papyrax.optim` run these formulas."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...numerics import accumulation_dtype, safe_divide


@dataclasses.dataclass(frozen=True)
class Constants:
    """What is known when the step is compiled."""

    b1: float
    b2: float
    eps: float
    hessian_power: float
    min_curvature: float
    average_of: str


class Numbers(NamedTuple):
    """What changes from step to step, scalars [].

    Attributes:
      learning_rate: the step.
      decay: decoupled decay, before the learning rate.
      correction: 1 - b1^count.
      nu_correction: 1 - b2^refreshes.
      valid: whether there is a new diagonal, 0 or 1.
      known: whether there has ever been one, 0 or 1.
    """

    learning_rate: Any
    decay: Any
    correction: Any
    nu_correction: Any
    valid: Any
    known: Any


def moving_average(decay: Any, old: Any, new: Any) -> Any:
    """`decay old + (1 - decay) new`, in the dtype of `old`."""
    wide = accumulation_dtype(old, new)
    return (decay * old.astype(wide) + (1 - decay) * new.astype(wide)).astype(old.dtype)


def second_moment(b2: Any, v: Any, s: Any) -> Any:
    """The average of squares with those of `s`, but for entries that this would make infinite.

    An overflow in one estimate, or in the dtype of the average, must not outlive it.
    """
    wide = accumulation_dtype(s, v)
    new = moving_average(b2, v, jnp.square(s.astype(wide))).astype(wide)
    return jnp.where(jnp.abs(new) < jnp.inf, new, v.astype(wide)).astype(v.dtype)


def direction(m: Any, root: Any, correction: Any, known: Any, eps: Any, power: Any) -> Any:
    """The unbiased momentum over a power of the curvature, which is 1 until it is known."""
    is_one = isinstance(power, int | float) and power == 1
    denominator = (root if is_one else jnp.power(root, power)) + eps
    return safe_divide(m / correction, jnp.where(known, denominator, 1))


def step(
    constants: Constants, numbers: Numbers, p: Any, g: Any, d: Any, m: Any, v: Any
) -> tuple[Any, Any, Any]:
    """New parameters, mu and nu of leaves [window, ...], with v at its averaged shape [1, ...]."""
    c = constants
    wide = accumulation_dtype(p, g, m, v)
    d = d.astype(accumulation_dtype(d, v))
    s = jnp.mean(jnp.abs(d) if c.average_of == "abs" else d, axis=0, keepdims=True)
    m = moving_average(c.b1, m, g)
    new = second_moment(c.b2, v, s)
    v = jnp.where(numbers.valid > 0, new.astype(wide), v.astype(wide))
    root = jnp.maximum(jnp.sqrt(v / numbers.nu_correction), c.min_curvature)
    known = numbers.known > 0
    update = direction(m.astype(wide), root, numbers.correction, known, c.eps, c.hessian_power)
    p = p.astype(wide)
    return p - numbers.learning_rate * (update + numbers.decay * p), m, v


def run(
    constants: Constants, numbers: Numbers, leaves: list[tuple[jax.Array, ...]]
) -> list[tuple[jax.Array, ...]]:
    """The step of every leaf, given as (p, g, d, m, v)."""

    def one(leaf: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        p, _, _, m, v = leaf
        return tuple(
            new.astype(old.dtype)
            for new, old in zip(step(constants, numbers, *leaf), (p, m, v), strict=True)
        )

    return [one(leaf) for leaf in leaves]
