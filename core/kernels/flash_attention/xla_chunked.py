"""Attention tile by tile in plain XLA: runs everywhere, in memory linear in the sequence length.

Every pass is one loop over the tiles (batch, head, queries, keys) that the causal or the window
mask leaves: a step cuts its tile of each operand and adds to the tiles of the sums.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .operands import (
    Config,
    Inputs,
    Masks,
    in_span,
    kept,
    logits_dtype,
    shown_by_all,
    tiles_in_span,
)
from .passes import KEY, PAIR, VALUE, Pass, Tiles


class _Algebra(NamedTuple):
    """Tiles with all their axes; products in the operands' dtype with sums in `acc`."""

    mul: Any
    acc: Any
    precision: Any

    def _dot(self, spec: str, a: Any, b: Any) -> Any:
        options = {"precision": self.precision, "preferred_element_type": self.acc}
        return jnp.einsum(spec, a.astype(self.mul), b.astype(self.mul), **options)

    def qk(self, q: Any, k: Any) -> Any:
        return self._dot("bkgth,bksh->bkgts", q, k)

    def pv(self, p: Any, v: Any) -> Any:
        return self._dot("bkgts,bksh->bkgth", p, v)

    def qp(self, q: Any, p: Any) -> Any:
        # Transposed, [.., features, keys]: so that of the two factors the smaller one is turned.
        return self._dot("bkgth,bkgts->bkhs", q, p)

    def per_row(self, x: Any) -> Any:
        return x[..., None]

    def like_pv(self, x: Any) -> Any:
        return x.astype(self.acc)

    def over_keys(self, reduce: Callable[..., Any], p: Any) -> Any:
        return reduce(p, -1)


def _stored(axes: str) -> str:
    """The axes in which a sum is kept: those over queries as `qp` gives them."""
    return axes[:2] + axes[3] + axes[2] if axes in (KEY, VALUE) else axes


class _Walk(NamedTuple):
    """Lengths, and lengths of a tile, by axis."""

    size: dict[str, int]
    block: dict[str, int]

    def pad(self, x: Any, axes: str, fill: float = 0) -> Any:
        """`x` with queries and keys filled up to whole tiles."""
        widths = [
            (0, -self.size[a] % self.block[a] if a in "ts" and n > 1 else 0)
            for a, n in zip(axes, x.shape)
        ]
        return jnp.pad(x, widths, constant_values=fill) if any(w for _, w in widths) else x

    def _starts(self, x: Any, axes: str, at: dict[str, Any]) -> Any:
        return [at[a] if n > 1 and a in at else np.int32(0) for a, n in zip(axes, x.shape)]

    def cut(self, x: Any, axes: str, at: dict[str, Any]) -> Any:
        lengths = [self.block[a] if n > 1 and a in at else n for a, n in zip(axes, x.shape)]
        return jax.lax.dynamic_slice(x, self._starts(x, axes, at), lengths)

    def put(self, x: Any, tile: Any, axes: str, at: dict[str, Any]) -> Any:
        return jax.lax.dynamic_update_slice(x, tile, self._starts(x, axes, at))

    def add(self, x: Any, tile: Any, axes: str, at: dict[str, Any]) -> Any:
        """Add `tile` in its place, summed over the axes that `x` shares."""
        shared = tuple(i for i, (n, m) in enumerate(zip(x.shape, tile.shape)) if n == 1 and m > 1)
        tile = jnp.sum(tile, shared, keepdims=True) if shared else tile
        return self.put(x, self.cut(x, axes, at) + tile, axes, at)


def _walk(x: Inputs, config: Config, cpu: bool, all_heads: bool) -> _Walk:
    """Tiles that suit the platform."""
    b, k, g, t, _ = x.query.shape
    s = x.key.shape[2]
    bq, bk = config.blocks or ((max(512 // max(g, 1), 64), 512) if cpu else (1024, 1024))
    heads = (1, 1) if cpu and not all_heads else (b, k)
    size = {"b": b, "k": k, "g": g, "t": t, "s": s}
    block = (max(n, 1) for n in (*heads, g, min(bq, t), min(bk, s)))
    return _Walk(size, dict(zip("bkgts", block, strict=True)))


def _seen(walk: _Walk, masks: Masks, config: Config, at: dict[str, Any]) -> Any:
    """Which pairs of the tile are seen; None for all."""
    row = at["t"] + jnp.arange(walk.block["t"])[:, None]
    col = at["s"] + jnp.arange(walk.block["s"])

    def cut(x: Any, axes: str) -> Any:
        return walk.cut(walk.pad(x, axes), axes, at)

    offset = 0 if masks.offset is None else masks.offset
    parts = [in_span(row + offset, col, config.span)]
    if walk.size["s"] % walk.block["s"]:
        parts.append(col < walk.size["s"])
    if masks.mask is not None:
        parts.append(cut(masks.mask, PAIR))
    if masks.query_lengths is not None:
        parts.append(row < cut(masks.query_lengths, "b")[:, None, None, None, None])
    if masks.key_lengths is not None:
        parts.append(col < cut(masks.key_lengths, "b")[:, None, None, None, None])
    if masks.query_segments is not None:
        of_query = cut(masks.query_segments, "bt")[:, None, None, :, None]
        parts.append(of_query == cut(masks.key_segments, "bs")[:, None, None, None, :])
    return shown_by_all(parts)


def _kept(walk: _Walk, masks: Masks, config: Config, at: dict[str, Any], dtype: Any) -> Any:
    if not config.dropout:
        return None
    b, k, g, t, s = (at.get(a, 0) + jnp.arange(walk.block[a]) for a in "bkgts")
    if masks.origin is not None:
        t, s = t + masks.origin[0], s + masks.origin[1]
    head = k[:, None, None, None] * walk.size["g"] + g[:, None, None]
    place = b[:, None, None, None, None], head, t[:, None], s
    return kept(masks.seed, *place, config.dropout, dtype)


def run(
    work: Pass, x: Inputs, masks: Masks, config: Config, platform: str, all_heads: bool = False
) -> Tiles:
    """Walk the tiles of a pass, one head at a time on a CPU, and return its results."""
    cpu = platform == "cpu"
    walk, dtype = _walk(x, config, cpu, all_heads), logits_dtype(x)
    # A CPU multiplies in single precision anyway, so nothing is gained by rounding to half.
    mul = dtype if cpu else x.query.dtype
    algebra = _Algebra(mul, dtype, config.precision)
    size, block = walk.size, walk.block
    operands = {name: (walk.pad(a, axes), axes) for name, (a, axes) in work.operands.items()}
    stored = {name: _stored(s.axes) for name, s in work.sums.items()}

    def start(s: Any) -> Any:
        length = dict(zip(s.axes, s.shape, strict=True))
        zeros = jnp.full([length[a] for a in _stored(s.axes)], s.start, dtype)
        return walk.pad(zeros, _stored(s.axes), s.start)

    across = size["b"] // block["b"], size["k"] // block["k"]
    columns = -(-size["s"] // block["s"])
    span = config.span if masks.offset is None else (None, None)
    table = tiles_in_span(size["t"], size["s"], (block["t"], block["s"]), span)
    tiles = len(table)
    everything = tiles == -(-size["t"] // block["t"]) * columns
    # Tiles that masks known only at run time may hide are looked at first.
    unpredictable = any(m is not None for m in masks[:6])

    def body(n: Any, sums: Tiles) -> Tiles:
        n = jnp.asarray(n, jnp.int32)
        head, tile = n // tiles, n % tiles
        i, j = (tile // columns, tile % columns) if everything else jnp.asarray(table)[tile]
        at = {"t": i * block["t"], "s": j * block["s"]}
        at |= {"b": head // across[1] * block["b"], "k": head % across[1] * block["k"]}
        seen = _seen(walk, masks, config, at)
        keep = _kept(walk, masks, config, at, dtype)
        own = {n: walk.cut(sums[n], stored[n], at) for n, s in work.sums.items() if s.state}

        def gains() -> Tiles:
            cut = {name: walk.cut(a, axes, at) for name, (a, axes) in operands.items()}
            found = work.step(algebra, cut, seen, keep, own)
            return {name: found[name]() for name in work.sums}

        def nothing() -> Tiles:
            shapes = jax.eval_shape(gains)
            return {n: jnp.zeros(a.shape, a.dtype) for n, a in shapes.items()} | own

        if unpredictable and seen is not None:
            gain = jax.lax.cond(jnp.any(seen), gains, nothing)
        else:
            gain = gains()
        return {
            n: (walk.put if s.state else walk.add)(sums[n], gain[n], stored[n], at)
            for n, s in work.sums.items()
        }

    begin = {name: start(s) for name, s in work.sums.items()}
    steps = across[0] * across[1] * tiles
    end = jax.lax.fori_loop(0, steps, body, begin) if steps else begin

    def trim(x: Any, s: Any) -> Any:
        x = x if s.axes == _stored(s.axes) else jnp.swapaxes(x, 2, 3)
        return x[tuple(map(slice, s.shape))]

    sums = {name: trim(end[name], s) for name, s in work.sums.items()}
    found = work.finish(algebra, {name: a for name, (a, _) in work.operands.items()}, sums)
    return {name: found[name].astype(dtype) for name, (_, dtype) in work.results.items()}
