"""The passes in Pallas for NVIDIA GPUs, through Triton.

A program of the grid owns a block of rows and a part of the classes, in tiles of which it goes
through the features with the logits in registers. Numbers of an example stay there until the part
ends; those of all parts are joined by XLA. Gradients do not fit registers, and a program would have
to read, add to and write rows of them in global memory for every tile of logits. So a derivative
goes through chunks of the classes, like "xla": the kernel makes of a chunk's logits what their
products are of, [n, chunk] in the operands' dtype, and XLA leaves the products to the library of
the GPU, which is fastest at them. What the kernel saves is the traffic of logits in float32 and of
what is done to them entry by entry.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from ..availability import SMALLEST, shared_memory, wrong_dtypes, wrong_platform
from ..op import local_struct
from . import passes, xla
from .passes import Config, Pass, Tiles

# Bytes of shared memory from Hopper on, whose tensor cores read both factors there. Before it they
# pass through registers: then half as many logits fit, and more shared memory is of no use.
HOPPER = 227 * 1024
SCRATCH = 8 * 1024  # of it for sums over the classes of a tile
LOGITS = 64 * 256  # that fit the registers of a program before Hopper
STAGES = 3  # steps through the features whose tiles are on their way, or are multiplied
CORES = 128  # programs that run at once: GPUs have 80 to 150 multiprocessors
PROGRAMS = 8 * CORES  # of a grid where there are tiles enough, as not all end at the same time
INTENSITY = 64  # operations that a GPU does while it reads a byte of its second cache
STEP = 2048  # bytes that it reads in the time that a step through the features costs by itself


def why_not(dtypes: list[Any], platform: Any) -> list[str]:
    """Why the kernels cannot run on a platform, if one is given, with arrays of these dtypes."""
    takes = ("float32", "float16", "bfloat16")
    return wrong_platform(platform, ("cuda",)) + wrong_dtypes(dtypes, takes)


def bad_tiles(tiles: tuple[int, int, int], size: tuple[int, int, int]) -> list[str]:
    """Why tiles of (rows, classes, features) cannot be: tensor cores take powers of two."""
    del size
    return [
        f"it takes powers of two from 16 {name}, not {tile}"
        for name, tile in zip(("rows", "classes", "features"), tiles, strict=True)
        if tile < 16 or tile & (tile - 1)
    ]


def run(work: Pass, config: Config, interpret: bool) -> Tiles:
    """The results of a pass, by name: those [n], and "x" [n, d], "w" [d, v] and "b" [v]."""
    if not work.labels.size:
        return xla.run(work, config.chunk)
    part = functools.partial(_part, tiles=config.tiles, interpret=interpret)
    if work.to_x or work.to_w:
        return xla.run(work, config.chunk, part)
    own = {name: jnp.full((work.labels.size, 1), v, work.wide) for name, v in work.starts.items()}
    new, _ = part(work, None, own)
    return {name: a[:, 0] for name, a in new.items()}


class Plan(NamedTuple):
    """How the classes of a pass are cut.

    Attributes:
      work: the pass.
      tile: lengths of a tile in rows "n", classes "v" and features "d".
    """

    work: Pass
    tile: dict[str, int]

    @property
    def size(self) -> dict[str, int]:
        """The numbers of rows, classes and features."""
        n, d = self.work.x["x"].shape
        return {"n": n, "v": self.work.w["w"].shape[1], "d": d}

    @property
    def many(self) -> dict[str, int]:
        """How many tiles there are."""
        return {a: pl.cdiv(self.size[a], self.tile[a]) for a in "nvd"}

    @property
    def each(self) -> int:
        """Tiles of classes of a program."""
        return pl.cdiv(self.many["v"], pl.cdiv(PROGRAMS, self.many["n"]))

    @property
    def splits(self) -> int:
        """Parts of the classes."""
        return pl.cdiv(self.many["v"], self.each)

    @property
    def logits(self) -> int:
        """Numbers that the tiles of logits of a program have."""
        return len(self.work.logits) * self.tile["n"] * self.tile["v"]

    @property
    def warps(self) -> int:
        """Of a program, for at most 64 of those numbers a thread."""
        return 8 if self.logits > 64 * 128 else 4

    @property
    def reads(self) -> int:
        """Bytes that a tile multiplies of every feature."""
        numbers = self.tile["n"] * len(self.work.x) + self.tile["v"] * len(self.work.w)
        return numbers * jnp.dtype(self.work.factors).itemsize

    def memory(self) -> int:
        """Bytes of shared memory for what is multiplied."""
        return STAGES * self.tile["d"] * self.reads

    def cost(self) -> float:
        """Time, in bytes read."""
        products = sum(map(len, self.work.logits.values()))
        features = self.many["d"] * self.tile["d"]
        operations = 2 * products * self.tile["n"] * self.tile["v"]
        tile = features * max(self.reads, operations / INTENSITY) + STEP * self.many["d"]
        return max(self.many["n"] * self.many["v"], CORES) * tile


def plan(work: Pass, asked: tuple[int, int, int] | None) -> Plan:
    """The tiles asked for, or the fastest of those that fit registers and shared memory."""
    if asked is not None:
        return Plan(work, dict(zip("nvd", asked, strict=True)))
    room, most = shared_memory() or SMALLEST, LOGITS
    if room < HOPPER:
        room = min(room, SMALLEST)
    else:
        room, most = room - SCRATCH, 2 * most
    # Of equals the one with the most rows is first: it takes the fewest registers.
    every = itertools.product((128, 64, 32, 16), (256, 128, 64, 32, 16), (64, 32, 16))
    plans = [Plan(work, dict(zip("nvd", tile, strict=True))) for tile in every]
    fit = [p for p in plans if p.logits <= most and p.memory() <= room]
    return min(fit, key=Plan.cost)


def _part(
    part: Pass, skip: Any, own: Tiles, tiles: tuple[int, int, int] | None, interpret: bool
) -> tuple[Tiles, Tiles]:
    """What a pass makes of classes, but the first `skip`: numbers of an example, and tiles.

    The numbers are those of the classes before, `own`, and of these.
    """
    p = plan(part, tiles)
    n, v = p.size["n"], p.size["v"]
    outs = {name: local_struct((p.splits, n), part.wide) for name in part.starts}
    outs |= {name: local_struct((n, v), part.factors) for name in _kept(part)}
    given = {"labels": part.indices} | ({} if skip is None else {"skip": skip[None]})
    groups = given, part.rows, part.x, part.w, part.b
    found = pl.pallas_call(
        functools.partial(_body, p),
        out_shape=outs,
        grid=(p.many["n"], p.splits),
        compiler_params=plgpu.CompilerParams(num_warps=p.warps, num_stages=STAGES),
        interpret=interpret,
        name=f"linear_{part.name}_over_classes",
    )(*groups)
    numbers = {name: jnp.concatenate([own[name].T, found[name]]) for name in part.starts}
    new = {name: a[:, None] for name, a in passes.join(numbers).items()}
    return new, {name: found[name] for name in _kept(part)}


def _kept(work: Pass) -> list[str]:
    """Tiles that come out of the logits, for products."""
    return sorted({tile for tile, _ in work.to_x} | {tile for _, tile in work.to_w})


def _body(p: Plan, given: Tiles, rows: Tiles, x: Tiles, w: Tiles, b: Tiles, outs: Tiles) -> None:
    """One program: a block of rows, and the classes of a part of them."""
    work, tile, size = p.work, p.tile, p.size
    split, zero = pl.program_id(1), jnp.int32(0)
    here = {"n": pl.program_id(0)}

    def place(a: str, at: Tiles) -> Any:
        return at[a] * tile[a] + jnp.arange(tile[a], dtype=jnp.int32)

    def where(axes: str, at: Tiles) -> tuple[Any, Any]:
        """The index of a tile, and what of it is inside of the array: None for all."""
        mask = None
        for i, a in enumerate(axes):
            if size[a] % tile[a]:
                others = [j for j in range(len(axes)) if j != i]
                inside = jnp.expand_dims(place(a, at) < size[a], others)
                mask = inside if mask is None else mask & inside
        if mask is not None:
            mask = jnp.broadcast_to(mask, [tile[a] for a in axes])
        return tuple(pl.ds(at[a] * tile[a], tile[a]) for a in axes), mask

    def load(refs: Tiles, axes: str, at: Tiles) -> Tiles:
        index, mask = where(axes, at)
        other = None if mask is None else 0
        return {k: plgpu.load(ref.at[index], mask=mask, other=other) for k, ref in refs.items()}

    def logits(at: Tiles) -> Tiles:
        def add(k: Any, z: Tiles) -> Tiles:
            factors = load(x, "nd", at | {"d": k}) | load(w, "dv", at | {"d": k})
            factors = {name: a.astype(work.factors) for name, a in factors.items()}
            for name, pairs in work.logits.items():
                for i, j in pairs:  # one by one, so that a product starts from the sum so far
                    part = jnp.dot(factors[i], factors[j], preferred_element_type=work.wide)
                    z = z | {name: z[name] + part}
            return z

        z = {name: jnp.zeros((tile["n"], tile["v"]), work.wide) for name in work.logits}
        z = jax.lax.fori_loop(zero, jnp.int32(p.many["d"]), add, z)
        bias = {name: a.astype(work.wide) for name, a in load(b, "v", at).items()}
        return {name: a + bias[name][None] if name in bias else a for name, a in z.items()}

    labels = load({"labels": given["labels"]}, "n", here)["labels"]
    numbers = {name: a[:, None] for name, a in load(rows, "n", here).items()}

    def see(j: Any, own: Tiles) -> Tiles:
        at = here | {"v": j}
        column = place("v", at)[None]
        seen: Any = column < size["v"] if size["v"] % tile["v"] else None
        if "skip" in given:
            later = column >= given["skip"][0]
            seen = later if seen is None else seen & later
        new, out = work.step(logits(at), labels[:, None] == column, seen, numbers, own)
        index, mask = where("nv", at)
        for name in _kept(work):
            plgpu.store(outs[name].at[index], out[name].astype(work.factors), mask=mask)
        return new

    own = {name: jnp.full((tile["n"], 1), a, work.wide) for name, a in work.starts.items()}
    end = jnp.minimum((split + 1) * p.each, p.many["v"])
    own = jax.lax.fori_loop(split * p.each, end, see, own)
    index, mask = where("n", here)
    for name, a in own.items():
        plgpu.store(outs[name].at[split, *index], a.reshape(tile["n"]), mask=mask)
