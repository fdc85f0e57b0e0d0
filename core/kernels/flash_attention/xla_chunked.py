"""Attention tile by tile in plain XLA: runs everywhere, in memory linear in the sequence length.

Every pass is one loop over the tiles (batch, head, queries, keys) that are not hidden by the causal
or the window mask. A step cuts its tile of each operand, applies the formulas and adds what comes
out to the sums. Arrays are named by their axes, as in einsum: "b" batch, "k" key heads, "g" group,
"t" queries, "s" keys, "h" and "e" features; an axis of length one is shared by all tiles.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import formulas
from .operands import (
    Config,
    Inputs,
    Masks,
    Output,
    in_span,
    kept,
    logits_dtype,
    tiles_in_span,
)

QUERY, KEY, VALUE, OUT = "bkgth", "bksh", "bkse", "bkgte"
ROW, PAIR, TURNED = "bkgt", "bkgts", "bkhs"


class Plan(NamedTuple):
    """How the loop walks: lengths and tile lengths by axis, and what hides keys."""

    size: dict[str, int]
    block: dict[str, int]
    config: Config
    masks: Masks
    platform: str


def plan(x: Inputs, masks: Masks, config: Config, platform: str) -> Plan:
    """Tiles that suit the platform: on a CPU one head at a time, elsewhere all of them."""
    b, k, g, t, _ = x.query.shape
    s = x.key.shape[2]
    cpu = platform == "cpu"
    if config.blocks is not None:
        bq, bk = config.blocks
    else:
        bq, bk = (max(512 // g, 64), 512) if cpu else (1024, 1024)
    size = {"b": b, "k": k, "g": g, "t": t, "s": s}
    heads = (1, 1) if cpu else (b, k)
    block = dict(zip("bkgts", (*heads, g, min(bq, t), min(bk, s)), strict=True))
    return Plan(size, block, config, masks, platform)


def _pad(x: Any, axes: str, walk: Plan, fill: Any = 0) -> Any:
    """`x` with queries and keys filled up to whole tiles."""
    width = [
        (0, -walk.size[a] % walk.block[a] if a in "ts" and n > 1 else 0)
        for a, n in zip(axes, x.shape)
    ]
    if not any(w for _, w in width):
        return x
    return jnp.pad(x, width, constant_values=fill)


def _starts(axes: str, shape: tuple[int, ...], at: dict[str, Any], walk: Plan) -> Any:
    starts = [at[a] if n > 1 and a in at else np.int32(0) for a, n in zip(axes, shape)]
    lengths = [walk.block[a] if n > 1 and a in at else n for a, n in zip(axes, shape)]
    return starts, lengths


def _cut(x: Any, axes: str, at: dict[str, Any], walk: Plan) -> Any:
    return jax.lax.dynamic_slice(x, *_starts(axes, x.shape, at, walk))


def _put(x: Any, tile: Any, axes: str, at: dict[str, Any], walk: Plan) -> Any:
    return jax.lax.dynamic_update_slice(x, tile, _starts(axes, x.shape, at, walk)[0])


def _add(x: Any, tile: Any, axes: str, at: dict[str, Any], walk: Plan) -> Any:
    """Add `tile` to its place in `x`, summed over the axes that `x` shares."""
    shared = tuple(i for i, (n, m) in enumerate(zip(x.shape, tile.shape)) if n == 1 and m > 1)
    tile = jnp.sum(tile, shared, keepdims=True) if shared else tile
    return _put(x, _cut(x, axes, at, walk) + tile, axes, at, walk)


def _seen(at: dict[str, Any], walk: Plan) -> tuple[Any, bool]:
    """Which pairs of the tile are seen (None: all), and whether whole tiles may be hidden."""
    config, masks, size, block = walk.config, walk.masks, walk.size, walk.block
    row = at["t"] + jnp.arange(block["t"])[:, None]
    col = at["s"] + jnp.arange(block["s"])
    parts: list[Any] = []

    def cut(x: Any, axes: str) -> Any:
        return _cut(_pad(x, axes, walk), axes, at, walk)

    if size["s"] % block["s"]:
        parts.append(col < size["s"])
    offset = 0 if masks.offset is None else masks.offset
    parts.append(in_span(row + offset, col, config.span))
    unpredictable = masks.offset is not None
    if masks.mask is not None:
        parts.append(cut(masks.mask, PAIR))
    if masks.query_lengths is not None:
        parts.append(row < cut(masks.query_lengths, "b")[:, None, None, None, None])
    if masks.key_lengths is not None:
        parts.append(col < cut(masks.key_lengths, "b")[:, None, None, None, None])
    if masks.query_segments is not None:
        of_query = cut(masks.query_segments, "bt")[:, None, None, :, None]
        parts.append(of_query == cut(masks.key_segments, "bs")[:, None, None, None, :])
    unpredictable |= any(m is not None for m in masks[:5])
    seen = None
    for part in parts:
        if part is not None:
            seen = part if seen is None else seen & part
    return seen, unpredictable


def _kept(at: dict[str, Any], walk: Plan, dtype: Any) -> Any:
    if not walk.config.dropout:
        return None
    b, k, g, t, s = (at.get(a, 0) + jnp.arange(walk.block[a]) for a in "bkgts")
    head = k[:, None, None, None] * walk.size["g"] + g[:, None, None]
    place = b[:, None, None, None, None], head, t[:, None], s
    return kept(walk.masks.seed, *place, walk.config.dropout, dtype)


# A step is given the operands' tiles by name, what is seen, dropout's factor and the states' tiles,
# and returns tiles for the sums and states.
Step = Callable[[dict[str, Any], Any, Any, dict[str, Any]], dict[str, Any]]


def _sweep(
    walk: Plan,
    step: Step,
    operands: dict[str, tuple[Any, str]],
    sums: dict[str, tuple[Any, str]],
    dtype: Any,
) -> dict[str, Any]:
    """Run `step` over all tiles, from `sums` as given, and return them.

    To a sum, the tiles that a step returns are added. One whose name begins with an underscore is a
    state: a step is given its tile and returns what replaces it.
    """
    size, block, config = walk.size, walk.block, walk.config
    operands = {
        n: (_pad(x, axes, walk), axes) for n, (x, axes) in operands.items() if x is not None
    }
    sums = {n: (x, axes) for n, (x, axes) in sums.items() if x is not None}
    across = size["b"] // block["b"], size["k"] // block["k"]
    many = -(-size["t"] // block["t"]), -(-size["s"] // block["s"])
    span = config.span if walk.masks.offset is None else (None, None)
    table = tiles_in_span(size["t"], size["s"], (block["t"], block["s"]), span)
    tiles = len(table)
    everything = tiles == many[0] * many[1]

    def body(n: Any, state: dict[str, Any]) -> dict[str, Any]:
        n = jnp.asarray(n, jnp.int32)
        head, tile = n // tiles, n % tiles
        if everything:
            i, j = tile // many[1], tile % many[1]
        else:
            i, j = jnp.asarray(table)[tile]
        at = {"t": i * block["t"], "s": j * block["s"]}
        at |= {"b": head // across[1] * block["b"], "k": head % across[1] * block["k"]}
        seen, unpredictable = _seen(at, walk)
        keep = _kept(at, walk, dtype)
        cut = {name: _cut(x, axes, at, walk) for name, (x, axes) in operands.items()}
        own = {
            name: _cut(state[name], axes, at, walk)
            for name, (_, axes) in sums.items()
            if name.startswith("_")
        }

        def work() -> dict[str, Any]:
            return step(cut, seen, keep, own)

        if unpredictable and seen is not None:
            shapes = jax.eval_shape(work)

            def idle() -> dict[str, Any]:
                zeros = {n: jnp.zeros(a.shape, a.dtype) for n, a in shapes.items()}
                return zeros | own

            new = jax.lax.cond(jnp.any(seen), work, idle)
        else:
            new = work()
        return {
            name: (_put if name.startswith("_") else _add)(state[name], new[name], axes, at, walk)
            for name, (_, axes) in sums.items()
        }

    fill = {"_max": -jnp.inf}
    start = {n: _pad(x, axes, walk, fill.get(n, 0)) for n, (x, axes) in sums.items()}
    steps = across[0] * across[1] * tiles
    end = jax.lax.fori_loop(0, steps, body, start) if steps else start

    def trim(x: Any, like: Any) -> Any:
        return jax.lax.slice(x, (0,) * x.ndim, like.shape)

    return {n: trim(end[n], x) for n, (x, _) in sums.items()}


class _Dots(NamedTuple):
    """Matrix products of tiles, in the operands' dtype with sums in `acc`."""

    mul: Any
    acc: Any
    precision: Any

    def __call__(self, spec: str, a: Any, b: Any) -> Any:
        a, b = a.astype(self.mul), b.astype(self.mul)
        options = {"precision": self.precision, "preferred_element_type": self.acc}
        return jnp.einsum(spec, a, b, **options)

    def qk(self, q: Any, k: Any) -> Any:
        return self("bkgth,bksh->bkgts", q, k)

    def pv(self, p: Any, v: Any) -> Any:
        return self("bkgts,bksh->bkgth", p, v)

    def qp(self, q: Any, p: Any) -> Any:
        # P^T Q, transposed: so that of the two factors the smaller one is turned.
        return self("bkgth,bkgts->bkhs", q, p)


def _dots(x: Inputs, config: Config, platform: str) -> _Dots:
    # A CPU multiplies in single precision anyway, so nothing is gained by rounding to half.
    acc = logits_dtype(x)
    return _Dots(acc if platform == "cpu" else x.query.dtype, acc, config.precision)


def _col(x: Any) -> Any:
    return x[..., None]


def _finite_logsum(y: Output) -> Any:
    return jnp.where(y.logsum == -jnp.inf, jnp.inf, y.logsum)


def _inputs(x: Inputs, suffix: str = "") -> dict[str, tuple[Any, str]]:
    return {
        f"q{suffix}": (x.query, QUERY),
        f"k{suffix}": (x.key, KEY),
        f"v{suffix}": (x.value, VALUE),
        f"bias{suffix}": (x.bias, PAIR),
    }


def _statistics(y: Output) -> dict[str, tuple[Any, str]]:
    return {"shift": (y.shift, ROW), "logsum": (_finite_logsum(y), ROW)}


def _weights(c: dict[str, Any], seen: Any, dots: _Dots, config: Config) -> formulas.Weights:
    z = config.scale * dots.qk(c["q"], c["k"])
    statistics = _col(c["shift"]), _col(c["logsum"])
    return formulas.weights(z, c.get("bias"), seen, *statistics, config.cap)


def _z_dot(c: dict[str, Any], q: str, k: str, dots: _Dots, config: Config) -> Any:
    return config.scale * (dots.qk(c[q], c["k"]) + dots.qk(c["q"], c[k]))


def forward(x: Inputs, masks: Masks, *, config: Config, platform: str) -> Output:
    """F: two products a tile, with the running maximum of each row."""
    walk, dots = plan(x, masks, config, platform), _dots(x, config, platform)

    def step(c: Any, seen: Any, keep: Any, own: Any) -> dict[str, Any]:
        z = config.scale * dots.qk(c["q"], c["k"])
        s, _ = formulas.logits(z, c.get("bias"), seen, config.cap)
        largest = jnp.maximum(own["_max"], jnp.max(s, -1))
        base = jnp.where(largest == -jnp.inf, 0, largest)
        e = jnp.exp(s - _col(base))
        shrink = jnp.exp(own["_max"] - base)
        return {
            "_max": largest,
            "_total": own["_total"] * shrink + jnp.sum(e, -1),
            "_out": own["_out"] * _col(shrink) + dots.pv(formulas.times(keep, e), c["v"]),
        }

    shape, dtype = x.query.shape[:-1], dots.acc
    sums = {
        "_max": (jnp.full(shape, -jnp.inf, dtype), ROW),
        "_total": (jnp.zeros(shape, dtype), ROW),
        "_out": (jnp.zeros((*shape, x.value.shape[-1]), dtype), OUT),
    }
    end = _sweep(walk, step, _inputs(x), sums, dtype)
    empty = end["_total"] == 0
    total = jnp.where(empty, 1, end["_total"])
    out = (end["_out"] / _col(total)).astype(x.query.dtype)
    shift = jnp.where(empty, 0, end["_max"])
    return Output(out, shift, jnp.where(empty, -jnp.inf, jnp.log(total)))


def tangent(
    x: Inputs, y: Output, t: Inputs, masks: Masks, *, config: Config, platform: str
) -> Output:
    """J: five products a tile."""
    walk, dots = plan(x, masks, config, platform), _dots(x, config, platform)

    def step(c: Any, seen: Any, keep: Any, own: Any) -> dict[str, Any]:
        w = _weights(c, seen, dots, config)
        z_dot = _z_dot(c, "qt", "kt", dots, config)
        weighted = w.p * formulas.logits_dot(w, z_dot, c.get("biast"))
        out = dots.pv(formulas.times(keep, weighted), c["v"])
        out += dots.pv(formulas.times(keep, w.p), c["vt"])
        return {"mu": jnp.sum(weighted, -1), "out": out}

    shape, dtype = x.query.shape[:-1], dots.acc
    sums = {
        "mu": (jnp.zeros(shape, dtype), ROW),
        "out": (jnp.zeros((*shape, x.value.shape[-1]), dtype), OUT),
    }
    operands = _inputs(x) | _inputs(t, "t") | _statistics(y)
    end = _sweep(walk, step, operands, sums, dtype)
    out = end["out"] - _col(end["mu"]) * y.out.astype(dtype)
    return Output(out.astype(y.out.dtype), jnp.zeros_like(y.shift), end["mu"])


def _sums_like(x: Inputs, dtype: Any) -> dict[str, tuple[Any, str]]:
    def turned(a: Any) -> Any:
        return jnp.zeros((*a.shape[:2], a.shape[3], a.shape[2]), dtype)

    return {
        "dq": (jnp.zeros(x.query.shape, dtype), QUERY),
        "dk": (turned(x.key), TURNED),
        "dv": (turned(x.value), TURNED),
        "dbias": (None if x.bias is None else jnp.zeros(x.bias.shape, dtype), PAIR),
    }


def _cast_like(end: dict[str, Any], x: Inputs) -> Inputs:
    dk, dv = (jnp.swapaxes(end[n], 2, 3) for n in ("dk", "dv"))
    parts = end["dq"], dk, dv, end.get("dbias")
    return Inputs(*(None if a is None else d.astype(a.dtype) for d, a in zip(parts, x)))


def delta(y: Output, g: Output, dtype: Any) -> Any:
    """The row statistic rowsum(G o O) - g."""
    return jnp.sum(g.out.astype(dtype) * y.out.astype(dtype), -1) - g.logsum


def delta_dot(y: Output, g: Output, y_dot: Output, g_dot: Output, dtype: Any) -> Any:
    """Its tangent, rowsum(G' o O + G o O') - g'."""
    out, out_dot = y.out.astype(dtype), y_dot.out.astype(dtype)
    mixed = g_dot.out.astype(dtype) * out + g.out.astype(dtype) * out_dot
    return jnp.sum(mixed, -1) - g_dot.logsum


def cotangent(
    x: Inputs, y: Output, g: Output, masks: Masks, *, config: Config, platform: str
) -> Inputs:
    """B: five products a tile."""
    walk, dots = plan(x, masks, config, platform), _dots(x, config, platform)

    def step(c: Any, seen: Any, keep: Any, own: Any) -> dict[str, Any]:
        w = _weights(c, seen, dots, config)
        ds, dz = formulas.cotangents(w, dots.qk(c["g"], c["v"]), keep, _col(c["delta"]))
        dz = config.scale * dz
        return {
            "dq": dots.pv(dz, c["k"]),
            "dk": dots.qp(c["q"], dz),
            "dv": dots.qp(c["g"], formulas.times(keep, w.p)),
            "dbias": ds,
        }

    operands = _inputs(x) | _statistics(y)
    operands |= {"g": (g.out, OUT), "delta": (delta(y, g, dots.acc), ROW)}
    end = _sweep(walk, step, operands, _sums_like(x, dots.acc), dots.acc)
    return _cast_like(end, x)


def hessian(
    x: Inputs,
    y: Output,
    g: Output,
    x_dot: Inputs,
    y_dot: Output,
    g_dot: Output,
    masks: Masks,
    *,
    config: Config,
    platform: str,
) -> Inputs:
    """H: twelve products a tile."""
    walk, dots = plan(x, masks, config, platform), _dots(x, config, platform)

    def step(c: Any, seen: Any, keep: Any, own: Any) -> dict[str, Any]:
        w = _weights(c, seen, dots, config)
        dp_dot = dots.qk(c["gt"], c["v"]) + dots.qk(c["g"], c["vt"])
        s = formulas.cotangents_dot(
            w,
            _z_dot(c, "qt", "kt", dots, config),
            c.get("biast"),
            dots.qk(c["g"], c["v"]),
            dp_dot,
            keep,
            _col(c["mu"]),
            _col(c["delta"]),
            _col(c["delta_dot"]),
        )
        dz, dz_dot = config.scale * s.dz, config.scale * s.dz_dot
        p, p_dot = formulas.times(keep, w.p), formulas.times(keep, s.p_dot)
        return {
            "dq": dots.pv(dz_dot, c["k"]) + dots.pv(dz, c["kt"]),
            "dk": dots.qp(c["q"], dz_dot) + dots.qp(c["qt"], dz),
            "dv": dots.qp(c["g"], p_dot) + dots.qp(c["gt"], p),
            "dbias": s.ds_dot,
        }

    operands = _inputs(x) | _inputs(x_dot, "t") | _statistics(y)
    operands |= {"g": (g.out, OUT), "gt": (g_dot.out, OUT), "mu": (y_dot.logsum, ROW)}
    operands |= {
        "delta": (delta(y, g, dots.acc), ROW),
        "delta_dot": (delta_dot(y, g, y_dot, g_dot, dots.acc), ROW),
    }
    end = _sweep(walk, step, operands, _sums_like(x, dots.acc), dots.acc)
    return _cast_like(end, x)


def second_tangent(
    x: Inputs,
    y: Output,
    t: Inputs,
    x_dot: Inputs,
    y_dot: Output,
    t_dot: Inputs,
    masks: Masks,
    *,
    config: Config,
    platform: str,
) -> Output:
    """K, the tangent of J.

    With C = (S1 - mu1) o (S2 - mu2) + S12 and kappa = rowsum(P o C): logsum12 = kappa and
    O12 = (D o P o C) V + (D o P1) V2 + (D o P2) V1 + (D o P) V12 - kappa O.
    """
    walk, dots = plan(x, masks, config, platform), _dots(x, config, platform)
    first = tangent(x, y, t, masks, config=config, platform=platform)

    def step(c: Any, seen: Any, keep: Any, own: Any) -> dict[str, Any]:
        w = _weights(c, seen, dots, config)
        z1 = _z_dot(c, "q1", "k1", dots, config)
        z2 = _z_dot(c, "q2", "k2", dots, config)
        z12 = _z_dot(c, "q12", "k12", dots, config)
        z12 += config.scale * (dots.qk(c["q1"], c["k2"]) + dots.qk(c["q2"], c["k1"]))
        s12 = formulas.logits_dot(w, z12, c.get("bias12"))
        if w.tanh is not None:
            s12 += w.bend * z1 * z2
        c1 = formulas.logits_dot(w, z1, c.get("bias1")) - _col(c["mu1"])
        c2 = formulas.logits_dot(w, z2, c.get("bias2")) - _col(c["mu2"])
        weighted = w.p * (c1 * c2 + s12)
        drop = functools.partial(formulas.times, keep)
        out = dots.pv(drop(weighted), c["v"]) + dots.pv(drop(w.p * c1), c["v2"])
        out += dots.pv(drop(w.p * c2), c["v1"]) + dots.pv(drop(w.p), c["v12"])
        return {"kappa": jnp.sum(weighted, -1), "out": out}

    shape, dtype = x.query.shape[:-1], dots.acc
    sums = {
        "kappa": (jnp.zeros(shape, dtype), ROW),
        "out": (jnp.zeros((*shape, x.value.shape[-1]), dtype), OUT),
    }
    operands = _inputs(x) | _inputs(t, "1") | _inputs(x_dot, "2") | _inputs(t_dot, "12")
    operands |= _statistics(y)
    operands |= {"mu1": (first.logsum, ROW), "mu2": (y_dot.logsum, ROW)}
    end = _sweep(walk, step, operands, sums, dtype)
    out = end["out"] - _col(end["kappa"]) * y.out.astype(dtype)
    return Output(out.astype(y.out.dtype), jnp.zeros_like(y.shift), end["kappa"])
