"""The sums over classes and their derivatives, from logits in memory."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...numerics import accumulation_dtype


def _parts(layer: Any, c: Any, y: Array, kind: str) -> tuple[Array, Array, Array]:
    """The sum of phi(z - c) over the classes, the label's z and the sum of z."""
    x, w, b = layer
    wide = accumulation_dtype(*(a for a in (x, w, b) if a is not None))
    z = x.astype(wide) @ w.astype(wide) + (0 if b is None else b.astype(wide))
    is_label = y[:, None] == jnp.arange(z.shape[1])
    u = z - c[:, None]
    if kind in ("softmax", "others"):
        phi = jnp.exp(u)
        if kind == "others":
            phi = jnp.where(is_label, 0, phi)
    else:
        phi = jnp.square(u) if kind == "squares" else jnp.abs(u)
    return jnp.sum(phi, -1), jnp.sum(jnp.where(is_label, z, 0), -1), jnp.sum(z, -1)


def tangent(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """The derivative of the sums along a tangent of (x, W, b), at a given c."""
    return jax.jvp(lambda *p: _parts(p, at[3], y, kind), tuple(at[:3]), tuple(along))[1]


def cotangent(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """The gradient of Psi in (x, W, b)."""
    return jax.vjp(lambda *p: _parts(p, at[3], y, kind), *at[:3])[1](tuple(along))


def _gradient(y: Array, kind: str) -> Any:
    """The gradient of Psi in (x, W, b), of (x, W, b, c, g)."""
    return lambda *at: cotangent(at[:4], at[4], y, kind=kind)


def hessian(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """Of a tangent of (x, W, b, c, g), the change of the gradient."""
    return jax.jvp(_gradient(y, kind), tuple(at), tuple(along))[1]


def hessian_transpose(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """The transpose of `hessian`."""
    return jax.vjp(_gradient(y, kind), *at)[1](tuple(along))


def curve(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """The derivative of `tangent` along a tangent of (x, W, b, c)."""
    *point, one = at
    return jax.jvp(lambda *p: tangent(p, one, y, kind=kind), tuple(point), tuple(along))[1]


def curve_transpose(at: Any, along: Any, y: Array, *, kind: str, **_: Any) -> Any:
    """The transpose of `curve`."""
    *point, one = at
    return jax.vjp(lambda *p: tangent(p, one, y, kind=kind), *point)[1](tuple(along))
