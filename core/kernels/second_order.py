"""From the kernels of a function to every derivative of first and second order.

For `y = F(x)` write `t`, `x'` for tangents of `x` and `g` for a cotangent of `y`. Four kernels
close the algebra, because Hessians are symmetric:

    F(x) = y                        J(x, t) = dF(x) t              B(x, g) = dF(x)^T g
    H(x, g; x', g') = d/dx B(x, g) x' + B(x, g')                   (the tangent of B)
    H^T(w) = (H(x, g; w, 0), J(x, w))                              (its transpose)
    K(x, t; x', t') = d/dx J(x, t) x' + J(x, t')                   (the tangent of J)
    K^T(g) = (H(x, g; t, 0), B(x, g))                              (its transpose)

so reverse-over-reverse and reverse-over-forward need no kernel of their own, and only
forward-over-forward uses K. The third order differentiates the reference.

The kernels are given `y` beside `x`, so that nothing is computed twice, and H and K are given its
tangent. An output that only helps the kernels (a shift, a maximum) has tangent zero by declaration:
the reference stops its gradient.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .op import Op, transposes


def second_order(
    name: str,
    *,
    forward: Callable[..., Any],
    tangent: Callable[..., Any],
    cotangent: Callable[..., Any],
    hessian: Callable[..., Any],
    second_tangent: Callable[..., Any] | None = None,
    reference: Callable[..., Any],
    out: Callable[..., Any] | None = None,
    by_platform: bool = False,
    collective: bool = False,
) -> Op:
    """An `Op` called as `op(x, (), aux, **static) -> y` and differentiable in every mode.

    All functions take `**static`, and `platform=` with `by_platform`; `x` and `y` are pytrees.

    Args:
      name: the prefix of the names of all ops.
      forward: `forward(x, aux) -> y`.
      tangent: `tangent(x, y, t, aux) -> y'`, linear in `t`.
      cotangent: `cotangent(x, y, g, aux) -> x_ct`, linear in `g`.
      hessian: `hessian(x, y, g, x', y', g', aux) -> x_ct'`, linear in the primed arguments.
      second_tangent: `second_tangent(x, y, t, x', y', t', aux) -> y''`; by default the reference
        is differentiated.
      reference: `reference(x, aux) -> y` in plain `jnp`.
      out: `out(x, aux) -> y` in `jax.ShapeDtypeStruct`; by default `reference` is traced for it.
      by_platform: as in `Op`.
      collective: as in `Op`.

    Returns:
      The op of `forward`.
    """

    def shape_of_y(x: Any, _: Any, aux: Any, **static: Any) -> Any:
        if out is not None:
            return out(x, aux, **static)
        return jax.eval_shape(functools.partial(reference, **static), x, aux)

    def like(tree: Any) -> Any:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)

    def zeros(tree: Any) -> Any:
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), tree)

    # The same maps from the reference alone, for the orders beyond the kernels.
    def plain_j(x: Any, t: Any, aux: Any, static: Any) -> Any:
        return jax.jvp(lambda x: reference(x, aux, **static), (x,), (t,))[1]

    def plain_b(x: Any, g: Any, aux: Any, static: Any) -> Any:
        return jax.vjp(lambda x: reference(x, aux, **static), x)[1](g)[0]

    def plain_tangent(plain: Callable[..., Any]) -> Callable[..., Any]:
        def fun(at: Any, along: Any, aux: Any, **static: Any) -> Any:
            ((x, _), v), ((x_dot, _), v_dot) = at, along
            return jax.jvp(lambda x, v: plain(x, v, aux, static), (x, v), (x_dot, v_dot))[1]

        return fun

    def plain_transpose(plain: Callable[..., Any]) -> Callable[..., Any]:
        def fun(at: Any, along: Any, aux: Any, **static: Any) -> Any:
            (x, y), v = at
            _, pull = jax.vjp(lambda x, v: plain(x, v, aux, static), x, v)
            x_ct, v_ct = pull(along)
            return (x_ct, zeros(y)), v_ct

        return fun

    def run_f(x: Any, _: Any, aux: Any, **static: Any) -> Any:
        return forward(x, aux, **static)

    def run_j(at: Any, t: Any, aux: Any, **static: Any) -> Any:
        return tangent(*at, t, aux, **static)

    def run_b(at: Any, g: Any, aux: Any, **static: Any) -> Any:
        return cotangent(*at, g, aux, **static)

    def run_h(at: Any, along: Any, aux: Any, **static: Any) -> Any:
        ((x, y), g), ((x_dot, y_dot), g_dot) = at, along
        return hessian(x, y, g, x_dot, y_dot, g_dot, aux, **static)

    def run_ht(at: Any, w: Any, aux: Any, **static: Any) -> Any:
        (x, y), g = at
        y_dot = tangent(x, y, w, aux, **static)
        x_ct = hessian(x, y, g, w, y_dot, zeros(g), aux, **static)
        return (x_ct, zeros(y)), y_dot

    def run_k(at: Any, along: Any, aux: Any, **static: Any) -> Any:
        if second_tangent is None:
            static.pop("platform", None)
            return plain_tangent(plain_j)(at, along, aux, **static)
        ((x, y), t), ((x_dot, y_dot), t_dot) = at, along
        return second_tangent(x, y, t, x_dot, y_dot, t_dot, aux, **static)

    def run_kt(at: Any, g: Any, aux: Any, **static: Any) -> Any:
        (x, y), t = at
        y_dot = tangent(x, y, t, aux, **static)
        x_ct = hessian(x, y, g, t, y_dot, zeros(g), aux, **static)
        return (x_ct, zeros(y)), cotangent(x, y, g, aux, **static)

    op = functools.partial(Op, by_platform=by_platform, collective=collective)
    f = op(name, run_f, out=shape_of_y)
    j = op(f"{name}_jvp", run_j, out=lambda at, t, aux, **_: like(at[1]))
    b = op(f"{name}_vjp", run_b, out=lambda at, g, aux, **_: like(at[0]))
    h = op(
        f"{name}_hvp",
        run_h,
        out=lambda at, along, aux, **_: like(at[0][0]),
        reference=plain_tangent(plain_b),
    )
    ht = op(
        f"{name}_hvp_transpose",
        run_ht,
        out=lambda at, w, aux, **_: like(at),
        reference=plain_transpose(plain_b),
    )
    k = op(
        f"{name}_jvp_jvp",
        run_k,
        out=lambda at, along, aux, **_: like(at[0][1]),
        reference=plain_tangent(plain_j),
    )
    kt = op(
        f"{name}_jvp_jvp_transpose",
        run_kt,
        out=lambda at, g, aux, **_: like(at),
        reference=plain_transpose(plain_j),
    )
    transposes(j, b)
    transposes(h, ht)
    transposes(k, kt)

    @f.def_jvp
    def _f_jvp(x: Any, _: Any, aux: Any, x_dot: Any, __: Any, **static: Any) -> Any:
        y = f(x, (), aux, **static)
        return y, j((x, y), x_dot, aux, **static)

    @j.def_jvp
    def _j_jvp(at: Any, t: Any, aux: Any, at_dot: Any, t_dot: Any, **static: Any) -> Any:
        return j(at, t, aux, **static), k((at, t), (at_dot, t_dot), aux, **static)

    @b.def_jvp
    def _b_jvp(at: Any, g: Any, aux: Any, at_dot: Any, g_dot: Any, **static: Any) -> Any:
        return b(at, g, aux, **static), h((at, g), (at_dot, g_dot), aux, **static)

    return f
