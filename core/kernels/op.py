"""One JAX primitive for hand-written kernels that are differentiable in every mode.

A Pallas kernel, or any other code that JAX cannot or should not differentiate through, becomes part
of a program as an `Op`. An `Op` knows its derivative (`def_jvp`), its transpose (`transposes`) and,
beyond the orders that have kernels, a plain `reference` that JAX differentiates instead. From these
follow `jvp`, `grad`, every nesting of the two, `vmap` of all of them, `scan`, `checkpoint` and
`shard_map`.

`jax.custom_jvp` and `jax.custom_vjp` are not enough: the first has no transpose, the second no
forward mode, and `lax.scan` drops the rules of both when it is differentiated twice. A primitive
keeps its rules. Those of JAX's interfaces that are not fully public are used in this file alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PLATFORMS = ("cpu", "tpu", "cuda", "rocm")


class Platform(str):
    """What a program is lowered for: "cpu", "tpu", "cuda" or "rocm".

    Attributes:
      partitioned: whether XLA splits the program over several devices by itself, which it cannot do
        with hand-written kernels; inside a `shard_map` over all mesh axes it does not.
    """

    partitioned: bool = False


class Op:
    """A function of arrays with its own derivative rules: `op(at, along, aux, **static) -> y`.

    `at`, `along`, `aux` and `y` are pytrees of arrays. The function may be nonlinear in `at`, is
    linear in `along` where it has a transpose, and is never differentiated in `aux` (integers,
    masks). `static` are hashable hyper-parameters.

    Args:
      name: shown in jaxprs and in profiles.
      fun: `fun(at, along, aux, **static) -> y`, run when the program is lowered. With
        `by_platform` it also gets `platform`, a `Platform`.
      out: `out(at, along, aux, **static) -> y` in `jax.ShapeDtypeStruct`; by default `fun` is
        traced for it.
      reference: the same function in plain `jnp`, differentiated where no rule was given.
      by_platform: whether `fun` chooses by the platform that the program is lowered for.
      collective: whether `fun` communicates over mesh axes; its arrays then keep track of the axes
        that they vary over, as in the body of a `shard_map`.
    """

    def __init__(
        self,
        name: str,
        fun: Callable[..., Any],
        *,
        out: Callable[..., Any] | None = None,
        reference: Callable[..., Any] | None = None,
        by_platform: bool = False,
        collective: bool = False,
    ):
        self.name, self.fun = name, fun
        self.by_platform, self.collective = by_platform, collective
        self.out, self.reference = out, reference
        self.rule: Callable[..., Any] | None = None
        self.transpose: Op | None = None

    def __repr__(self) -> str:
        return self.name

    def def_jvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set `rule(at, along, aux, at_dot, along_dot, **static) -> (y, y_dot)`; a decorator.

        The rule must be linear in the dotted arguments; it calls other `Op`s.
        """
        self.rule = rule
        return rule

    def __call__(self, at: Any, along: Any = (), aux: Any = (), **static: Any) -> Any:
        """Apply the op."""
        flat, tree = jax.tree.flatten((at, along, aux))
        flat = [jnp.asarray(x) for x in flat]
        if any(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in jax.tree.leaves(aux)):
            raise ValueError("aux: got a floating-point array, takes integers and booleans")
        counts = (len(jax.tree.leaves(at)), len(jax.tree.leaves(along)))
        params = {"op": self, "tree": tree, "counts": counts}
        params["static"] = tuple(sorted(static.items()))
        y = jax.tree.structure(_struct(flat, **params))
        return jax.tree.unflatten(y, _bind(flat, axes=(), **params))


def transposes(a: Op, b: Op) -> None:
    """Declare `a` and `b` linear in `along` and each other's transpose, at equal `at` and `aux`.

    If `y = a(at, along, aux)` then `b(at, y_ct, aux)` has the structure of `along`.
    """
    a.transpose, b.transpose = b, a


# Every bind carries: op; tree and counts, which split the flat operands into at, along and aux;
# axes, a tuple of 0 or None per operand for every level of vmap, innermost first; static.
_op_p = Primitive("papyrax_op")
_op_p.multiple_results = True


def _varying(x: Any) -> frozenset[Any]:
    """The mesh axes over which `x` varies inside `shard_map(check_vma=True)`."""
    aval = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    mat = getattr(aval, "mat", None)
    return frozenset(getattr(aval, "vma", ()) if mat is None else mat.varying)


def local_struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The result of a `pallas_call` in an op's body, which is local to a shard."""
    mat = getattr(jax.core.ShapedArray((), dtype), "mat", None)
    options: Any = {"vma": frozenset()} if mat is None else {"manual_axis_type": mat}
    return jax.ShapeDtypeStruct(shape, dtype, **options)


def vary_alike(*arrays: Any) -> list[Any]:
    """The arrays, all varying over the mesh axes that one of them varies over."""
    axes = frozenset().union(*map(_varying, arrays))

    def cast(x: Any) -> Any:
        missing = tuple(axes - _varying(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return [cast(x) for x in arrays]


def _bind(flat: Any, **params: Any) -> Any:
    """Bind with operands that vary alike, so that every result does too."""
    return _op_p.bind(*vary_alike(*flat), **params)


def _struct(flat: Any, *, op: Op, tree: Any, counts: Any, static: Any) -> Any:
    """The result of the op in `ShapeDtypeStruct`, for operands without vmap levels."""
    shapes = tuple((x.shape, jnp.dtype(x.dtype)) for x in flat)
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    return _cached_struct(op, tree, shapes, static, x64)


@functools.lru_cache(maxsize=4096)
def _cached_struct(op: Op, tree: Any, shapes: Any, static: Any, x64: bool) -> Any:
    args = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*s) for s in shapes])
    if op.out is not None:
        return op.out(*args, **dict(static))
    return jax.eval_shape(lambda *a: op.fun(*a, **dict(static)), *args)


def _run(*flat: Any, op: Op, tree: Any, counts: Any, axes: Any, static: Any, platform: Any) -> Any:
    """The op on flat operands, mapped over its vmap levels."""
    static = dict(static) | ({"platform": platform} if op.by_platform else {})

    def fun(*flat: Any) -> Any:
        with jax.named_scope(op.name):
            return tuple(jax.tree.leaves(op.fun(*jax.tree.unflatten(tree, flat), **static)))

    for level in axes:
        fun = jax.vmap(fun, in_axes=level)
    return fun(*flat)


@_op_p.def_impl
def _eager(*flat: Any, **params: Any) -> Any:
    return _jitted(tuple(sorted(params.items(), key=lambda item: item[0])))(*flat)


@functools.lru_cache(maxsize=4096)
def _jitted(params: Any) -> Any:
    return jax.jit(functools.partial(_op_p.bind, **dict(params)))


def _shapes(avals: Any, axes: Any) -> tuple[list[int], list[jax.ShapeDtypeStruct]]:
    """The sizes of the vmap levels, outermost first, and the operands without them."""
    shapes, sizes = [list(a.shape) for a in avals], []
    for level in reversed(axes):
        lengths = [shape.pop(0) for shape, axis in zip(shapes, level) if axis is not None]
        sizes.append(lengths[0])
    return sizes, [jax.ShapeDtypeStruct(s, a.dtype) for s, a in zip(shapes, avals)]


@_op_p.def_abstract_eval
def _abstract(*avals: Any, axes: Any, **params: Any) -> Any:
    sizes, plain = _shapes(avals, axes)
    out = jax.tree.leaves(_struct(plain, **params))
    shapes = [(*sizes, *o.shape) for o in out]
    like = next((a for a in avals if _varying(a)), None)
    if like is None:
        return [jax.core.ShapedArray(s, o.dtype) for s, o in zip(shapes, out)]
    spec = [jax.sharding.PartitionSpec(*(None,) * len(s)) for s in shapes]
    return [
        like.update(shape=s, dtype=o.dtype, weak_type=False, sharding=like.sharding.update(spec=p))
        for s, o, p in zip(shapes, out, spec)
    ]


def _lower(platform: str, ctx: Any, *operands: Any, op: Op, **params: Any) -> Any:
    if not op.collective:
        # The body is local to a shard: it is traced without the mesh axes of a shard_map around it.
        plain = [jax.core.ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
        ctx = ctx.replace(avals_in=plain)
    target = Platform(platform)
    target.partitioned = _is_partitioned(ctx.module_context.axis_context)
    rule = mlir.lower_fun(functools.partial(_run, platform=target), multiple_results=True)
    return rule(ctx, *operands, op=op, **params)


def _is_partitioned(context: Any) -> bool:
    mesh = getattr(context, "mesh", None)
    if mesh is not None:
        manual = set(context.manual_axes) | set(getattr(mesh, "manual_axes", ()))
        return mesh.size > 1 and manual != set(mesh.axis_names)
    return (getattr(context, "num_devices", 1) or 1) > 1


for _platform in PLATFORMS:
    mlir.register_lowering(_op_p, functools.partial(_lower, _platform), platform=_platform)


def _is_zero(x: Any) -> bool:
    return type(x) is ad.Zero


def _instantiate(x: Any) -> Any:
    return jnp.zeros(x.aval.shape, x.aval.dtype) if _is_zero(x) else x


def _jvp(primals: Any, tangents: Any, *, op: Op, axes: Any, counts: Any, **params: Any) -> Any:
    params |= {"op": op, "counts": counts}
    n_at, n = counts[0], sum(counts)
    if op.transpose is not None and all(map(_is_zero, tangents[:n_at])):
        # Purely linear: the tangent is the op itself, which can be transposed.
        along_dot = map(_instantiate, tangents[n_at:n])
        y_dot = _bind((*primals[:n_at], *along_dot, *primals[n:]), axes=axes, **params)
        return _bind(primals, axes=axes, **params), y_dot
    flat = vary_alike(*primals, *map(_instantiate, tangents[:n]))
    primals, dots = tuple(flat[: len(primals)]), tuple(flat[len(primals) :])
    if axes:
        inner: Any = functools.partial(_jvp, axes=axes[:-1], **params)
        in_axes = (axes[-1], axes[-1][:n])
        return jax.vmap(inner, in_axes=in_axes)(primals, dots)
    at, along, aux = jax.tree.unflatten(params["tree"], primals)
    at_dot, along_dot, _ = jax.tree.unflatten(params["tree"], (*dots, *primals[n:]))
    rule = op.rule or functools.partial(_differentiate_reference, op)
    y, y_dot = rule(at, along, aux, at_dot, along_dot, **dict(params["static"]))
    return jax.tree.leaves(y), jax.tree.leaves(y_dot)


def _differentiate_reference(
    op: Op, at: Any, along: Any, aux: Any, at_dot: Any, along_dot: Any, **static: Any
) -> Any:
    if op.reference is None:
        raise NotImplementedError(f"papyrax op '{op.name}' has no derivative of this order")
    plain = functools.partial(op.reference, **static)
    _, y_dot = jax.jvp(lambda a, v: plain(a, v, aux), (at, along), (at_dot, along_dot))
    return op(at, along, aux, **static), y_dot


def _transpose(cts: Any, *flat: Any, op: Op, tree: Any, counts: Any, axes: Any, static: Any) -> Any:
    assert op.transpose is not None, f"op '{op.name}' is not linear"
    n_at, n = counts[0], sum(counts)
    along = flat[n_at:n]
    if all(map(_is_zero, cts)):
        out = [ad.Zero(x.aval) if ad.is_undefined_primal(x) else None for x in along]
    else:
        avals = [x.aval if ad.is_undefined_primal(x) else jax.typeof(x) for x in flat]
        y = _struct(_shapes(avals, axes)[1], op=op, tree=tree, counts=counts, static=static)
        cts = tuple(map(_instantiate, cts))
        at, _, aux = jax.tree.unflatten(tree, flat)
        # Linear operands and results always carry every vmap level.
        levels = tuple((*ax[:n_at], *(0,) * len(cts), *ax[n:]) for ax in axes)
        out = _bind(
            (*flat[:n_at], *cts, *flat[n:]),
            op=op.transpose,
            tree=jax.tree.structure((at, y, aux)),
            counts=(n_at, len(cts)),
            axes=levels,
            static=static,
        )
        out = [o if ad.is_undefined_primal(x) else None for o, x in zip(out, along)]
    return [None] * n_at + out + [None] * (len(flat) - n)


def _batch(flat: Any, dims: Any, *, op: Op, counts: Any, axes: Any, **params: Any) -> Any:
    size = next(x.shape[d] for x, d in zip(flat, dims) if d is not None)
    operands, level = [], []
    for i, (x, d) in enumerate(zip(flat, dims)):
        linear = op.transpose is not None and counts[0] <= i < sum(counts)
        if d is not None:
            x, d = jnp.moveaxis(x, d, 0), 0
        elif linear:
            x, d = jnp.broadcast_to(x, (size, *x.shape)), 0
        operands.append(x)
        level.append(d)
    out = _bind(operands, op=op, counts=counts, axes=(*axes, tuple(level)), **params)
    return out, [0] * len(out)


ad.primitive_jvps[_op_p] = _jvp
ad.primitive_transposes[_op_p] = _transpose
batching.primitive_batchers[_op_p] = _batch
