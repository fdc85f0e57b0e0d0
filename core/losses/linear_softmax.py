"""Cross-entropy of a linear layer over a large vocabulary, in memory that logits never enter."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..kernels.op import Op, transposes
from ..numerics import (
    accumulation_dtype,
    check,
    check_count,
    check_floating,
    check_integer,
    check_range,
    check_rank,
    check_shape,
    restore,
)


def linear_softmax_cross_entropy(
    hidden: Float[Array, "... features"],
    kernel: Float[Array, "features classes"],
    labels: Int[Array, "..."],
    *,
    bias: Float[Array, "classes"] | None = None,
    label_smoothing: float = 0.0,
    z_loss_weight: float = 0.0,
    chunk_size: int = 2048,
    axis_name: str | tuple[str, ...] | None = None,
) -> Float[Array, "..."]:
    """Softmax cross-entropy of `hidden @ kernel + bias` without its matrix of logits.

    With `z = x W + b` and `Z = sum_k exp(z_k)`,

        log Z - (1 - s) z_y - s mean_k z_k + w (log Z)^2

    where `s` is `label_smoothing` and `w` `z_loss_weight`. The classes are walked in chunks: the
    value, the gradient and products of the Hessian with a vector, in forward and in reverse mode,
    hold no more than a few [..., chunk_size] arrays beside their inputs and results. Logits are
    computed again where a derivative needs them: value and gradient take four matrix products
    where the logits in memory take three.

    For a vocabulary that is sharded over devices, call it inside `jax.shard_map` with `kernel` and
    `bias` split along the classes and name the mesh axis in `axis_name`; a program that XLA
    partitions by itself would gather the kernel instead.

    Args:
      hidden: inputs of the last layer [..., features].
      kernel: its weights [features, classes]; inside a `shard_map`, this device's classes.
      labels: the right class of each example [...], from 0 on, counted over all devices. A label
        outside of the vocabulary has no logit: its term `z_y` is zero.
      bias: one number a class [classes], or None.
      label_smoothing: `s`, the share of the target spread over all classes.
      z_loss_weight: `w`, which pulls `log Z` to zero; 1e-4 where large language models use it.
      chunk_size: classes at a time.
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.

    Returns:
      One loss an example [...]. Products take operands in the input's dtype (float16: in float32)
      and are summed in float32, or in float64 for that.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, or a hyper-parameter out of range.

    Source: Cut Your Losses in Large-Vocabulary Language Models, arXiv 2411.09009, section 4 (the
    loss in blocks; the tangents and the chunks of the derivatives are this library's), and PaLM:
    Scaling Language Modeling with Pathways, arXiv 2204.02311, section 5, for the term in `log Z`.
    `linear_softmax_cross_entropy_loss` of openxla/tokamax is this function without bias, smoothing,
    `z_loss_weight` and second derivatives, and sums over the batch by default.

    >>> hidden, kernel = jnp.ones((2, 3)), jnp.zeros((3, 50_000))
    >>> loss = linear_softmax_cross_entropy(hidden, kernel, jnp.array([7, 49_999]))
    >>> bool(jnp.allclose(loss, jnp.log(50_000)))
    True
    """
    check_floating(hidden=hidden, kernel=kernel)
    check_rank("hidden", hidden, 1, at_least=True)
    check_shape("kernel", kernel, (np.shape(hidden)[-1], None), "[features, classes]")
    check(np.shape(kernel)[1] > 0, "kernel", "got no classes, takes one or more")
    check_integer(labels=labels)
    check_shape("labels", labels, np.shape(hidden)[:-1], "[...], one a row of hidden")
    if bias is not None:
        check_floating(bias=bias)
        check_shape("bias", bias, (np.shape(kernel)[1],), "[classes], as kernel")
    check_range("label_smoothing", label_smoothing, 0, 1)
    check_range("z_loss_weight", z_loss_weight, 0)
    check_count(chunk_size=chunk_size)
    local = np.shape(kernel)[1]
    x = jnp.reshape(hidden, (-1, np.shape(hidden)[-1]))
    y = jnp.reshape(jnp.asarray(labels), (-1,))
    if axis_name is not None:
        y = y - jax.lax.axis_index(axis_name) * local
    at = (x, jnp.asarray(kernel), None if bias is None else jnp.asarray(bias))
    log_z, label, total = _forward(at, aux=y, chunk=min(chunk_size, local))
    classes = local
    if axis_name is not None:
        top = jax.lax.pmax(jax.lax.stop_gradient(log_z), axis_name)
        log_z = top + jnp.log(jax.lax.psum(jnp.exp(log_z - top), axis_name))
        label, total = jax.lax.psum((label, total), axis_name)
        classes = local * jax.lax.axis_size(axis_name)
    target = (1 - label_smoothing) * label + label_smoothing / classes * total
    loss = (log_z - target) + z_loss_weight * log_z**2
    inputs = (hidden, kernel) if bias is None else (hidden, kernel, bias)
    return restore(jnp.reshape(loss, np.shape(labels)), *inputs)


# What follows works on x [n, d], W [d, v], b [v] or None and labels y [n]. `_forward` returns, for
# each example, l = log sum_k exp(z_k), the label's logit z_y and sum_k z_k. Its first and second
# derivatives are those of the potential, with weights g = (g_l, g_y, g_s) of the three results,
#
#     Psi(x, W, b, l; g) = sum_i [ g_l sum_k exp(z_k - l) + g_y z_y + g_s sum_k z_k ],
#
# at l fixed: the transposed derivative is its gradient in (x, W, b), and the derivative of that its
# Hessian in (x, W, b, l), which is symmetric and so its own transpose. The chain through l, and
# with it every order of differentiation up to the second, is left to JAX.


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


def _forward_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    del along
    x, W, b = at
    product = _Products(*at)
    zeros = jnp.zeros(x.shape[0], product.wide)

    def body(carry: Any, w: Array, b: Array | None, start: Array, fresh: Array | None) -> Any:
        top, mass, label, total = carry
        z = product.logits(x, w, b)
        seen = _only(fresh, z)
        z = _only(fresh, z, -jnp.inf)
        higher = jnp.maximum(top, jnp.max(z, -1))
        mass = mass * jnp.exp(top - higher) + jnp.sum(jnp.exp(z - higher[:, None]), -1)
        label += jnp.sum(jnp.where(_is_label(y, start, chunk), seen, 0), -1)
        return (higher, mass, label, total + jnp.sum(seen, -1)), ()

    init = (jnp.full_like(zeros, -jnp.inf), zeros, zeros, zeros)
    (top, mass, label, total), _ = _walk((W, b), chunk, init, body, ())
    return top + jnp.log(mass), label, total


def _tangent_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    """The derivative of `_forward` along a tangent of (x, W, b), at a given log Z."""
    x, W, b, log_z = at
    x_dot, W_dot, b_dot = along
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, w_dot: Any, b_dot: Any, start: Any, fresh: Any) -> Any:
        p = jnp.exp(product.logits(x, w, b) - log_z[:, None])
        z_dot = _only(fresh, product.logits(x_dot, w) + product.logits(x, w_dot, b_dot))
        parts: tuple[Any, ...] = (p, _is_label(y, start, chunk), 1)
        return tuple(c + jnp.sum(part * z_dot, -1) for c, part in zip(carry, parts)), ()

    init = (jnp.zeros_like(log_z),) * 3
    return _walk((W, b, W_dot, b_dot), chunk, init, body, ())[0]


def _cotangent_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    """The gradient of Psi in (x, W, b)."""
    x, W, b, log_z = at
    g_l, g_y, g_s = (g[:, None] for g in along)
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, start: Any, fresh: Any) -> Any:
        p = jnp.exp(product.logits(x, w, b) - log_z[:, None])
        dz = _only(fresh, g_l * p + g_y * _is_label(y, start, chunk) + g_s)
        columns = (product.to_w(x, dz), None if b is None else jnp.sum(dz, 0))
        return carry + product.to_x(dz, w), columns

    init = jnp.zeros(x.shape, product.wide)
    dx, (dW, db) = _walk((W, b), chunk, init, body, (W, b))
    return dx.astype(x.dtype), dW, db


def _hessian_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    """The Hessian of Psi in (x, W, b, log Z) times a vector."""
    x, W, b, log_z, g = at
    x_dot, W_dot, b_dot, l_dot = along
    g_l, g_y, g_s = (a[:, None] for a in g)
    product = _Products(x, W, b)

    def body(carry: Any, w: Any, b: Any, w_dot: Any, b_dot: Any, start: Any, fresh: Any) -> Any:
        dx, dl = carry
        g_p = g_l * jnp.exp(product.logits(x, w, b) - log_z[:, None])
        dz = _only(fresh, g_p + g_y * _is_label(y, start, chunk) + g_s)
        z_dot = product.logits(x_dot, w) + product.logits(x, w_dot, b_dot)
        dz_dot = _only(fresh, g_p * (z_dot - l_dot[:, None]))
        dx += product.to_x(dz_dot, w) + product.to_x(dz, w_dot)
        dw = product.to_w(x, dz_dot) + product.to_w(x_dot, dz)
        columns = (dw, None if b is None else jnp.sum(dz_dot, 0))
        return (dx, dl - jnp.sum(dz_dot, -1)), columns

    init = (jnp.zeros(x.shape, product.wide), jnp.zeros_like(log_z))
    (dx, dl), (dW, db) = _walk((W, b, W_dot, b_dot), chunk, init, body, (W, b))
    return dx.astype(x.dtype), dW, db, dl


def _curve_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    """The derivative of `_tangent` along a tangent of (x, W, b, log Z), by example."""
    x, W, b, log_z, (x_one, W_one, b_one) = at
    x_dot, W_dot, b_dot, l_dot = along
    product = _Products(x, W, b)

    def body(
        carry: Any, w: Any, b: Any, w_one: Any, b_one: Any, w_dot: Any, b_dot: Any, *where: Any
    ) -> Any:
        start, fresh = where
        p = _only(fresh, jnp.exp(product.logits(x, w, b) - log_z[:, None]))
        z_one = product.logits(x_one, w) + product.logits(x, w_one, b_one)
        z_dot = product.logits(x_dot, w) + product.logits(x, w_dot, b_dot)
        both = product.logits(x_one, w_dot) + product.logits(x_dot, w_one)
        both = _only(fresh, both)
        new = (
            p * (both + z_one * (z_dot - l_dot[:, None])),
            jnp.where(_is_label(y, start, chunk), both, 0),
            both,
        )
        return tuple(c + jnp.sum(n, -1) for c, n in zip(carry, new)), ()

    init = (jnp.zeros_like(log_z),) * 3
    arrays = (W, b, W_one, b_one, W_dot, b_dot)
    return _walk(arrays, chunk, init, body, ())[0]


def _curve_transpose_fun(at: Any, along: Any, y: Any, *, chunk: int) -> Any:
    *point, log_z, one = at
    vector = (*one, jnp.zeros_like(log_z))
    return _hessian_fun((*point, log_z, along), vector, y, chunk=chunk)


_forward = Op("linear_softmax_forward", _forward_fun)
_tangent = Op("linear_softmax_tangent", _tangent_fun)
_cotangent = Op("linear_softmax_cotangent", _cotangent_fun)
_hessian = Op("linear_softmax_hessian", _hessian_fun)
_curve = Op("linear_softmax_curve", _curve_fun)
_curve_transpose = Op("linear_softmax_curve_transpose", _curve_transpose_fun)
transposes(_tangent, _cotangent)
transposes(_hessian, _hessian)
transposes(_curve, _curve_transpose)


@_forward.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, *, chunk: int) -> Any:
    out = _forward(at, along, y, chunk=chunk)
    return out, _tangent((*at, out[0]), at_dot, y, chunk=chunk)


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


@_tangent.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, *, chunk: int) -> Any:
    moved = _curve((*at, along), at_dot, y, chunk=chunk)
    return _tangent(at, along, y, chunk=chunk), _add(_tangent(at, along_dot, y, chunk=chunk), moved)


@_cotangent.def_jvp
def _(at: Any, along: Any, y: Any, at_dot: Any, along_dot: Any, *, chunk: int) -> Any:
    moved = _hessian((*at, along), at_dot, y, chunk=chunk)[:3]
    return _cotangent(at, along, y, chunk=chunk), _add(
        _cotangent(at, along_dot, y, chunk=chunk), moved
    )
