"""The sums of linear attention in Pallas for TPUs: the state stays in VMEM while tokens go by.

Of each batch and head the grid walks chunks in the order of time. A chunk's queries meet the state
before it, and its own keys by their products. Where queries see all keys, the keys go by first.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..availability import wrong_dtypes, wrong_platform
from ..op import local_struct
from .operands import Config, Inputs, Sums

CHUNKS = (256, 128, 64, 32, 16)  # a v5e's compiler schedules 512 tokens worse than twice 256
VMEM_BUDGET = 12 * 2**20  # of the 16 MiB that a kernel may use by default on the smallest chips


def _unit(config: Config) -> int:
    """Rows of a register: what the tokens of a chunk are a multiple of."""
    return 16 if jnp.dtype(config.operands).itemsize == 2 else 8


def _whole(x: Inputs, config: Config) -> int:
    """Tokens of a chunk that holds them all."""
    unit, longest = _unit(config), max(x.query.shape[3], x.key.shape[3], 1)
    return unit * math.ceil(longest / unit)


def _bytes(x: Inputs, config: Config, size: int) -> int:
    """What a chunk takes of VMEM: operands and results twice, as copies overlap with products."""
    rows = x.query.shape[2]
    features, dim = (128 * math.ceil(a.shape[4] / 128) for a in (x.key, x.value))
    width = jnp.dtype(config.operands).itemsize
    copies = 2 * size * ((rows + 1) * features + dim) * width + 2 * size * rows * dim * 4
    products = 0 if config.direction == "all" else 3 * rows * size * max(size, 128) * 4
    return copies + products + 6 * features * dim * 4


def _size(x: Inputs, config: Config) -> int:
    """The tokens of a chunk: as asked for, or the most that fit VMEM."""
    asked = (config.chunk,) if config.chunk else CHUNKS
    sizes = [min(n, _whole(x, config)) for n in asked]
    return next((n for n in sizes if _bytes(x, config, n) <= VMEM_BUDGET), sizes[-1])


def why_not(x: Inputs, config: Config, platform: str | None) -> list[str]:
    """Why the kernel cannot run what is asked; the reasons of a platform only if it is given."""
    reasons = wrong_platform(platform, ("tpu",))
    reasons += wrong_dtypes([x.query.dtype], ("float32", "bfloat16"))
    if _bytes(x, config, CHUNKS[-1]) > VMEM_BUDGET:
        state, rows = x.initial.shape[2:], x.query.shape[2]
        reasons.append(f"a state {state} and {rows} queries for a key do not fit the chip's memory")
    return reasons


def bad_chunk(x: Inputs, config: Config) -> list[str]:
    """Why a chunk of the size asked for cannot be: it must be whole registers."""
    unit, size = _unit(config), config.chunk
    if size is None or size % unit == 0 or size >= _whole(x, config):
        return []
    return [f'"pallas_tpu" takes multiples of {unit}, or all {x.key.shape[3]} tokens']


def _kernel(config: Config, rows: int, before: int, last: int, wide: Any, *refs: Any) -> None:
    query_ref, key_ref, value_ref, initial_ref, out_ref, final_ref, state_ref = refs
    step = pl.program_id(2)

    def product(a: Any, b: Any, contract: tuple[int, int]) -> Any:
        a, b = a.astype(config.operands), b.astype(config.operands)
        dims = (((contract[0],), (contract[1],)), ((), ()))
        options = {"precision": config.precision, "preferred_element_type": wide}
        return jax.lax.dot_general(a, b, dims, **options)

    def read() -> None:
        query = query_ref[...].reshape(-1, query_ref.shape[-1])
        out_ref[...] = product(query, state_ref[...], (1, 0)).reshape(out_ref.shape)

    def add_own() -> None:
        query = query_ref[...].reshape(-1, query_ref.shape[-1])
        scores = product(query, key_ref[...], (1, 1))
        shape = (*query_ref.shape[:2], key_ref.shape[0])
        i, j = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2))
        seen = i >= j if config.direction == "past" else i <= j
        scores = jnp.where(seen.reshape(scores.shape), scores, 0)
        out_ref[...] += product(scores, value_ref[...], (1, 0)).reshape(out_ref.shape)

    def write() -> None:
        state_ref[...] += product(key_ref[...], value_ref[...], (0, 0))

    @pl.when(step == 0)
    def _() -> None:
        state_ref[...] = initial_ref[...]

    if config.direction == "all":
        pl.when(step < before)(write)
        pl.when(step >= before)(read)
    else:
        # The chunk's queries read the state before the first of its keys is added.
        pl.when(jax.lax.rem(step, np.int32(rows)) == 0)(read)
        add_own()
        write()

    @pl.when(step == last)
    def _() -> None:
        final_ref[...] = state_ref[...]


def run(x: Inputs, config: Config, *, interpret: bool = False) -> Sums:
    """The sums."""
    batch, heads, rows, length, features = x.query.shape
    key_rows, _, dim = x.value.shape[2:]
    wide = x.query.dtype
    size = _size(x, config)

    def tokens(a: Any) -> Any:
        return jnp.pad(a, ((0, 0),) * 3 + ((0, -a.shape[3] % size), (0, 0)))

    query, key, value = (tokens(a.astype(config.operands)) for a in x[:3])
    queries, chunks = query.shape[3] // size, key.shape[3] // size
    before = key_rows * chunks  # steps that the keys take
    each = np.int32(key_rows)

    # The chunk and the row of a step's queries and keys; chunks that stand still are not moved.
    if config.direction == "all":
        steps = before + queries

        def of_query(step: Any) -> Any:
            return jnp.maximum(step - before, 0)

        def of_key(step: Any) -> Any:
            step = jnp.minimum(step, before - 1)
            return jax.lax.rem(step, each), jax.lax.div(step, each)
    else:
        steps = before

        def of_query(step: Any) -> Any:
            n = jax.lax.div(step, each)
            return n if config.direction == "past" else chunks - 1 - n

        def of_key(step: Any) -> Any:
            return jax.lax.rem(step, each), of_query(step)

    zero = np.int32(0)

    def by_query(width: int) -> pl.BlockSpec:
        block = (None, None, rows, size, width)
        return pl.BlockSpec(block, lambda b, k, p: (b, k, zero, of_query(p), zero))

    def by_key(width: int) -> pl.BlockSpec:
        block = (None, None, None, size, width)
        return pl.BlockSpec(block, lambda b, k, p: (b, k, *of_key(p), zero))

    state = pl.BlockSpec((None, None, features, dim), lambda b, k, p: (b, k, zero, zero))
    out, final = pl.pallas_call(
        functools.partial(_kernel, config, key_rows, before, steps - 1, wide),
        grid=(batch, heads, steps),
        in_specs=[by_query(features), by_key(features), by_key(dim), state],
        out_specs=[by_query(dim), state],
        out_shape=[
            local_struct((*query.shape[:4], dim), wide),
            local_struct(x.initial.shape, wide),
        ],
        scratch_shapes=[pltpu.VMEM((features, dim), wide)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name=f"linear_attention_{config.direction}",
    )(query, key, value, x.initial)
    return Sums(out[..., :length, :], final)
