"""Attention in Pallas for TPUs.

A pass becomes one kernel for its sums over keys, one for those over queries and one for the bias;
what is not used is removed by XLA. The grid walks the tiles of logits that are not hidden, in the
order in which a result's tile is finished before the next one's begins; its sums stay in VMEM.

A tile of logits lies [keys, queries]: statistics of queries are then rows of lanes, reductions over
keys run along sublanes, and of the factors of every product only small ones are turned.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..availability import wrong_dtypes, wrong_platform
from ..op import local_struct
from . import grid
from .operands import Config, Inputs, Masks, in_span, kept, shown_by_all
from .passes import OUT, PAIR, QUERY, ROW, Lazy, Pass, PassKernel, Tiles, run_kernels

PLATFORMS = ("tpu",)
VMEM_BUDGET = 14 * 2**20  # of the 16 MiB that a kernel may use by default on the smallest chips


class _Algebra(NamedTuple):
    """Tiles of logits are [keys, queries]; products in the operands' dtype with sums in `acc`."""

    mul: Any
    acc: Any
    precision: Any

    def _dot(self, a: Any, b: Any, contract: tuple[int, int]) -> Any:
        dims = (((contract[0],), (contract[1],)), ((), ()))
        a, b = a.astype(self.mul), b.astype(self.mul)
        options = {"precision": self.precision, "preferred_element_type": self.acc}
        return jax.lax.dot_general(a, b, dims, **options)

    def qk(self, q: Any, k: Any) -> Any:
        return self._dot(k, q, (1, 1))

    def pv(self, p: Any, v: Any) -> Any:
        return self._dot(v, p, (0, 0))  # [features, queries]

    def qp(self, q: Any, p: Any) -> Any:
        return self._dot(p, q, (1, 0))

    def per_row(self, x: Any) -> Any:
        return x

    def like_pv(self, x: Any) -> Any:
        return x.astype(self.acc).T

    def over_keys(self, reduce: Callable[..., Any], p: Any) -> Any:
        return reduce(p, 0, keepdims=True)


PAIR_OF_ROWS = "bkgst"  # how a bias that is shared by all keys lies: queries in lanes
TURNED = (PAIR, QUERY, OUT)  # these lie the other way in a tile of logits or of `pv`


def _turn(x: Any) -> Any:
    """[a, b] as [b, a], also where an axis is one."""
    return x.reshape(x.shape[::-1]) if 1 in x.shape else x.T


@dataclasses.dataclass(frozen=True)
class _Piece:
    """How an array lies in memory and is cut into tiles.

    Attributes:
      axes: its axes as they lie; "." for an axis of one that only fills up sublanes.
      shape: its shape as it lies.
      given: its shape in the pass.
      length: lengths of a tile, of "t" and "s".
    """

    axes: str
    shape: tuple[int, ...]
    given: tuple[int, ...]
    length: dict[str, int]

    @classmethod
    def of(cls, axes: str, shape: tuple[int, ...], length: dict[str, int]) -> "_Piece":
        """The piece of an array of the pass."""
        if axes == ROW:
            return cls("bkg.t", (*shape[:3], 1, shape[3]), shape, length)
        if axes == PAIR and shape[4] == 1:
            return cls(PAIR_OF_ROWS, (*shape[:3], 1, shape[3]), shape, length)
        return cls(axes, shape, shape, length)

    def is_cut(self, axis: str, n: int) -> bool:
        """Whether tiles divide an axis: of pairs, one of length one is shared by all tiles."""
        return axis in "ts" and (n > 1 or self.axes not in (PAIR, PAIR_OF_ROWS))

    @property
    def block(self) -> tuple[int | None, ...]:
        """The tile, with None for axes that it drops."""
        return tuple(
            None if a in "bkg" else self.length[a] if self.is_cut(a, n) else n
            for a, n in zip(self.axes, self.shape)
        )

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape filled up to whole tiles."""
        return tuple(
            math.ceil(n / self.length[a]) * self.length[a] if self.is_cut(a, n) else n
            for a, n in zip(self.axes, self.shape)
        )

    @property
    def tile(self) -> tuple[Any, Any]:
        """The tile's shape in a kernel's sums."""
        rows, lanes = self.block[-2:]
        return (lanes, rows) if self.axes in TURNED else (rows, lanes)

    def store(self, x: Any) -> Any:
        """An array of the pass as it lies."""
        x = x.reshape(self.shape)
        return jnp.pad(x, [(0, m - n) for m, n in zip(self.padded, self.shape)])

    def restore(self, x: Any) -> Any:
        """The array of the pass."""
        return x[tuple(map(slice, self.shape))].reshape(self.given)

    def spec(self, walk: grid.Walk) -> pl.BlockSpec:
        """Which tile each step of the grid sees."""

        def index(*args: Any) -> Any:
            at = walk.place(args[: len(walk.grid)], args[len(walk.grid)])
            return tuple(
                at[a] if (a in "bkg" and n > 1) or self.is_cut(a, n) else np.int32(0)
                for a, n in zip(self.axes, self.shape)
            )

        return pl.BlockSpec(self.block, index)


# Tiles of logits that a kernel holds at once, as found by compiling for a v5e.
LOGITS = {"forward": 2, "tangent": 3, "cotangent": 2.5, "hessian": 3, "second_tangent": 4}
BLOCKS = ((1024, 1024), (512, 1024), (512, 512), (256, 512), (256, 256), (128, 256), (128, 128))


def _blocks(work: Pass, names: list[str], size: dict[str, int], config: Config) -> dict[str, int]:
    """The largest tile whose operands, sums and logits fit VMEM."""
    whole = {a: 128 * math.ceil(size[a] / 128) for a in "ts"}
    if config.blocks is not None:
        return {a: min(n, whole[a]) for a, n in zip("ts", config.blocks, strict=True)}

    def bytes_of(axes: str, shape: tuple[int, ...], width: int, length: dict[str, int]) -> int:
        rows, lanes = _Piece.of(axes, shape, length).block[-2:]
        assert rows is not None
        assert lanes is not None
        return max(rows, 8) * 128 * math.ceil(lanes / 128) * width

    for blocks in BLOCKS:
        length = {a: min(n, whole[a]) for a, n in zip("ts", blocks, strict=True)}
        arrays = work.operands.values()
        operands = sum(bytes_of(axes, a.shape, a.dtype.itemsize, length) for a, axes in arrays)
        sums = sum(bytes_of(work.sums[n].axes, work.sums[n].shape, 4, length) for n in names)
        tiles = LOGITS[work.name] + sum(axes == PAIR for _, axes in arrays)
        tiles += (config.cap is not None) + 2 * (config.dropout > 0)
        # Operands and results are doubled, so that copies overlap with the computation.
        if 2 * operands + 3 * sums + tiles * length["t"] * length["s"] * 4 <= VMEM_BUDGET:
            break
    return length


class _Kernel(PassKernel):
    algebra: _Algebra

    @functools.cached_property
    def length(self) -> dict[str, int]:
        return _blocks(self.work, self.names, self.size, self.config)

    @functools.cached_property
    def walk(self) -> grid.Walk:
        span = self.config.span if self.masks.offset is None else (None, None)
        return grid.plan(self.size, (self.length["t"], self.length["s"]), self.shared, span)

    @functools.cached_property
    def arrays(self) -> dict[str, tuple[Any, _Piece]]:
        """Operands and masks with their pieces."""
        masks = self.masks
        arrays = dict(self.work.operands)
        if masks.mask is not None:
            arrays["mask"] = masks.mask.astype(jnp.int8), PAIR
        if masks.query_segments is not None:
            arrays["query segments"] = masks.query_segments[:, None], "b.t"
            arrays["key segments"] = masks.key_segments[:, None], "b.s"
        return {n: (a, _Piece.of(axes, a.shape, self.length)) for n, (a, axes) in arrays.items()}

    @functools.cached_property
    def results(self) -> dict[str, tuple[_Piece, Any]]:
        """Pieces and dtypes of what the sums are turned into."""
        return {
            name: (_Piece.of(axes, shape, self.length), dtype)
            for name, (axes, shape, dtype) in self.own_results.items()
        }

    def call(self, interpret: bool) -> Tiles:
        """Run the kernel."""
        walk, masks = self.walk, self.masks
        table = None if walk.table is None else walk.table.ravel()
        lengths = masks.query_lengths, masks.key_lengths
        numbers = table, masks.offset, *lengths, masks.seed, masks.origin
        scalars = [jnp.atleast_1d(jnp.int32(0) if n is None else jnp.asarray(n)) for n in numbers]
        semantics: Any = ["parallel"] * len(walk.before) + ["arbitrary"] * (1 + len(walk.after))
        sums = [self.work.sums[n] for n in self.names]
        tiles = [_Piece.of(s.axes, s.shape, self.length).tile for s in sums]
        outs = pl.pallas_call(
            self.body,
            out_shape=[local_struct(p.padded, dtype) for p, dtype in self.results.values()],
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=len(scalars),
                grid=walk.grid,
                in_specs=[piece.spec(walk) for _, piece in self.arrays.values()],
                out_specs=[piece.spec(walk) for piece, _ in self.results.values()],
                scratch_shapes=[pltpu.VMEM(tile, self.acc) for tile in tiles],
            ),
            compiler_params=pltpu.CompilerParams(dimension_semantics=semantics),
            interpret=interpret,
            name=f"attention_{self.work.name}_{'_'.join(self.names)}",
        )(*scalars, *(piece.store(a) for a, piece in self.arrays.values()))
        return {n: p.restore(a) for (n, (p, _)), a in zip(self.results.items(), outs)}

    def body(self, *refs: Any) -> None:
        """One step of the grid: a tile of logits, and the begin and end of a result."""
        table, *numbers = refs[:6]
        inputs = dict(zip(self.arrays, refs[6:]))
        outputs = dict(zip(self.results, refs[6 + len(inputs) :]))
        sums = dict(zip(self.names, refs[6 + len(inputs) + len(outputs) :]))
        at = self.walk.place([pl.program_id(n) for n in range(len(self.walk.grid))], table)
        tiles = Lazy({n: functools.partial(self.load, inputs, n) for n in inputs})

        @pl.when(at["first"])
        def _() -> None:
            for n in self.names:
                sums[n][...] = jnp.full(sums[n].shape, self.work.sums[n].start, self.acc)

        def gain() -> None:
            seen, keep = self.seen(at, tiles, *numbers[:3]), self.keep(at, *numbers[3:])
            own = {n: sums[n][...] for n in self.names if self.work.sums[n].state}
            found = self.work.step(self.algebra, tiles, seen, keep, own)
            for n in self.names:
                new = found[n]()
                if not self.work.sums[n].state:
                    over = tuple(d for d in (0, 1) if sums[n].shape[d] == 1 and new.shape[d] > 1)
                    new = sums[n][...] + (jnp.sum(new, over, keepdims=True) if over else new)
                sums[n][...] = new

        live = self.live(at, *numbers[:3])
        pl.when(functools.reduce(jnp.logical_and, live))(gain) if live else gain()

        @pl.when(at["last"])
        def _() -> None:
            found = self.work.finish(self.algebra, tiles, {n: sums[n][...] for n in self.names})
            for n, (piece, dtype) in self.results.items():
                value = _turn(found[n]) if piece.axes in TURNED else found[n]
                outputs[n][...] = value.astype(dtype)

    def load(self, inputs: Tiles, name: str) -> Any:
        """A tile of an operand; pairs as a tile of logits lies."""
        x = inputs[name][...]
        axes = self.arrays[name][1].axes
        if axes in (PAIR, PAIR_OF_ROWS):
            x = x.astype(jnp.int32 if name == "mask" else self.acc)
        return _turn(x) if axes in (PAIR, "b.s") else x

    def place(self, at: Any) -> tuple[Any, Any]:
        """The queries and keys of a tile of logits."""
        bq, bk = self.length["t"], self.length["s"]
        row, col = (jax.lax.broadcasted_iota(jnp.int32, (bk, bq), axis) for axis in (1, 0))
        return at["t"] * bq + row, at["s"] * bk + col

    def seen(self, at: Any, tiles: Tiles, offset: Any, query_lengths: Any, key_lengths: Any) -> Any:
        """Which pairs of the tile are seen; None for all."""
        row, col = self.place(at)
        masks = self.masks
        shift = 0 if masks.offset is None else offset[0]
        parts = [in_span(row + shift, col, self.config.span)]
        if self.size["s"] % self.length["s"]:
            parts.append(col < self.size["s"])
        if masks.query_lengths is not None:
            parts.append(row < query_lengths[at["b"]])
        if masks.key_lengths is not None:
            parts.append(col < key_lengths[at["b"]])
        if masks.query_segments is not None:
            parts.append(tiles["key segments"] == tiles["query segments"])
        if masks.mask is not None:
            parts.append(tiles["mask"] != 0)
        return shown_by_all(parts)

    def live(self, at: Any, offset: Any, query_lengths: Any, key_lengths: Any) -> list[Any]:
        """Conditions on a tile that something of it is seen, as far as scalars tell."""
        bq, bk = self.length["t"], self.length["s"]
        first_row, first_col = at["t"] * bq, at["s"] * bk
        masks, (left, right) = self.masks, self.config.span
        live: list[Any] = []
        if masks.offset is not None or self.walk.table is None:
            position = first_row + (0 if masks.offset is None else offset[0])
            if left is not None:
                live.append(first_col + bk - 1 >= position - left)
            if right is not None:
                live.append(first_col <= position + bq - 1 + right)
        if masks.query_lengths is not None:
            live.append(first_row < query_lengths[at["b"]])
        if masks.key_lengths is not None:
            live.append(first_col < key_lengths[at["b"]])
        return live

    def keep(self, at: Any, seed: Any, origin: Any) -> Any:
        """Dropout's factors, or None."""
        if not self.config.dropout:
            return None
        head = at["k"] * self.size["g"] + at["g"]
        row, col = self.place(at)
        if self.masks.origin is not None:
            row, col = row + origin[0], col + origin[1]
        place = at["b"], head, row, col
        return kept((seed[0], seed[1]), *place, self.config.dropout, self.acc)


def why_not(config: Config, x: Inputs, masks: Masks, platform: str | None) -> list[str]:
    """Why the kernels cannot run what is asked."""
    dtypes = [a.dtype for a in (x.query, x.bias) if a is not None]
    reasons = wrong_platform(platform, PLATFORMS)
    return reasons + wrong_dtypes(dtypes, ("float32", "bfloat16"))


def bad_tiles(config: Config, x: Inputs, masks: Masks) -> list[str]:
    """Why the tiles asked for cannot be: they must be whole registers, unless there is but one."""
    assert config.blocks is not None
    pairs = x.bias is not None or masks.mask is not None or masks.key_segments is not None
    found = []
    for side, tile, size, unit in (
        ("queries", config.blocks[0], x.query.shape[3], 128),
        ("keys", config.blocks[1], x.key.shape[2], 128 if pairs else 8),
    ):
        if tile < size and tile % unit:
            found.append(f"it takes multiples of {unit} {side}, or all {size}, not {tile}")
    return found


def run(
    work: Pass, x: Inputs, masks: Masks, config: Config, platform: str, interpret: bool = False
) -> Tiles:
    """Run the kernels of a pass and return its results."""
    return run_kernels(_Kernel, _Algebra, work, x, masks, config, interpret)
