"""The sums of linear attention and their derivatives of every order, which are such sums too.

Write `A(q, k, v, S) = (out, final)` for the sums over the past, and `A*` for those over the future;
over all keys, `A* = A`. As each product of q, k and v has all three once, and S stands for the
products k v of keys before the first, tangents (q', k', v', S') give

    out' = A(q', k, v, S) + A(q, [k' k], [v v'], S'),      final' = the second's

where [k' k] are two keys at each place in time. Cotangents (g, G) of (out, final) give

    dq = A(g, v, k, S^T),   dk = A*(v, g, q, G^T),   dv = A*(k, q, g, G),   dS = the last's final

The terms of both lines are `Op`s, linear in what is primed and transposes of each other. Each is
made of sums A, so the same two lines differentiate it: one kernel serves the derivatives of every
order, and there is none that falls back to a reference.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...numerics import check
from ..availability import check_known, check_reasons, kernels_of
from ..op import Op, transposes
from . import reference
from .operands import Config, Inputs, Sums, struct

IMPLEMENTATIONS = ("pallas_tpu", "pallas_triton", "interpret", "interpret_triton")


def _check(x: Inputs, config: Config, platform: str | None) -> None:
    """Raise unless the kernel can run; for None, on some platform."""
    name = config.implementation
    check_known(name, IMPLEMENTATIONS)
    if not name.startswith("interpret"):
        kernels = kernels_of(str(__package__), name)
        check_reasons(name, kernels.why_not(x, config, platform))
        reasons = kernels.bad_chunk(x, config)
        check(not reasons, "chunk_size", f"got {config.chunk}; {'; '.join(reasons)}")


def _run(x: Inputs, config: Config, platform: str) -> Sums:
    _check(x, config, platform)
    if 0 in (*x.query.shape, *x.value.shape):
        return reference.forward(x, config=config)  # no kernel has empty tiles
    name = config.implementation
    interpret = name.startswith("interpret")
    return kernels_of(str(__package__), name).run(x, config, interpret=interpret)


def _op(
    name: str,
    arrange: Callable[..., list[tuple[Inputs, Config]]],
    pick: Callable[..., Any],
) -> Op:
    """An op that runs the sums at some arrangements of its arguments and picks from the results.

    An arrangement is linear, so the tangents of the sums are those along the arranged tangents.
    """

    def fun(at: Any, along: Any, aux: Any, *, config: Config, platform: str) -> Any:
        return pick(*(_run(x, c, platform) for x, c in arrange(at, along, config)))

    def out(at: Any, along: Any, aux: Any, *, config: Config) -> Any:
        arranged = jax.eval_shape(lambda a, b: [x for x, _ in arrange(a, b, config)], at, along)
        return pick(*map(struct, arranged))

    op = Op(name, fun, out=out, by_platform=True)

    @op.def_jvp
    def _(at: Any, along: Any, aux: Any, at_dot: Any, along_dot: Any, *, config: Config) -> Any:
        arranged = zip(arrange(at, along, config), arrange(at_dot, along_dot, config), strict=True)
        moved = pick(*(_tangent(x, t, c) for (x, c), (t, _) in arranged))
        return op(at, along, config=config), moved

    return op


def _tangent(x: Inputs, t: Inputs, config: Config) -> Sums:
    moved = _read((x.key, x.value, x.initial), t.query, config=config)
    added = _write(x[:3], t[1:], config=config)
    return Sums(moved + added.out, added.final)


def _turn(state: Any) -> Any:
    return jnp.swapaxes(state, -1, -2)


def _both(a: Any, b: Any) -> Any:
    """Rows of a and of b, at the same places in time."""
    return jnp.concatenate([a, b], axis=2)


# at (q, k, v, S)
_sums = _op("linear_attention", lambda x, _, c: [(x, c)], lambda y: y)

# at (k, v, S) along q', and its transpose along g
_read = _op(
    "linear_attention_read",
    lambda at, q, c: [(Inputs(q, *at), c)],
    lambda y: y.out,
)
_read_back = _op(
    "linear_attention_read_transpose",
    lambda at, g, c: [(Inputs(g, at[1], at[0], _turn(at[2])), c)],
    lambda y: y.out,
)
transposes(_read, _read_back)

# at (q, k, v) along (k', v', S'), and its transpose along (g, G)
_write = _op(
    "linear_attention_write",
    lambda at, t, c: [(Inputs(at[0], _both(t[0], at[1]), _both(at[2], t[1]), t[2]), c)],
    lambda y: y,
)
_write_back = _op(
    "linear_attention_write_transpose",
    lambda at, g, c: [
        (Inputs(at[2], g[0], at[0], _turn(g[1])), c.turned),
        (Inputs(at[1], at[0], g[0], g[1]), c.turned),
    ],
    lambda of_key, of_value: (of_key.out, of_value.out, of_value.final),
)
transposes(_write, _write_back)


def linear_attention(x: Inputs, config: Config) -> Sums:
    """The sums of linear attention over keys, differentiable to any order by the same kernel.

    Args:
      x: the arrays to differentiate in.
      config: what is known when the program is traced.

    Returns:
      The sums for each query, and the state after all keys.

    Raises:
      ValueError: naming `implementation` or `chunk_size` where those asked for cannot run.
    """
    _check(x, config, None)
    return _sums(x, config=config)
