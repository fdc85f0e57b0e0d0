"""Sums over the classes of a linear layer, in chunks, with their derivatives to second order."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..kernels.op import Op, transposes
from ..numerics import accumulation_dtype

# What follows works on x [n, d], W [d, v], b [v] or None and labels y [n]. For each example there
# are three sums over the classes, of u = z - c with one number c an example:
#
#     sum_k phi(u_k),  the label's u_y,  sum_k u_k,
#
# where phi is the `kind`: "squares", "magnitudes", or the exponential, over all classes ("softmax")
# or without the label ("others"). Of the exponential `log_sums` returns the logarithm
# l = log sum_k exp(z_k), and the label and the total of z; with c = l the sum is one.
#
# The first and second derivatives of both are those of the potential, with weights
# g = (g_p, g_y, g_s) of the three results,
#
#     Psi(x, W, b, c; g) = sum_i [ g_p sum_k phi(z_k - c) + g_y z_y + g_s sum_k z_k ],
#
# at c fixed: the transposed derivative is its gradient in (x, W, b), and the derivative of that its
# Hessian in (x, W, b, c), which is symmetric and so its own transpose. The chain through l, and
# with it every order of differentiation up to the second, is left to JAX.


def _phi(kind: str, u: Array) -> Array:
    return jnp.square(u) if kind == "squares" else jnp.abs(u)


def _slopes(kind: str, u: Array, is_label: Array) -> tuple[Array, Array]:
    """The first and the second derivative of phi."""
    if kind == "squares":
        return 2 * u, jnp.full_like(u, 2)
    if kind == "magnitudes":
        return jnp.sign(u), jnp.zeros_like(u)
    p = jnp.exp(u)
    if kind == "others":
        p = jnp.where(is_label, 0, p)
    return p, p


def _walk(
    arrays: tuple[Any, ...], chunk: int, init: Any, body: Callable[..., Any], like: Any
) -> tuple[Any, Any]:
    """`carry, columns = body(carry, *slices, start, fresh)` over chunks of the last axis.

    The `columns` of all chunks are put together, in the shapes and dtypes of the arrays `like`. The
    last chunk ends with the last class: `fresh` says which of its classes were not seen before.
    """
    classes = arrays[0].shape[-1]
    steps = -(-classes // chunk)

    def step(i: Array, state: Any) -> Any:
        carry, out = state
        start = jnp.minimum(i * chunk, classes - chunk)
        fresh = None if classes % chunk == 0 else start + jnp.arange(chunk) >= i * chunk
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=chunk)
        slices = (None if a is None else part(a, axis=a.ndim - 1) for a in arrays)
        carry, columns = body(carry, *slices, start, fresh)

        def put(whole: Array, new: Array) -> Array:
            axis = whole.ndim - 1
            if fresh is not None:  # classes seen before keep what they have
                new = jnp.where(fresh, new, part(whole, axis=axis).astype(new.dtype))
            new = new.astype(whole.dtype)
            return jax.lax.dynamic_update_slice_in_dim(whole, new, start, axis)

        return carry, jax.tree.map(put, out, columns)

    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    return jax.lax.fori_loop(0, steps, step, (init, empty))


class _Products:
    """Matrix products of one call: operands in the inputs' dtype, sums in a wider one."""

    def __init__(self, *inputs: Any):
        inputs = tuple(a for a in inputs if a is not None)
        self.wide = accumulation_dtype(*inputs)
        dtype = jnp.result_type(*inputs)
        # The probabilities of a large vocabulary are below the smallest float16.
        self.dtype = self.wide if dtype == jnp.float16 else dtype

    def _dot(self, spec: str, a: Array, b: Array) -> Array:
        a, b = a.astype(self.dtype), b.astype(self.dtype)
        return jnp.einsum(spec, a, b, preferred_element_type=self.wide)

    def logits(self, x: Array, w: Array, b: Array | None = None) -> Array:
        z = self._dot("nd,dv->nv", x, w)
        return z if b is None else z + b.astype(self.wide)

    def to_x(self, dz: Array, w: Array) -> Array:
        return self._dot("nv,dv->nd", dz, w)

    def to_w(self, x: Array, dz: Array) -> Array:
        return self._dot("nd,nv->dv", x, dz)


def _is_label(y: Array, start: Array, chunk: int) -> Array:
    return (y - start)[:, None] == jnp.arange(chunk, dtype=y.dtype)


def _only(fresh: Array | None, values: Array, other: float = 0.0) -> Array:
    return values if fresh is None else jnp.where(fresh, values, other)


def _log_sums_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    del along
    x, W, b = at
    product = _Products(*at)
    zeros = jnp.zeros(x.shape[0], product.wide)

    def body(carry: Any, w: Array, b: Array | None, start: Array, fresh: Array | None) -> Any:
        top, mass, label, total = carry
        z = product.logits(x, w, b)
        is_label = _is_label(y, start, chunk)
        seen = _only(fresh, z)
        z = _only(fresh, z, -jnp.inf)
        if kind == "others":
            z = jnp.where(is_label, -jnp.inf, z)
        higher = jnp.maximum(top, jnp.max(z, -1))
        shift = jnp.where(higher == -jnp.inf, 0, higher)  # no class yet
        mass = mass * jnp.exp(top - shift) + jnp.sum(jnp.exp(z - shift[:, None]), -1)
        label += jnp.sum(jnp.where(is_label, seen, 0), -1)
        return (higher, mass, label, total + jnp.sum(seen, -1)), ()

    init = (jnp.full_like(zeros, -jnp.inf), zeros, zeros, zeros)
    (top, mass, label, total), _ = _walk((W, b), chunk, init, body, ())
    some = mass > 0
    log_z = jnp.where(some, top, 0) + jnp.log(jnp.where(some, mass, 1))
    return jnp.where(some, log_z, float(jnp.finfo(product.wide).min) / 2), label, total


def _sums_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    del along
    x, W, b, c = at
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, start: Any, fresh: Any) -> Any:
        u = _only(fresh, product.logits(x, w, b) - c[:, None])
        parts = (_phi(kind, u), jnp.where(_is_label(y, start, chunk), u, 0), u)
        return tuple(s + jnp.sum(part, -1) for s, part in zip(carry, parts)), ()

    return _walk((W, b), chunk, (jnp.zeros_like(c),) * 3, body, ())[0]


def _tangent_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    """The derivative of the sums along a tangent of (x, W, b), at a given c."""
    x, W, b, c = at
    x_dot, W_dot, b_dot = along
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, w_dot: Any, b_dot: Any, start: Any, fresh: Any) -> Any:
        is_label = _is_label(y, start, chunk)
        first, _ = _slopes(kind, product.logits(x, w, b) - c[:, None], is_label)
        z_dot = _only(fresh, product.logits(x_dot, w) + product.logits(x, w_dot, b_dot))
        parts: tuple[Any, ...] = (first, is_label, 1)
        return tuple(s + jnp.sum(part * z_dot, -1) for s, part in zip(carry, parts)), ()

    return _walk((W, b, W_dot, b_dot), chunk, (jnp.zeros_like(c),) * 3, body, ())[0]


def _cotangent_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    """The gradient of Psi in (x, W, b)."""
    x, W, b, c = at
    g_p, g_y, g_s = (g[:, None] for g in along)
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, start: Any, fresh: Any) -> Any:
        is_label = _is_label(y, start, chunk)
        first, _ = _slopes(kind, product.logits(x, w, b) - c[:, None], is_label)
        dz = _only(fresh, g_p * first + g_y * is_label + g_s)
        columns = (product.to_w(x, dz), None if b is None else jnp.sum(dz, 0))
        return carry + product.to_x(dz, w), columns

    init = jnp.zeros(x.shape, product.wide)
    dx, (dW, db) = _walk((W, b), chunk, init, body, (W, b))
    return dx.astype(x.dtype), dW, db


def _hessian_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    """The Hessian of Psi in (x, W, b, c) times a vector."""
    x, W, b, c, g = at
    x_dot, W_dot, b_dot, c_dot = along
    g_p, g_y, g_s = (a[:, None] for a in g)
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, w_dot: Any, b_dot: Any, start: Any, fresh: Any) -> Any:
        dx, dc = carry
        is_label = _is_label(y, start, chunk)
        first, second = _slopes(kind, product.logits(x, w, b) - c[:, None], is_label)
        dz = _only(fresh, g_p * first + g_y * is_label + g_s)
        z_dot = product.logits(x_dot, w) + product.logits(x, w_dot, b_dot)
        dz_dot = _only(fresh, g_p * second * (z_dot - c_dot[:, None]))
        dx += product.to_x(dz_dot, w) + product.to_x(dz, w_dot)
        dw = product.to_w(x, dz_dot) + product.to_w(x_dot, dz)
        columns = (dw, None if b is None else jnp.sum(dz_dot, 0))
        return (dx, dc - jnp.sum(dz_dot, -1)), columns

    init = (jnp.zeros(x.shape, product.wide), jnp.zeros_like(c))
    (dx, dc), (dW, db) = _walk((W, b, W_dot, b_dot), chunk, init, body, (W, b))
    return dx.astype(x.dtype), dW, db, dc


def _curve_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    """The derivative of `_tangent` along a tangent of (x, W, b, c), by example."""
    x, W, b, c, (x_one, W_one, b_one) = at
    x_dot, W_dot, b_dot, c_dot = along
    product = _Products(x, W, b)

    def body(
        carry: Any, w: Any, b: Any, w_one: Any, b_one: Any, w_dot: Any, b_dot: Any, *where: Any
    ) -> Any:
        start, fresh = where
        is_label = _is_label(y, start, chunk)
        first, second = _slopes(kind, product.logits(x, w, b) - c[:, None], is_label)
        z_one = product.logits(x_one, w) + product.logits(x, w_one, b_one)
        z_dot = product.logits(x_dot, w) + product.logits(x, w_dot, b_dot)
        both = product.logits(x_one, w_dot) + product.logits(x_dot, w_one)
        new = (
            first * both + second * z_one * (z_dot - c_dot[:, None]),
            jnp.where(is_label, both, 0),
            both,
        )
        return tuple(s + jnp.sum(_only(fresh, n), -1) for s, n in zip(carry, new)), ()

    arrays = (W, b, W_one, b_one, W_dot, b_dot)
    return _walk(arrays, chunk, (jnp.zeros_like(c),) * 3, body, ())[0]


def _curve_transpose_fun(at: Any, along: Any, y: Any, *, chunk: int, kind: str) -> Any:
    *point, c, one = at
    vector = (*one, jnp.zeros_like(c))
    return _hessian_fun((*point, c, along), vector, y, chunk=chunk, kind=kind)


log_sums = Op("linear_log_sum", _log_sums_fun)
sums = Op("linear_sums", _sums_fun)
_tangent = Op("linear_sums_tangent", _tangent_fun)
_cotangent = Op("linear_sums_cotangent", _cotangent_fun)
_hessian = Op("linear_sums_hessian", _hessian_fun)
_curve = Op("linear_sums_curve", _curve_fun)
_curve_transpose = Op("linear_sums_curve_transpose", _curve_transpose_fun)
transposes(_tangent, _cotangent)
transposes(_hessian, _hessian)
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
    moved = _hessian((*at, along), at_dot, y, **static)[:3]
    return _cotangent(at, along, y, **static), _add(_cotangent(at, along_dot, y, **static), moved)
