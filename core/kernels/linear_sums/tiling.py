"""How a pass is cut into tiles of rows, classes and features."""

import dataclasses
import functools
import itertools
import math

import jax.numpy as jnp

from .passes import Pass, Products

VMEM_BUDGET = 14 * 2**20  # of the 16 MiB that a kernel may use by default on the smallest chips
RIDGE = 400  # operations that a chip does while it reads a byte: 240 on a v5e, 560 on a v6e
STEP = 1e8  # operations that it does in the time that a step of the grid costs by itself
ROW = 1e5  # those in the time that a number of a row costs in each tile, beside its sum
LANES = 128


def up(number: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-number // unit) * unit


@dataclasses.dataclass(frozen=True)
class Plan:
    """One kernel of a pass, and its tiles.

    Attributes:
      work: the pass.
      over: "v" for its sums over the classes, which are the numbers of an example and its
        gradient; "n" for those over the rows, the gradients of weights and bias.
      asked: lengths of a tile in rows, classes and features.
    """

    work: Pass
    over: str
    asked: tuple[int, int, int]

    @property
    def name(self) -> str:
        """The kernel's, as profiles show it."""
        return f"linear_{self.work.name}_over_{'classes' if self.over == 'v' else 'rows'}"

    @functools.cached_property
    def size(self) -> dict[str, int]:
        """The numbers of rows, classes and features."""
        n, d = self.work.x["x"].shape
        return {"n": n, "v": self.work.w["w"].shape[1], "d": d}

    @functools.cached_property
    def tile(self) -> dict[str, int]:
        """Lengths of a tile, no longer than what there is; rows are filled up."""
        most = {**self.size, "n": up(max(self.size["n"], 1), 16)}
        return {a: min(tile, most[a]) for a, tile in zip("nvd", self.asked, strict=True)}

    @functools.cached_property
    def many(self) -> dict[str, int]:
        """How many tiles there are; of no rows one, whose results are dropped."""
        return {a: max(1, math.ceil(self.size[a] / self.tile[a])) for a in "nvd"}

    @property
    def whole(self) -> bool:
        """Whether all features fit a tile."""
        return self.many["d"] == 1

    @property
    def turned(self) -> bool:
        """Whether W is to be read as [v, d], for so XLA lays it out if that fills it up by less."""
        d, v = self.size["d"], self.size["v"]
        return up(v, 8) * up(d, LANES) < up(d, 8) * up(v, LANES)

    @property
    def weights(self) -> tuple[str, str]:
        """The axes of W as it lies."""
        return ("v", "d") if self.turned else ("d", "v")

    @property
    def products(self) -> Products:
        """Pairs of a tile that comes out of the logits, and what it multiplies."""
        if self.over == "v":
            return self.work.to_x
        return tuple((tile, x) for x, tile in self.work.to_w)

    @property
    def kept(self) -> list[str]:
        """Tiles that come out of the logits, for products."""
        return sorted({tile for tile, _ in self.products})

    @property
    def starts(self) -> dict[str, float]:
        """The numbers of an example that the kernel sums."""
        return self.work.starts if self.over == "v" else {}

    @property
    def bias(self) -> str | None:
        """The tile that is summed for the bias."""
        return self.work.to_b if self.over == "n" else None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tiles of results, tiles that are summed for each, and steps for each of those."""
        outer = "n" if self.over == "v" else "v"
        steps = 1 if self.whole else self.many["d"] * (2 if self.products else 1)
        return self.many[outer], self.many[self.over], steps

    @property
    def result(self) -> tuple[int, int]:
        """The tile of the result of the products."""
        rows, columns = ("n", "d") if self.over == "v" else self.weights
        return self.tile[rows], self.tile[columns]

    def memory(self) -> int:
        """Bytes of VMEM: blocks, which are doubled so that copies overlap, sums and tiles."""
        n, v, d = (self.tile[a] for a in "nvd")
        wide = jnp.dtype(self.work.wide).itemsize
        narrow = jnp.dtype(self.work.factors).itemsize
        v, d = up(v, LANES), up(d, LANES)
        tables = 1 + bool(self.work.rows) + bool(self.starts)
        blocks = tables * n * LANES * wide
        blocks += sum(n * d * a.dtype.itemsize for a in self.work.x.values())
        blocks += sum(d * v * a.dtype.itemsize for a in self.work.w.values())
        out = n * d if self.over == "v" else d * v
        sums = 0
        if self.products:
            blocks += out * narrow
            sums = out * wide * (self.many["d"] + 1)
        logits, kept = len(self.work.logits), len(self.kept)
        tiles = (logits + 1.5) * wide + kept * narrow
        if not self.whole:
            tiles += logits * wide + kept * narrow
        return int(2 * blocks + sums + tiles * n * v)

    def cost(self) -> float:
        """Time, in operations."""
        n, v, d = (self.many[a] * self.tile[a] for a in "nvd")
        products = sum(map(len, self.work.logits.values())) + len(self.products)
        x = sum(n * d * a.dtype.itemsize for a in self.work.x.values())
        w = sum(d * v * a.dtype.itemsize for a in self.work.w.values())
        again = 2 if self.products else 1  # for the products, if features come in tiles
        if self.over == "v":
            w *= self.many["n"] * (1 if self.whole else again)
            x *= 1 if self.whole else self.many["v"]
        else:
            x *= self.many["v"] * (1 if self.whole else again)
            w *= 1 if self.whole else self.many["n"]
        time = max(2.0 * n * v * d * products, RIDGE * (x + w)) + STEP * math.prod(self.grid)
        return time + ROW * len(self.starts) * n * self.many["v"]


def plan(work: Pass, over: str, asked: tuple[int, int, int] | None) -> Plan:
    """The tiles asked for, or the fastest of those that fit VMEM."""
    if asked is not None:
        return Plan(work, over, asked)
    d = work.x["x"].shape[1]
    features = {d}
    if d % LANES == 0:
        features |= {n for n in range(2 * LANES, d, LANES) if d % n == 0}
    else:  # then tiles reach beyond the last
        features |= {n for n in (256, 512, 1024, 2048) if n < d}
    rows, classes = (1024, 512, 256, 128, 64, 32, 16), (2048, 1024, 512, 256, 128)
    plans = [Plan(work, over, t) for t in itertools.product(rows, classes, sorted(features))]
    fit = [p for p in plans if p.memory() <= VMEM_BUDGET]
    return min(fit, key=Plan.cost) if fit else min(plans, key=Plan.memory)
