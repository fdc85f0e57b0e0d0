"""AdaHessian's step in Pallas for TPUs and GPUs: several leaves a launch, in place.

A launch takes a group of leaves as they lie in memory, without packing them: its grid walks the
tiles of one leaf after the other, and what a step does is chosen by which leaf it has reached. On a
TPU the tiles of the other leaves stand still meanwhile, so that nothing is moved for them.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu

from ..op import local_struct
from .reference import Constants, Numbers, step

TPU_GROUP, GPU_GROUP = 6, 16  # leaves a launch: each holds 16 tiles of a TPU's memory
TILE_BYTES = 2**17
GPU_TILE = 1024
Leaf = tuple[jax.Array, ...]  # p, g, d, m and v, each [window, rows, columns]
WRITTEN = (0, 3, 4)  # p, m and v


class _Tiling(NamedTuple):
    """How a leaf is cut, and which steps of the grid are its own."""

    window: int
    rows: int
    columns: int
    across: int
    first: int
    steps: int

    def place(self, i: Any) -> tuple[Any, Any, Any]:
        """The tile of a step of the grid; a neighbour's steps see the nearest tile."""
        own = jnp.clip(i - self.first, 0, self.steps - 1)
        across = jnp.int32(self.across)
        return jnp.int32(0), jax.lax.div(own, across), jax.lax.rem(own, across)


def _tile(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tile: whole axes where they fit, or multiples of 8 and 128."""
    window, rows, columns = shape
    numbers = max(TILE_BYTES // (4 * window), 8 * 128)
    width = columns if 8 * columns <= numbers else max(numbers // 8 // 128, 1) * 128
    height = numbers // width
    return (rows if rows <= height else height // 8 * 8), width


def _tpu_kernel(constants: Constants, tilings: list[_Tiling], *refs: Any) -> None:
    numbers_ref, *arrays = refs
    i = pl.program_id(0)
    outs = arrays[5 * len(tilings) :]
    for n, tiling in enumerate(tilings):

        @pl.when((i >= tiling.first) & (i < tiling.first + tiling.steps))
        def _leaf(n: int = n) -> None:
            numbers = Numbers(*(numbers_ref[k] for k in range(len(Numbers._fields))))
            values = (ref[...] for ref in arrays[5 * n : 5 * n + 5])
            for out, new in zip(outs[3 * n : 3 * n + 3], step(constants, numbers, *values)):
                out[...] = new.astype(out.dtype)


def _run_tpu(constants: Constants, numbers: jax.Array, leaves: list[Leaf], interpret: bool) -> Any:
    tilings: list[_Tiling] = []
    for p, *_ in leaves:
        rows, columns = _tile(p.shape)
        across = math.ceil(p.shape[2] / columns)
        first = tilings[-1].first + tilings[-1].steps if tilings else 0
        count = across * math.ceil(p.shape[1] / rows)
        tilings.append(_Tiling(p.shape[0], rows, columns, across, first, count))

    def spec(tiling: _Tiling, window: int) -> pl.BlockSpec:
        return pl.BlockSpec((window, tiling.rows, tiling.columns), tiling.place)

    specs = [[spec(t, x.shape[0]) for x in leaf] for t, leaf in zip(tilings, leaves, strict=True)]
    return pl.pallas_call(
        functools.partial(_tpu_kernel, constants, tilings),
        grid=(tilings[-1].first + tilings[-1].steps,),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), *itertools.chain(*specs)],
        out_specs=[s[k] for s in specs for k in WRITTEN],
        out_shape=[local_struct(x[k].shape, x[k].dtype) for x in leaves for k in WRITTEN],
        input_output_aliases={
            1 + 5 * n + k: 3 * n + j for n in range(len(leaves)) for j, k in enumerate(WRITTEN)
        },
        interpret=interpret,
        name="adahessian_step",
    )(numbers, *(x for leaf in leaves for x in leaf))


def _gpu_kernel(constants: Constants, firsts: list[int], *refs: Any) -> None:
    numbers_ref, *arrays = refs
    i = pl.program_id(0)
    leaves = len(firsts) - 1
    outs = arrays[5 * leaves :]
    for n, (first, end) in enumerate(itertools.pairwise(firsts)):

        @pl.when((i >= first) & (i < end))
        def _leaf(n: int = n, first: int = first) -> None:
            numbers = Numbers(*(numbers_ref[k] for k in range(len(Numbers._fields))))
            p, g, d, m, v = arrays[5 * n : 5 * n + 5]
            window, size = p.shape
            at = pl.ds((i - first) * GPU_TILE, GPU_TILE)
            inside = ((i - first) * GPU_TILE + jnp.arange(GPU_TILE, dtype=jnp.int32) < size)[None]

            def load(ref: Any, k: Any) -> Any:
                return plgpu.load(ref.at[pl.ds(k, 1), at], mask=inside, other=0)

            def store(ref: Any, k: Any, x: Any) -> None:
                plgpu.store(ref.at[pl.ds(k, 1), at], x.astype(ref.dtype), mask=inside)

            # Triton's tiles are powers of two, which the window is not: it is gone through twice.
            def add(k: Any, total: Any) -> Any:
                x = load(d, k).astype(jnp.float32)
                return total + (jnp.abs(x) if constants.average_of == "abs" else x)

            zero = jnp.zeros((1, GPU_TILE), jnp.float32)
            average = jax.lax.fori_loop(0, window, add, zero) / window
            old = load(v, 0)
            new_p, new_m, new_v = outs[3 * n : 3 * n + 3]

            def one(k: Any, _: Any) -> Any:
                values = load(p, k), load(g, k), average, load(m, k), old
                new = step(constants, numbers, *values)
                store(new_p, k, new[0])
                store(new_m, k, new[1])
                return new[2]

            store(new_v, 0, jax.lax.fori_loop(0, window, one, zero))


def _run_gpu(constants: Constants, numbers: jax.Array, leaves: list[Leaf], interpret: bool) -> Any:
    flat = [[x.reshape(x.shape[0], -1) for x in leaf] for leaf in leaves]
    sizes = [math.ceil(leaf[0].shape[1] / GPU_TILE) for leaf in flat]
    firsts = [0, *np.cumsum(sizes).tolist()]
    outs = pl.pallas_call(
        functools.partial(_gpu_kernel, constants, firsts),
        grid=(firsts[-1],),
        out_shape=[local_struct(x[k].shape, x[k].dtype) for x in flat for k in WRITTEN],
        input_output_aliases={
            1 + 5 * n + k: 3 * n + j for n in range(len(flat)) for j, k in enumerate(WRITTEN)
        },
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="adahessian_step",
    )(numbers, *(x for leaf in flat for x in leaf))
    like = (leaf[k] for leaf in leaves for k in WRITTEN)
    return [x.reshape(y.shape) for x, y in zip(outs, like, strict=True)]


def run(
    constants: Constants, numbers: Numbers, leaves: list[Leaf], *, gpu: bool, interpret: bool
) -> list[Leaf]:
    """The step of every leaf [window, rows, columns], a group of them a launch."""
    packed = jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers])
    call, size = (_run_gpu, GPU_GROUP) if gpu else (_run_tpu, TPU_GROUP)
    full = [leaf for leaf in leaves if leaf[0].size]
    done: list[Leaf] = []
    for start in range(0, len(full), size):
        group = full[start : start + size]
        outs = call(constants, packed, group, interpret)
        done += [tuple(outs[3 * n : 3 * n + 3]) for n in range(len(group))]
    moved = iter(done)
    return [next(moved) if x[0].size else tuple(x[k] for k in WRITTEN) for x in leaves]
