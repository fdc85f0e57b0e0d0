"""Chooses the implementation of two-pass softmax; its derivatives and public functions."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_rank,
    restore,
    upcast,
)
from ..availability import check_known, check_reasons, wrong_dtypes, wrong_platform
from ..second_order import second_order
from . import reference, xla

Implementation = Literal["xla", "pallas_tpu", "interpret"]
IMPLEMENTATIONS = ("xla", "pallas_tpu", "interpret")


def _forward(x: Any, aux: Any, *, log: bool, implementation: str | None, platform: Any) -> Any:
    name = implementation
    if name is None:
        suits = platform == "tpu" and not platform.partitioned and x.dtype == jnp.float32
        name = "pallas_tpu" if suits else "xla"
    if name == "xla":
        return xla.run(x, log=log, pieces=platform == "cpu")
    if name == "pallas_tpu":
        reasons = wrong_platform(platform, ("tpu",)) + wrong_dtypes([x.dtype], ("float32",))
        check_reasons(name, reasons)
    from . import pallas_tpu

    return pallas_tpu.run(x, log=log, interpret=name == "interpret")


def _sum(x: Any) -> Any:
    return jnp.sum(x, axis=-1, keepdims=True)


def _along(p: Any, t: Any, log: bool) -> Any:
    """The tangent: p (t - <p, t>), without the factor p for the logarithm."""
    centered = t - _sum(p * t)
    return centered if log else p * centered


def _back(p: Any, g: Any, log: bool) -> Any:
    """The cotangent; softmax's Jacobian is symmetric."""
    return g - p * _sum(g) if log else _along(p, g, False)


def _p(y: Any, log: bool) -> Any:
    return jnp.exp(y) if log else y


def _tangent(x: Any, y: Any, t: Any, aux: Any, *, log: bool, **_: Any) -> Any:
    return _along(_p(y, log), t, log)


def _cotangent(x: Any, y: Any, g: Any, aux: Any, *, log: bool, **_: Any) -> Any:
    return _back(_p(y, log), g, log)


def _hessian(
    x: Any, y: Any, g: Any, x_dot: Any, y_dot: Any, g_dot: Any, aux: Any, *, log: bool, **_: Any
) -> Any:
    p = _p(y, log)
    p_dot = p * y_dot if log else y_dot
    if log:
        return _back(p, g_dot, log) - p_dot * _sum(g)
    return _back(p, g_dot, log) + p_dot * (g - _sum(p * g)) - p * _sum(p_dot * g)


def _second_tangent(
    x: Any, y: Any, t: Any, x_dot: Any, y_dot: Any, t_dot: Any, aux: Any, *, log: bool, **_: Any
) -> Any:
    p = _p(y, log)
    if log:
        return _along(p, t_dot, log) - _sum(p * y_dot * t)
    return _along(p, t_dot, log) + y_dot * (t - _sum(p * t)) - p * _sum(y_dot * t)


def _reference(x: Any, aux: Any, *, log: bool, **_: Any) -> Any:
    return reference.softmax(x, log=log)


_softmax = second_order(
    "two_pass_softmax",
    forward=_forward,
    tangent=_tangent,
    cotangent=_cotangent,
    hessian=_hessian,
    second_tangent=_second_tangent,
    reference=_reference,
    out=lambda x, aux, **_: jax.ShapeDtypeStruct(x.shape, x.dtype),
    by_platform=True,
)


def _apply(
    logits: Any, axis: int, where: Any, implementation: str | None, log: bool
) -> tuple[Any, Any]:
    """The result in accumulation dtype, and which entries are there."""
    check_floating(logits=logits)
    check_rank("logits", logits, 1, at_least=True)
    shape = jnp.shape(logits)
    check(-len(shape) <= axis < len(shape), "axis", f"got {axis}, takes an axis of shape {shape}")
    check(shape[axis] > 0, "logits", f"got shape {shape}, takes one or more entries along the axis")
    check_known(implementation, (None, *IMPLEMENTATIONS))
    x = upcast(logits)
    there = x != -jnp.inf
    if where is not None:
        check_boolean(where=where)
        check_broadcastable("where", where, shape, "as logits")
        there &= where
    x = jnp.where(there, x, -jnp.inf)
    x = jnp.moveaxis(x, axis, -1)
    y = _softmax(x.reshape(-1, x.shape[-1]), (), (), log=log, implementation=implementation)
    return jnp.moveaxis(y.reshape(x.shape), -1, axis), there


def two_pass_softmax(
    logits: Float[Array, "..."],
    *,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Softmax that reads its input twice, not three times: it needs no maximum.

        (M, N) = sum_j exp(x_j) as pairs (mantissa, exponent)         first pass
        y_i = m_i / M 2^(n_i - N),   exp(x_i) = m_i 2^n_i             second pass

    Nothing overflows, since exponents are numbers of their own. First and second derivatives are
    closed formulas of the result; they take no exponential.

    Args:
      logits: scores [...].
      axis: the axis that sums to one.
      where: booleans that broadcast to `logits`: the entries that are there. The others get zero;
        so does every entry of a row without any. Minus infinity is never there.
      implementation: "xla", "pallas_tpu" or "interpret" (the latter's kernel on any platform);
        None takes Pallas for programs of one TPU and XLA elsewhere.

    Returns:
      Probabilities [...] in the dtype of `logits`. In float32 the relative error is about 1e-6 for
      |logits| up to 2e4 (1e6 in float64); beyond, it grows with their spacing, which subtracting a
      maximum first would not do.

    Raises:
      ValueError: for a wrong shape, dtype, axis or implementation.

    Source: The Two-Pass Softmax Algorithm, arXiv 2001.04438, algorithm 3; compared with
    google/XNNPACK `src/f32-raddextexp` and `src/f32-vscaleextexp`.

    >>> two_pass_softmax(jnp.array([0.0, 0.0, 1e4, 1e4])).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    return restore(_apply(logits, axis, where, implementation, False)[0], logits)


def two_pass_log_softmax(
    logits: Float[Array, "..."],
    *,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Logarithm of `two_pass_softmax`, from the same first pass.

        (M, N) = sum_j exp(x_j),   y_i = x_i - N log 2 - log M

    Args:
      logits: scores [...].
      axis: the axis whose exponentials sum to one.
      where: booleans that broadcast to `logits`: the entries that are there. The others get the
        lowest finite number; so does every entry of a row without any.
      implementation: as in `two_pass_softmax`.

    Returns:
      Log-probabilities [...] in the dtype of `logits`.

    Raises:
      ValueError: for a wrong shape, dtype, axis or implementation.

    Source: The Two-Pass Softmax Algorithm, arXiv 2001.04438, algorithm 3; the logarithm is the
    natural extension.

    >>> two_pass_log_softmax(jnp.array([1e4, 1e4])).round(4).tolist()
    [-0.6930999755859375, -0.6930999755859375]
    """
    y, there = _apply(logits, axis, where, implementation, True)
    lowest = float(jnp.finfo(jnp.result_type(logits)).min)
    return restore(jnp.where(there, y, lowest), logits)
