"""The sums of linear attention in Pallas for NVIDIA and AMD GPUs, through Triton.

A GPU needs more programs than there are heads, so the state does not walk through the tokens:

1. of each chunk of tokens, the sum of k_j v_j^T is one of a batch of products, which XLA has;
2. running sums of these over the chunks, in XLA too, are the states before each chunk;
3. in the kernel, a program makes a tile of results: its queries meet the state before their chunk,
   and those keys of the chunk that they see by their products, which stay in registers.

Where queries see all keys, two products are all there is, and XLA's are as good as any.
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
from .operands import Config, Inputs, Sums

CHUNK = 128  # tokens, or as many as features: states then take no more memory than values do
TILE = 64  # tokens of a tile, and features that are multiplied at once, at most
STAGES = 2  # tiles of a loop that are in shared memory
# Values of a tile of results in float32 and bfloat16, as registers hold them: those of a head of 64
# or 128, and beside them the ones that count the weights.
COLUMNS = 80, 144


class Plan(NamedTuple):
    """How the work is cut; tiles are powers of two from 16, as tensor cores take them.

    Attributes:
      chunk: tokens from one state to the next.
      tile: of these, those that a program, or a step of its loop, takes.
      features: those that are multiplied at once.
      pieces: how many of these make all features.
      columns: values of the tiles of results that a program makes side by side.
      groups: programs that share the values.
    """

    chunk: int
    tile: int
    features: int
    pieces: int
    columns: tuple[int, ...]
    groups: int

    @property
    def warps(self) -> int:
        """Warps of a program, as its results need registers."""
        return 4 if sum(self.columns) <= 96 else 8

    def shared_bytes(self, itemsize: int) -> int:
        """Never less than the shared memory that the compilers for Ampere and Hopper ask for."""
        columns = sum(self.columns)
        state, rows = self.features * columns, self.tile * self.features
        values, scores = self.tile * columns, self.tile**2
        if self.pieces == 1:  # the loop over keys is the inner one, and its tiles come ahead
            return itemsize * (state + rows + STAGES * (rows + values) + scores)
        return itemsize * max(STAGES * (state + rows), STAGES * 2 * rows + values + scores)


def _up(n: int, unit: int) -> int:
    return unit * math.ceil(max(n, 1) / unit)


def _powers(n: int) -> tuple[int, ...]:
    """The powers of two that add up to a number."""
    return tuple(1 << i for i in reversed(range(n.bit_length())) if n >> i & 1)


def plan(x: Inputs, config: Config) -> Plan:
    """What suits the shapes and the GPU's shared memory."""
    length, (features, dim) = x.query.shape[3], x.initial.shape[2:]
    chunk = config.chunk or max(CHUNK, _up(features, TILE))
    if chunk >= length:
        chunk = _up(length, min(TILE, max(16, pl.next_power_of_2(length))))
    itemsize = jnp.dtype(config.operands).itemsize
    groups = math.ceil(dim / COLUMNS[itemsize == 2])
    columns = _powers(_up(math.ceil(dim / groups), 16))
    room = shared_memory() or SMALLEST
    # The most features that fit and do not add more than a quarter of zeros.
    for n in (TILE, TILE // 2, 16):
        cut = Plan(chunk, math.gcd(chunk, TILE), n, -(-features // n), columns, groups)
        if n * cut.pieces <= 1.25 * _up(features, 16) and cut.shared_bytes(itemsize) <= room:
            break
    return cut


def why_not(x: Inputs, config: Config, platform: str | None) -> list[str]:
    """Why the kernel cannot run what is asked; the reasons of a platform only if it is given."""
    reasons = wrong_platform(platform, GPUS)
    return reasons + wrong_dtypes([x.query.dtype], ("float32", "bfloat16"))


def bad_chunk(x: Inputs, config: Config) -> list[str]:
    """Why a chunk of the size asked for cannot be: tensor cores take 16 tokens at once."""
    size, length = config.chunk, x.query.shape[3]
    if size is None or size % 16 == 0 or size >= length:
        return []
    return [f'"pallas_triton" takes multiples of 16, or all {length} tokens']


def _loop(count: int, step: Callable[[Any, Any], Any], carry: Any) -> Any:
    if count == 1:
        return step(0, carry)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), step, carry)


def _kernel(cut: Plan, config: Config, wide: Any, *refs: Any) -> None:
    query_ref, key_ref, value_ref, before_ref, out_ref = refs
    group, row, here, head = (pl.program_id(n) for n in range(4))
    each = cut.chunk // cut.tile
    chunk = jax.lax.div(here, jnp.int32(each))
    starts = [sum(cut.columns[:n]) for n in range(len(cut.columns))]
    columns = [pl.ds(group * sum(cut.columns) + start, n) for start, n in zip(starts, cut.columns)]

    def tokens(n: Any) -> Any:
        return pl.ds(n * cut.tile, cut.tile)

    def features(n: Any) -> Any:
        return pl.ds(n * cut.features, cut.features)

    def product(a: Any, b: Any) -> Any:
        options = {"precision": config.precision, "preferred_element_type": wide}
        return jnp.dot(a.astype(config.operands), b.astype(config.operands), **options)

    def read(f: Any, out: Any) -> Any:
        query = query_ref[head, row, tokens(here), features(f)]
        states = (before_ref[head, chunk, features(f), c] for c in columns)
        return tuple(o + product(query, s) for o, s in zip(out, states))

    def add_own(row_of_keys: Any, there: Any, out: Any) -> Any:
        def score(f: Any, scores: Any) -> Any:
            query = query_ref[head, row, tokens(here), features(f)]
            return scores + product(query, key_ref[head, row_of_keys, tokens(there), features(f)].T)

        scores = _loop(cut.pieces, score, jnp.zeros((cut.tile, cut.tile), wide))
        i, j = (n * cut.tile + jnp.arange(cut.tile, dtype=jnp.int32) for n in (here, there))
        seen = i[:, None] >= j if config.direction == "past" else i[:, None] <= j
        scores = jnp.where(seen, scores, 0)
        values = (value_ref[head, row_of_keys, tokens(there), c] for c in columns)
        return tuple(o + product(scores, v) for o, v in zip(out, values))

    def add_row(row_of_keys: Any, out: Any) -> Any:
        ahead = config.direction == "future"
        low, high = (here, (chunk + 1) * each) if ahead else (chunk * each, here + 1)
        return jax.lax.fori_loop(low, high, functools.partial(add_own, row_of_keys), out)

    out = _loop(cut.pieces, read, tuple(jnp.zeros((cut.tile, n), wide) for n in cut.columns))
    out = _loop(key_ref.shape[1], add_row, out)
    for c, o in zip(columns, out):
        out_ref[head, row, tokens(here), c] = o


def _sums_before(initial: Any, added: Any, config: Config) -> tuple[Any, Any]:
    """The states before each chunk [B, K, chunks, F, E] and after the last, as time runs."""
    future = config.direction == "future"
    order = -1 if future else 1
    states = jnp.concatenate([initial[:, :, None], added][::order], axis=2)
    # As XLA's own running sums take twice the memory for them on a GPU.
    states = jax.lax.associative_scan(jnp.add, states, reverse=future, axis=2)
    return (states[:, :, 1:], states[:, :, 0]) if future else (states[:, :, :-1], states[:, :, -1])


def run(x: Inputs, config: Config, *, interpret: bool = False) -> Sums:
    """The sums."""
    batch, heads, rows, length, _ = x.query.shape
    wide = x.query.dtype

    def product(equation: str, *arrays: Any) -> Any:
        cast = (a.astype(config.operands) for a in arrays)
        options = {"precision": config.precision, "preferred_element_type": wide}
        return jnp.einsum(equation, *cast, **options)

    if config.direction == "all":
        final = x.initial + product("bkrsf,bkrse->bkfe", x.key, x.value)
        return Sums(product("bkptf,bkfe->bkpte", x.query, final), final)

    cut = plan(x, config)
    (features, dim), columns = x.initial.shape[2:], cut.groups * sum(cut.columns)
    sizes = _up(length, cut.chunk), cut.pieces * cut.features, columns

    def whole(a: Any, *sizes: int) -> Any:
        """With zeros up to whole tiles on the last axes."""
        widths = [(0, m - n) for m, n in zip(sizes, a.shape[-2:], strict=True)]
        return jnp.pad(a, [(0, 0)] * (a.ndim - 2) + widths)

    query, key = (whole(a.astype(config.operands), *sizes[:2]) for a in x[:2])
    value = whole(x.value.astype(config.operands), sizes[0], columns)
    chunks = (a.reshape(*a.shape[:3], -1, cut.chunk, a.shape[4]) for a in (key, value))
    added = product("bkrncf,bkrnce->bknfe", *chunks)
    before, final = _sums_before(whole(x.initial, *sizes[1:]), added, config)

    def flat(a: Any) -> Any:
        return a.reshape(batch * heads, *a.shape[2:])

    out = pl.pallas_call(
        functools.partial(_kernel, cut, config, wide),
        grid=(cut.groups, rows, sizes[0] // cut.tile, batch * heads),
        out_shape=local_struct((batch * heads, rows, sizes[0], columns), wide),
        compiler_params=plgpu.CompilerParams(num_warps=cut.warps, num_stages=STAGES),
        interpret=interpret,
        name=f"linear_attention_{config.direction}_f{features}_v{dim}_q{rows}_k{x.key.shape[2]}",
    )(*map(flat, (query, key, value, before.astype(config.operands))))
    out = out[..., :length, :dim].reshape(batch, heads, rows, length, dim)
    return Sums(out, final[..., :features, :dim])
