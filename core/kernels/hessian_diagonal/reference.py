"""The step of one leaf, in plain JAX: the backends run these formulas on their tiles."""

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


def step(
    constants: Constants, numbers: Numbers, p: Any, g: Any, d: Any, m: Any, v: Any
) -> tuple[Any, Any, Any]:
    """New parameters, mu and nu of leaves [window, ...], with v at its averaged shape [1, ...]."""
    c = constants
    wide = accumulation_dtype(p, g, m, v)
    p, g, d, m, v = (x.astype(wide) for x in (p, g, d, m, v))
    m = c.b1 * m + (1 - c.b1) * g
    s = jnp.mean(jnp.abs(d) if c.average_of == "abs" else d, axis=0, keepdims=True)
    new = c.b2 * v + (1 - c.b2) * s * s
    # An overflow in one estimate must not outlive it in an average.
    v = jnp.where((numbers.valid > 0) & (jnp.abs(new) < jnp.inf), new, v)
    root = jnp.maximum(jnp.sqrt(v / numbers.nu_correction), c.min_curvature)
    power = root if c.hessian_power == 1 else jnp.power(root, c.hessian_power)
    denominator = jnp.where(numbers.known > 0, power + c.eps, 1)
    update = safe_divide(m / numbers.correction, denominator)
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
