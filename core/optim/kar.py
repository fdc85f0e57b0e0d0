"""Descent along the signs of the gradient and of its averages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature.trees import is_floating
from ..numerics import check, check_range
from .decay import decayed_weights


class KarState(NamedTuple):
    """The averages of the gradient.

    Attributes:
      averages: one tree like the parameters for each decay.
    """

    averages: tuple[optax.Updates, ...]


def scale_by_kar(decays: Sequence[Any] = (0.5, 0.95)) -> optax.GradientTransformationExtraArgs:
    """Kar's rule alone: the sum of the signs of the gradient and of its averages.

        u = sign(g) + sum_k sign(e_k),   then   e_k <- decay_k e_k + (1 - decay_k) g

    The averages are those of the steps before, so they do not hold g yet. Every entry of u is one
    of the integers from -1 - K to 1 + K for K decays.

    Args:
      decays: of the averages, each in [0, 1). Two make Kar3; (0.95,) makes Kar2.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948; compared with hyperevolnet/Terminator `models/kar.py` (`Kar3`, `Kar2`).

    >>> tx, params = scale_by_kar(), jnp.zeros(2)
    >>> updates, state = tx.update(jnp.array([2.0, -1.0]), tx.init(params))
    >>> updates.tolist(), tx.update(jnp.array([2.0, 1.0]), state)[0].tolist()
    ([1.0, -1.0], [3.0, -1.0])
    """
    check(len(decays) > 0, "decays", "got none, takes one or more")
    for decay in decays:
        check_range("decays", decay, 0, 1, open_high=True)

    def init(params: Any) -> KarState:
        return KarState(tuple(optax.tree.zeros_like(params) for _ in decays))

    def update(updates: Any, state: KarState, params: Any = None, **_: Any) -> Any:
        def signs(g: jax.Array, *averages: jax.Array) -> jax.Array:
            if not is_floating(g):
                return g
            return sum((jnp.sign(e).astype(g.dtype) for e in averages), jnp.sign(g))

        def average(e: jax.Array, g: jax.Array, decay: Any) -> jax.Array:
            return (decay * e + (1 - decay) * g).astype(e.dtype) if is_floating(e) else e

        out = jax.tree.map(signs, updates, *state.averages)
        averages = tuple(
            jax.tree.map(lambda e, g, d=d: average(e, g, d), e, updates)
            for e, d in zip(state.averages, decays, strict=True)
        )
        return out, KarState(averages)

    return optax.GradientTransformationExtraArgs(init, update)


def kar(
    learning_rate: optax.ScalarOrSchedule,
    decays: Sequence[Any] = (0.5, 0.95),
    *,
    weight_decay: Any = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Kar: steps whose size is the learning rate times a small integer, whatever the gradient.

        p <- p - learning_rate (sign(g) + sum_k sign(e_k) + weight_decay p)

    with the averages e of `scale_by_kar`.

    Args:
      learning_rate: a number or a schedule; the authors' default is 1e-4.
      decays: of the averages; two make Kar3, (0.95,) makes Kar2.
      weight_decay: decoupled; the authors have none.
      mask: which leaves decay, as in `optax.add_decayed_weights`.

    Returns:
      A `GradientTransformationExtraArgs`; with weight decay its updates need `params`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: as `scale_by_kar`.

    >>> tx, params = kar(0.5), jnp.zeros(2)
    >>> tx.update(jnp.array([2.0, -7.0]), tx.init(params), params)[0].tolist()
    [-0.5, 0.5]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("weight_decay", weight_decay, 0)
    return optax.with_extra_args_support(
        optax.chain(
            scale_by_kar(decays),
            decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(learning_rate),
        )
    )
