"""The passes in Pallas for TPUs.

A pass becomes one kernel for its sums over classes and one for its sums over rows. The tile of
logits that a step of the grid sees grows over the steps through the features; once it is whole,
more steps through the features add its products to the result. Where all features fit a tile one
step does both. What is summed stays in VMEM until it is whole.

W is read as it lies, which for some shapes is column by column (`Plan.turned`); tiles at its end
reach beyond it, and what they hold there is masked.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..availability import wrong_dtypes, wrong_platform
from ..op import local_struct
from .passes import Config, Pass, Tiles
from .tiling import LANES, Plan, plan


def why_not(dtypes: list[Any], platform: Any) -> list[str]:
    """Why the kernels cannot run on a platform, if one is given, with arrays of these dtypes."""
    return wrong_platform(platform, ("tpu",)) + wrong_dtypes(dtypes, ("float32", "bfloat16"))


def bad_tiles(tiles: tuple[int, int, int], size: tuple[int, int, int]) -> list[str]:
    """Why tiles of (rows, classes, features) cannot be: they must be whole registers."""
    units = {"rows": 16, "classes": LANES, "features": LANES}
    return [
        f"it takes multiples of {unit} {name}, or all {whole}, not {tile}"
        for (name, unit), tile, whole in zip(units.items(), tiles, size, strict=True)
        if tile < whole and tile % unit
    ]


def run(work: Pass, config: Config, interpret: bool) -> Tiles:
    """The results of a pass, by name: those [n], and "x" [n, d], "w" [d, v] and "b" [v]."""
    results: Tiles = {}
    if work.starts or work.to_x:
        results |= _call(plan(work, "v", config.tiles), interpret)
    if work.to_w:
        results |= _call(plan(work, "n", config.tiles), interpret)
    return results


def _place(p: Plan, a: Any, b: Any, s: Any) -> dict[str, Any]:
    """Which tiles a step of the grid sees, by axis.

    After the steps of the logits "held" stays at the last features, while "d" goes through them
    again; "out" does so only when a result is whole.
    """
    zero = np.int32(0)
    i, j = (a, b) if p.over == "v" else (b, a)
    if p.whole:
        return {"n": i, "v": j, "1": zero, "d": zero, "held": zero, "out": zero}
    last = np.int32(p.many["d"] - 1)
    k = jnp.where(s > last, s - last - 1, s)
    ready = (b == p.grid[1] - 1) & (s > last)
    held = jnp.minimum(s, last)
    return {"n": i, "v": j, "1": zero, "d": k, "held": held, "out": jnp.where(ready, k, zero)}


def _call(p: Plan, interpret: bool) -> Tiles:
    """Run a kernel."""
    work, over_classes = p.work, p.over == "v"
    n, v = p.tile["n"], p.tile["v"]
    rows, features = p.many["n"] * n, p.many["d"] * p.tile["d"]

    def spec(axes: tuple[str, str], d: str = "d", width: int = 1) -> pl.BlockSpec:
        """Tiles of an array: "d" goes by a name of `_place`, and "1" has `width` entries."""

        def index(*step: Any) -> Any:
            at = _place(p, *step)
            return tuple(at[d if axis == "d" else axis] for axis in axes)

        return pl.BlockSpec(tuple(p.tile.get(axis, width) for axis in axes), index)

    def fill(a: Any, columns: int) -> Any:
        return jnp.pad(a, ((0, rows - a.shape[0]), (0, columns - a.shape[1])))

    def turn(a: Any) -> Any:
        return a.T if p.turned else a

    operands = [(fill(work.indices[:, None], 1), spec(("n", "1")))]
    if work.rows:
        table = jnp.stack(list(work.rows.values()), 1)
        operands.append((fill(table, len(work.rows)), spec(("n", "1"), width=len(work.rows))))
    # The products are with one of x and W. The other serves the logits only.
    by_x = spec(("n", "d"), "held" if over_classes else "d")
    by_w = spec(p.weights, "d" if over_classes else "held")
    operands += [(fill(a, features), by_x) for a in work.x.values()]
    operands += [(turn(a), by_w) for a in work.w.values()]
    operands += [(b[None], spec(("1", "v"))) for b in work.b.values()]

    outs: dict[str, Any] = {}
    scratch = []
    if p.starts:
        width = len(p.starts)
        outs["table"] = local_struct((rows, width), work.wide), spec(("n", "1"), width=width)
    if p.products:
        name, like = ("x", work.x["x"]) if over_classes else ("w", turn(work.w["w"]))
        shape = (rows, like.shape[1]) if over_classes else like.shape
        axes = ("n", "d") if over_classes else p.weights
        outs[name] = local_struct(shape, like.dtype), spec(axes, "out")
        scratch.append(pltpu.VMEM((p.many["d"], *p.result), work.wide))
    if p.bias is not None:
        outs["b"] = local_struct((1, p.size["v"]), work.b["z"].dtype), spec(("1", "v"))
        scratch.append(pltpu.VMEM((1, v), work.wide))
    if not p.whole:
        scratch += [pltpu.VMEM((n, v), work.wide) for _ in work.logits]
        scratch += [pltpu.VMEM((n, v), work.factors) for _ in p.kept]

    found = pl.pallas_call(
        functools.partial(_body, p),
        out_shape=[shape for shape, _ in outs.values()],
        grid=p.grid,
        in_specs=[spec for _, spec in operands],
        out_specs=[spec for _, spec in outs.values()],
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        interpret=interpret,
        name=p.name,
    )(*(a for a, _ in operands))
    results = dict(zip(outs, found, strict=True))
    if p.starts:
        table = results.pop("table")[: p.size["n"]]
        results |= {name: table[:, i] for i, name in enumerate(p.starts)}
    unpack = {"x": lambda x: x[: p.size["n"]], "w": turn, "b": lambda b: b[0]}
    return {name: unpack[name](a) if name in unpack else a for name, a in results.items()}


def _body(p: Plan, *refs: Any) -> None:
    """One step of the grid."""
    work, over_classes = p.work, p.over == "v"
    n, v = p.tile["n"], p.tile["v"]
    rest = iter(refs)

    def take(names: Any) -> Tiles:
        return {name: next(rest) for name in names}

    given = take(["labels", "rows"] if work.rows else ["labels"])
    x, w, b = take(work.x), take(work.w), take(work.b)
    results = ["product"] * bool(p.products) + ["bias"] * bool(p.bias)
    outs, sums = take(["table"] * bool(p.starts) + results), take(results)
    z_sums, kept = ({}, {}) if p.whole else (take(work.logits), take(p.kept))

    outer, inner, s = (pl.program_id(axis) for axis in range(3))
    at = _place(p, outer, inner, s)
    last = p.many["d"] - 1

    @pl.when((inner == 0) & (s == 0))
    def _start() -> None:
        if p.starts:
            starts = [jnp.full((n, 1), value, work.wide) for value in p.starts.values()]
            outs["table"][...] = jnp.concatenate(starts, 1)
        for ref in sums.values():
            ref[...] = jnp.zeros(ref.shape, ref.dtype)

    def inside(axes: tuple[str, str], *ends: str) -> Any:
        """Which entries of a tile are there, as far as the ends of the axes `ends` go."""
        shape = tuple(p.tile[a] for a in axes)
        conditions = [
            jax.lax.broadcasted_iota(jnp.int32, shape, dimension) < p.size[a] - at[a] * p.tile[a]
            for dimension, a in enumerate(axes)
            if a in ends and p.size[a] % p.tile[a]
        ]
        return functools.reduce(jnp.logical_and, conditions) if conditions else None

    def only(there: Any, a: Any) -> Any:
        return a if there is None else jnp.where(there, a, jnp.zeros_like(a))

    def dot(a: Any, b: Any, contract: tuple[int, int]) -> Any:
        dims = (((contract[0],), (contract[1],)), ((), ()))
        a, b = a.astype(work.factors), b.astype(work.factors)
        return jax.lax.dot_general(a, b, dims, preferred_element_type=work.wide)

    of_d, of_v = (p.weights.index(axis) for axis in "dv")

    def logits() -> Tiles:
        there = inside(p.weights, "d")
        return {
            name: sum(dot(x[i][...], only(there, w[j][...]), (1, of_d)) for i, j in pairs)
            for name, pairs in work.logits.items()
        }

    def tiles(z: Tiles, edge: bool) -> Tiles:
        """What comes out of a tile of whole logits, beside the numbers of its rows."""
        z = {k: a + b[k][...].astype(work.wide) if k in b else a for k, a in z.items()}
        seen = inside(("n", "v"), "v", p.over) if edge else None
        column = jax.lax.broadcasted_iota(jnp.int32, (n, v), 1)
        is_label = column == given["labels"][...] - at["v"] * v
        rows = {name: given["rows"][:, i : i + 1] for i, name in enumerate(work.rows)}
        if p.starts:
            own = {name: outs["table"][:, i : i + 1] for i, name in enumerate(p.starts)}
        else:  # these are the other kernel's
            own = {name: jnp.zeros((n, 1), work.wide) for name in work.starts}
        new, out = work.step(z, is_label, seen, rows, own)
        if p.starts:
            outs["table"][...] = jnp.concatenate([new[name] for name in p.starts], 1)
        if p.bias is not None:
            sums["bias"][...] += jnp.sum(out[p.bias], 0, keepdims=True)
        return {name: out[name].astype(work.factors) for name in p.kept}

    def add(out: Tiles, edge: bool) -> None:
        """The products of what came out."""
        if not p.products:
            return
        if over_classes:
            there = inside(p.weights, "v") if edge else None
            parts = [dot(out[i], only(there, w[j][...]), (1, of_v)) for i, j in p.products]
        else:
            pairs = [(x[j][...], out[i]) for i, j in p.products]
            parts = [dot(*(pair[::-1] if p.turned else pair), (0, 0)) for pair in pairs]
        sums["product"][at["d"]] += sum(parts[1:], parts[0])

    edges = [at[a] == p.many[a] - 1 for a in {"v", p.over} if p.size[a] % p.tile[a]]

    def when(condition: Any, fun: Callable[[bool], None]) -> None:
        """Run a function, which masks only in tiles at an edge."""
        if not edges:
            return pl.when(condition)(lambda: fun(False))
        edge = functools.reduce(jnp.logical_or, edges)
        pl.when(condition & jnp.logical_not(edge))(lambda: fun(False))
        return pl.when(condition & edge)(lambda: fun(True))

    if p.whole:
        when(s == 0, lambda edge: add(tiles(logits(), edge), edge))
    else:

        @pl.when(s <= last)
        def _grow() -> None:
            for name, part in logits().items():
                z_sums[name][...] = jnp.where(s == 0, part, z_sums[name][...] + part)

        def put(edge: bool) -> None:
            z = {name: ref[...] for name, ref in z_sums.items()}
            for name, tile in tiles(z, edge).items():
                kept[name][...] = tile

        when(s == last, put)
        if p.products:
            read = lambda: {name: ref[...] for name, ref in kept.items()}  # noqa: E731
            when(s > last, lambda edge: add(read(), edge))

    ends = inner == p.grid[1] - 1
    if p.products:

        @pl.when(ends if p.whole else ends & (s > last))
        def _product() -> None:
            outs["product"][...] = sums["product"][at["d"]].astype(outs["product"].dtype)

    if p.bias is not None:

        @pl.when(ends)
        def _bias() -> None:
            outs["bias"][...] = sums["bias"][...].astype(outs["bias"].dtype)
