"""Attention in Pallas for NVIDIA and AMD GPUs, through Triton.

A pass becomes one kernel for its sums over keys, one for those over queries and one for the bias;
what is not used is removed by XLA. A program of the grid makes one tile of results: it loops over
the tiles of logits that add to it, with the sums in registers.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from ..availability import GPUS, SMALLEST, shared_memory, wrong_dtypes, wrong_platform
from ..op import local_struct
from .operands import Config, Inputs, Masks, in_span, kept, shown_by_all
from .passes import PAIR, Lazy, Pass, PassKernel, Sum, Tiles, run_kernels

PLATFORMS = GPUS

# (queries, keys) in a tile and warps, by pass, for up to 64 and up to 128 features; halved beyond.
# Of those that the compiler for Hopper fits into registers: what has the most rows of results, as
# every tile of results reads all of the other side, and multiplies by groups of four warps.
BLOCKS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "forward": ((128, 64, 4), (128, 64, 8)),
    "tangent": ((64, 64, 4), (64, 32, 4)),
    "cotangent": ((64, 64, 4), (64, 64, 8)),
    "hessian": ((128, 32, 8), (128, 32, 8)),
    "hessian over queries": ((32, 64, 4), (32, 64, 8)),
    "second_tangent": ((32, 32, 4), (32, 32, 4)),
}


class _Algebra(NamedTuple):
    """Tiles of logits are [queries, keys]; products in the operands' dtype with sums in `acc`."""

    mul: Any
    acc: Any
    precision: Any

    def _dot(self, a: Any, b: Any) -> Any:
        options = {"precision": self.precision, "preferred_element_type": self.acc}
        return jnp.dot(a.astype(self.mul), b.astype(self.mul), **options)

    def qk(self, q: Any, k: Any) -> Any:
        return self._dot(q, k.T)

    def pv(self, p: Any, v: Any) -> Any:
        return self._dot(p, v)

    def qp(self, q: Any, p: Any) -> Any:
        return self._dot(p.T, q)

    def per_row(self, x: Any) -> Any:
        return x[:, None]

    def like_pv(self, x: Any) -> Any:
        return x.astype(self.acc)

    def over_keys(self, reduce: Callable[..., Any], p: Any) -> Any:
        return reduce(p, axis=1)


def _is_cut(axes: str, axis: str, n: int) -> bool:
    """Whether tiles divide an axis: of pairs, one of length one is shared by all tiles."""
    return axis in "ts" and (n > 1 or axes != PAIR)


def _padded(axes: str, shape: tuple[int, ...], length: dict[str, int]) -> tuple[int, ...]:
    """The shape with whole tiles of queries and keys, and features in a power of two."""

    def fill(axis: str, n: int) -> int:
        if _is_cut(axes, axis, n):
            return math.ceil(n / length[axis]) * length[axis]
        return max(16, pl.next_power_of_2(n)) if axis in "he" else n

    return tuple(fill(a, n) for a, n in zip(axes, shape))


class _Kernel(PassKernel):
    algebra: _Algebra

    @functools.cached_property
    def tuning(self) -> tuple[dict[str, int], int, int]:
        """Lengths of a tile, warps, and for how many tiles of a loop there is room."""
        features = max(a.shape[-1] for a, axes in self.work.operands.values() if axes[-1] in "he")
        name, side = self.work.name, " over queries" if "t" in self.shared else ""
        bq, bk, warps = BLOCKS.get(name + side, BLOCKS[name])[features > 64]
        if self.config.blocks is not None:
            bq, bk = self.config.blocks
            return {"t": bq, "s": bk}, warps, 2
        if features > 128 or self.acc == jnp.float64 or self.algebra.mul == jnp.float32:
            bq, bk = max(bq // 2, 16), max(bk // 2, 16)
        room = shared_memory() or SMALLEST
        while self.shared_bytes({"t": bq, "s": bk}, 2) > room and max(bq, bk) > 16:
            bq, bk = (bq // 2, bk) if bq > bk else (bq, bk // 2)
        length = {"t": bq, "s": bk}
        return length, warps, 2 if self.shared_bytes(length, 2) <= room else 1

    def shared_bytes(self, length: dict[str, int], stages: int) -> int:
        """Shared memory for the rows that are multiplied, of which those of a loop come ahead.

        Never less than what the compilers for Ampere and Hopper take, which ask for two tiles of
        weights and a few statistics beside them.
        """
        queries, keys = length["t"], length["s"]
        total = 2 * queries * keys * self.algebra.mul.itemsize + 16 * max(queries, keys)
        for a, axes in self.work.operands.values():
            if axes[-1] in "he":
                is_looped = any(self.size[x] > 1 for x in self.shared if x in axes)
                row = _padded(axes, a.shape, length)[-1] * a.dtype.itemsize
                total += length[axes[-2]] * row * (stages if is_looped else 1)
        return total

    @functools.cached_property
    def arrays(self) -> dict[str, tuple[Any, str]]:
        """Operands and masks."""
        masks = self.masks
        arrays = dict(self.work.operands)
        if masks.mask is not None:
            arrays["mask"] = masks.mask.astype(jnp.int8), PAIR
        if masks.query_segments is not None:
            arrays["query segments"] = masks.query_segments, "bt"
            arrays["key segments"] = masks.key_segments, "bs"
        for name, axes in (
            ("query_lengths", "b"),
            ("key_lengths", "b"),
            ("offset", ""),
            ("seed", "."),
            ("origin", "."),
        ):
            if getattr(masks, name) is not None:
                arrays[name] = getattr(masks, name), axes
        return arrays

    @property
    def own(self) -> str:
        """The axes that tell results apart, the fastest of the grid first."""
        return "".join(a for a in "tsgkb" if a not in self.shared)

    def many(self, axis: str) -> int:
        """Tiles or heads along an axis."""
        return -(-self.size[axis] // self.tuning[0].get(axis, 1))

    def call(self, interpret: bool) -> Tiles:
        """Run the kernel."""
        length, warps, stages = self.tuning
        operands = []
        for a, axes in self.arrays.values():
            widths = [(0, m - n) for m, n in zip(_padded(axes, a.shape, length), a.shape)]
            operands.append(jnp.pad(a, widths) if any(w for _, w in widths) else a)
        results = self.own_results
        padded = {n: _padded(axes, shape, length) for n, (axes, shape, _) in results.items()}
        outs = pl.pallas_call(
            self.body,
            out_shape=[local_struct(padded[n], dtype) for n, (*_, dtype) in results.items()],
            grid=tuple(self.many(a) for a in self.own),
            compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=stages),
            interpret=interpret,
            name=f"attention_{self.work.name}_{'_'.join(self.names)}",
        )(*operands)
        shapes = (shape for _, shape, _ in results.values())
        return {n: a[tuple(map(slice, s))] for n, a, s in zip(results, outs, shapes)}

    def index(self, axes: str, shape: tuple[int, ...], at: dict[str, Any]) -> tuple[Any, ...]:
        """Where the tile at `at` lies in an array."""
        length = self.tuning[0]

        def one(axis: str, n: int) -> Any:
            if axis in "bkg":
                return at[axis] if n > 1 else 0
            if _is_cut(axes, axis, n):
                return pl.ds(at[axis] * length[axis], length[axis])
            return pl.ds(0, n)

        return tuple(one(a, n) for a, n in zip(axes, shape))

    def body(self, *refs: Any) -> None:
        """One program: the tile of results at the grid's indices."""
        inputs = dict(zip(self.arrays, refs))
        outputs = dict(zip(self.own_results, refs[len(inputs) :]))
        here = {a: pl.program_id(n) for n, a in enumerate(self.own)}
        sums = {n: self.work.sums[n] for n in self.names}

        def load(name: str, at: dict[str, Any]) -> Any:
            axes = self.arrays[name][1]
            return inputs[name][self.index(axes, inputs[name].shape, at)]

        def tiles(at: dict[str, Any]) -> Tiles:
            return Lazy({n: functools.partial(load, n, at) for n in inputs})

        def gain(at: dict[str, Any], carry: Tiles) -> Tiles:
            cut = tiles(at)
            seen, keep = self.seen(at, cut, inputs), self.keep(at, inputs)
            own = {n: carry[n] for n in sums if sums[n].state}
            found = self.work.step(self.algebra, cut, seen, keep, own)
            after = {}
            for n in sums:
                new = found[n]()
                if not sums[n].state:
                    over = tuple(d for d in range(new.ndim) if carry[n].shape[d] < new.shape[d])
                    new = carry[n] + (jnp.sum(new, over, keepdims=True) if over else new)
                after[n] = new
            return after

        end = self.loop(gain, here, {n: self.start(s) for n, s in sums.items()}, inputs)
        found = self.work.finish(self.algebra, tiles(here), end)
        for n, (axes, _, dtype) in self.own_results.items():
            index = self.index(axes, outputs[n].shape, here)
            outputs[n][index] = found[n].astype(dtype)

    def start(self, s: Sum) -> Any:
        """A sum before the first tile."""
        length = self.tuning[0]
        shape = _padded(s.axes, s.shape, length)
        tile = [length[a] if _is_cut(s.axes, a, n) else n for a, n in zip(s.axes, shape)]
        return jnp.full([n for a, n in zip(s.axes, tile) if a not in "bkg"], s.start, self.acc)

    def loop(self, gain: Any, at: dict[str, Any], carry: Tiles, inputs: Tiles) -> Tiles:
        """`gain` from every tile that the shared axes run over, those of queries or keys inside."""
        inner = [a for a in "bkgts" if a in self.shared and (a in "ts" or self.size[a] > 1)]
        for a in self.shared:
            if a not in inner:
                at = at | {a: jnp.int32(0)}

        def over(axes: list[str], at: dict[str, Any], carry: Tiles) -> Tiles:
            if not axes:
                return gain(at, carry)
            low, high = self.bounds(axes[0], at, inputs)
            return jax.lax.fori_loop(
                low, high, lambda n, carry: over(axes[1:], at | {axes[0]: n}, carry), carry
            )

        return over(inner, at, carry)

    def bounds(self, axis: str, at: dict[str, Any], inputs: Tiles) -> tuple[Any, Any]:
        """From and to which index of an axis something may be seen, given the indices outside."""
        low, high = jnp.int32(0), jnp.int32(self.many(axis))
        length, (left, right) = self.tuning[0], self.config.span
        if axis not in "ts":
            return low, high
        # Query `row` sees the keys from row + offset - left to row + offset + right.
        other = "s" if axis == "t" else "t"
        offset = 0 if self.masks.offset is None else inputs["offset"][()]
        before, after = (left, right) if axis == "s" else (right, left)
        offset = offset if axis == "s" else -offset
        if other in at:
            first = at[other] * length[other] + offset
            if before is not None:
                low = jax.lax.div(jnp.maximum(first - before, 0), jnp.int32(length[axis]))
            if after is not None:
                ahead = first + length[other] + after
                high = jnp.minimum(high, _ceil_div(jnp.maximum(ahead, 0), length[axis]))
        lengths = {"t": "query_lengths", "s": "key_lengths"}[axis]
        if lengths in inputs:
            high = jnp.minimum(high, _ceil_div(inputs[lengths][at["b"]], length[axis]))
        return low, high

    def place(self, at: dict[str, Any]) -> tuple[Any, Any]:
        """The queries and keys of a tile of logits."""
        length = self.tuning[0]
        row, col = (at[a] * length[a] + jnp.arange(length[a], dtype=jnp.int32) for a in "ts")
        return row[:, None], col[None, :]

    def seen(self, at: dict[str, Any], tiles: Tiles, inputs: Tiles) -> Any:
        """Which pairs of the tile are seen; None for all."""
        row, col = self.place(at)
        shift = 0 if self.masks.offset is None else inputs["offset"][()]
        parts = [in_span(row + shift, col, self.config.span)]
        if self.size["s"] % self.tuning[0]["s"]:
            parts.append(col < self.size["s"])
        if "query_lengths" in inputs:
            parts.append(row < inputs["query_lengths"][at["b"]])
        if "key_lengths" in inputs:
            parts.append(col < inputs["key_lengths"][at["b"]])
        if "query segments" in inputs:
            parts.append(tiles["query segments"][:, None] == tiles["key segments"][None, :])
        if "mask" in inputs:
            parts.append(tiles["mask"] != 0)
        return shown_by_all(parts)

    def keep(self, at: dict[str, Any], inputs: Tiles) -> Any:
        """Dropout's factors, or None."""
        if not self.config.dropout:
            return None
        head = at["k"] * self.size["g"] + at["g"]
        seed = inputs["seed"][0], inputs["seed"][1]
        row, col = self.place(at)
        if "origin" in inputs:
            row, col = row + inputs["origin"][0], col + inputs["origin"][1]
        return kept(seed, at["b"], head, row, col, self.config.dropout, self.acc)


def _ceil_div(x: Any, by: int) -> Any:
    return jax.lax.div(x + (by - 1), jnp.int32(by))


def why_not(config: Config, x: Inputs, masks: Masks, platform: str | None) -> list[str]:
    """Why the kernels cannot run what is asked."""
    reasons = wrong_platform(platform, PLATFORMS)
    reasons += wrong_dtypes([x.query.dtype], ("float32", "float16", "bfloat16"))
    features = max(x.query.shape[-1], x.value.shape[-1])
    if features > 256:
        reasons.append(f"it takes up to 256 features a head, not {features}")
    # The Hessian's four arrays of queries' rows and four of keys', in the smallest tiles.
    widths = (pl.next_power_of_2(a.shape[-1]) for a in (x.query, x.value))
    needed, room = 16 * 4 * sum(widths) * x.query.dtype.itemsize, shared_memory()
    if platform is not None and room is not None and needed > room:
        reasons.append(f"its tiles take {needed // 1024} KiB of a block's {room // 1024} KiB")
    return reasons


def bad_tiles(config: Config, x: Inputs, masks: Masks) -> list[str]:
    """Why the tiles asked for cannot be: tensor cores take powers of two."""
    assert config.blocks is not None
    return [
        f"it takes powers of two from 16 {side}, not {n}"
        for side, n in zip(("queries", "keys"), config.blocks, strict=True)
        if n < 16 or n & (n - 1)
    ]


def run(
    work: Pass, x: Inputs, masks: Masks, config: Config, platform: str, interpret: bool = False
) -> Tiles:
    """Run the kernels of a pass and return its results."""
    return run_kernels(_Kernel, _Algebra, work, x, masks, config, interpret)
