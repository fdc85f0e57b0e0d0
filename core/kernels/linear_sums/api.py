"""Chooses the implementation of the sums over classes, and wires their derivatives.

What follows works on x [n, d], W [d, v], b [v] or None and labels y [n]. For each example there are
three sums over the classes, of u = z - c with z = x W + b and one number c an example:

    sum_k phi(u_k),  the label's u_y,  sum_k u_k,

where phi is the `kind`: "squares", "magnitudes", or the exponential, over all classes ("softmax")
or without the label ("others"). Of the exponential `log_sums` returns the logarithm
l = log sum_k exp(z_k), and the label and the total of z; with c = l the sum is one.

The first and second derivatives of both are those of the potential, with weights
g = (g_p, g_y, g_s) of the three results,

    Psi(x, W, b, c; g) = sum_i [ g_p sum_k phi(z_k - c) + g_y z_y + g_s sum_k z_k ],

at c fixed: the transposed derivative is its gradient in (x, W, b), and the derivative of that are
the rows (x, W, b) of its Hessian in (x, W, b, c, g), whose transpose are the columns, for the
Hessian is symmetric. The chain through l, and with it every order of differentiation up to the
second, is left to JAX. From the third on `reference` is differentiated, with logits in memory.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ...numerics import check, check_count
from ..availability import check_known, check_reasons, kernels_of
from ..op import Op, transposes
from . import passes, reference, xla
from .passes import Config, Pass, Tiles

IMPLEMENTATIONS = ("xla", "pallas_tpu", "pallas_triton", "interpret", "interpret_triton")


def check_implementation(config: Config, *arrays: Any) -> None:
    """Raise unless an implementation exists and takes these arrays in these tiles.

    Args:
      config: how the tiles are walked.
      *arrays: x [n, d], W [d, v] and b [v] or None.

    Raises:
      ValueError: naming `implementation` or `tiles`.
    """
    name = config.implementation
    check_known(name, (None, *IMPLEMENTATIONS))
    if config.tiles is not None:
        check(
            name not in (None, "xla"),
            "tiles",
            f"got {config.tiles} for {name!r}, which walks chunks of `chunk_size` classes",
        )
        check(len(config.tiles) == 3, "tiles", f"got {config.tiles}, takes three numbers")
        check_count(**{f"tiles[{i}]": n for i, n in enumerate(config.tiles)})
    if name in ("pallas_tpu", "pallas_triton"):
        kernels = kernels_of(str(__package__), name)
        x, w, b = arrays
        inputs = [a for a in (x, w, b) if a is not None]
        check_reasons(name, kernels.why_not([a.dtype for a in inputs], None))
        if config.tiles is not None:
            reasons = kernels.bad_tiles(config.tiles, (x.shape[0], w.shape[1], x.shape[1]))
            check(not reasons, "tiles", f"got {config.tiles} for {name!r}; {'; '.join(reasons)}")


def _run(work: Pass, config: Config, platform: Any) -> Tiles:
    name = config.implementation
    if name in (None, "xla"):
        return xla.run(work, config.chunk)
    kernels, interpret = kernels_of(str(__package__), name), name.startswith("interpret")
    if not interpret:
        check_reasons(name, kernels.why_not([a.dtype for a in work.inputs], platform))
    return kernels.run(work, config, interpret)


def _log_sums_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    del along
    found = _run(passes.log_sums(at, y, kind), config, platform)
    top, mass = found["top"], found["mass"]
    some = mass > 0
    log_z = jnp.where(some, top, 0) + jnp.log(jnp.where(some, mass, 1))
    lowest = float(jnp.finfo(mass.dtype).min) / 2
    return jnp.where(some, log_z, lowest), found["label"], found["total"]


def _parts(found: Tiles) -> Any:
    return tuple(found[name] for name in passes.PARTS)


def _sums_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    del along
    return _parts(_run(passes.sums(at, y, kind), config, platform))


def _tangent_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    return _parts(_run(passes.tangent(at, along, y, kind), config, platform))


def _cotangent_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    found = _run(passes.cotangent(at, along, y, kind), config, platform)
    return found["x"], found["w"], found.get("b")


def _hessian_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    """Of a tangent of (x, W, b, c, g), the change of the gradient."""
    found = _run(passes.hessian(at, along, y, kind, numbers=False), config, platform)
    return found["x"], found["w"], found.get("b")


def _hessian_transpose_fun(
    at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any
) -> Any:
    zero = jnp.zeros_like(at[3])
    along = (*along, zero, (zero,) * 3)
    found = _run(passes.hessian(at, along, y, kind, numbers=True), config, platform)
    return found["x"], found["w"], found.get("b"), found["c"], _parts(found)


def _curve_fun(at: Any, along: Any, y: Any, *, config: Config, kind: str, platform: Any) -> Any:
    return _parts(_run(passes.curve(at, along, y, kind), config, platform))


def _curve_transpose_fun(at: Any, along: Any, y: Any, **static: Any) -> Any:
    *point, one = at
    return _hessian_transpose_fun((*point, along), one, y, **static)[:4]


def _like(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def _three(at: Any, along: Any, y: Any, **_: Any) -> Any:
    """Three numbers an example, in the dtype of sums."""
    work = passes.log_sums(at[:3], y, "softmax")
    return (jax.ShapeDtypeStruct(y.shape, work.wide),) * 3


def _first(count: int) -> Any:
    return lambda at, along, y, **_: _like(at[:count])


def _op(name: str, fun: Any, out: Any, reference: Any = None) -> Op:
    return Op(name, fun, out=out, reference=reference, by_platform=True)


log_sums = _op("linear_log_sum", _log_sums_fun, _three)
sums = _op("linear_sums", _sums_fun, _three)
_tangent = _op("linear_sums_tangent", _tangent_fun, _three)
_cotangent = _op("linear_sums_cotangent", _cotangent_fun, _first(3))
_hessian = _op("linear_sums_hessian", _hessian_fun, _first(3), reference.hessian)
_hessian_transpose = _op(
    *("linear_sums_hessian_transpose", _hessian_transpose_fun, _first(5)),
    reference.hessian_transpose,
)
_curve = _op("linear_sums_curve", _curve_fun, _three, reference.curve)
_curve_transpose = _op(
    *("linear_sums_curve_transpose", _curve_transpose_fun, _first(4)), reference.curve_transpose
)
transposes(_tangent, _cotangent)
transposes(_hessian, _hessian_transpose)
transposes(_curve, _curve_transpose)


@log_sums.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, **static: Any) -> Any:
    out = log_sums(at, along, y, **static)
    return out, _tangent((*at, out[0]), at_dot, y, **static)


@sums.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, **static: Any) -> Any:
    # The centre is a constant: its tangent, the last of `at_dot`, is zero.
    return sums(at, along, y, **static), _tangent(at, at_dot[:3], y, **static)


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


@_tangent.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, **static: Any) -> Any:
    moved = _curve((*at, along), at_dot, y, **static)
    return _tangent(at, along, y, **static), _add(_tangent(at, along_dot, y, **static), moved)


@_cotangent.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, **static: Any) -> Any:
    moved = _hessian((*at, along), (*at_dot, along_dot), y, **static)
    return _cotangent(at, along, y, **static), moved
