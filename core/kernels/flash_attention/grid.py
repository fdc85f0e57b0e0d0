"""The grid of a TPU kernel: an order of tiles in which each result is finished in one go."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from .operands import tiles_in_span

TABLE_LIMIT = 8192  # tiles; longer tables do not fit SMEM and the grid walks all tiles instead


class Walk(NamedTuple):
    """How a grid walks the tiles, so that those of one result follow each other.

    Attributes:
      before: the head axes of the grid outside the tiles.
      after: those inside, over which a result is summed.
      own: those of "t" and "s" that tell results apart.
      size: lengths by axis.
      block: (queries, keys) in a tile.
      table: int32 [3, tiles]: i, j, and whether the tile is a result's first (1) and last (2); None
        to walk all tiles.
    """

    before: str
    after: str
    own: str
    size: dict[str, int]
    block: tuple[int, int]
    table: np.ndarray | None

    @property
    def many(self) -> tuple[int, int]:
        """How many tiles of queries and of keys there are."""
        return -(-self.size["t"] // self.block[0]), -(-self.size["s"] // self.block[1])

    @property
    def grid(self) -> tuple[int, ...]:
        """The sizes of the axes of the grid."""
        tiles = math.prod(self.many) if self.table is None else self.table.shape[1]
        return (*(self.size[a] for a in self.before), tiles, *(self.size[a] for a in self.after))

    def place(self, ids: Any, table: Any) -> dict[str, Any]:
        """Grid indices by axis, with "first" and "last"."""
        at = dict(zip(self.before + "p" + self.after, ids, strict=True))
        p = at.pop("p")
        if self.table is not None:
            tiles = self.table.shape[1]
            i, j, flags = table[p], table[tiles + p], table[2 * tiles + p]
            first, last = flags & 1 == 1, flags >= 2
        else:
            rows, columns = self.many
            # Python's // would ask for signs, whose lowering needs a TPU at hand.
            many = np.int32(rows if self.own == "s" else columns)
            i, j = jax.lax.div(p, many), jax.lax.rem(p, many)
            if self.own == "s":
                i, j = j, i
            inner, end = {"t": (j, columns), "s": (i, rows), "": (p, rows * columns)}.get(
                self.own, (0 * p, 1)
            )
            first, last = inner == 0, inner == end - 1
        for a in self.after:
            first &= at[a] == 0
            last &= at[a] == self.size[a] - 1
        return at | {"t": i, "s": j, "first": first, "last": last}


def plan(size: dict[str, int], block: tuple[int, int], shared: str, span: Any) -> Walk:
    """The walk for results that are summed over the axes `shared`."""
    before, after = ("".join(a for a in "bkg" if (a in shared) == is_in) for is_in in (False, True))
    own = "".join(a for a in "ts" if a not in shared)
    walk = Walk(before, after, own, size, block, None)
    tiles = tiles_in_span(size["t"], size["s"], block, span)
    if len(tiles) == math.prod(walk.many) or len(tiles) > TABLE_LIMIT:
        return walk
    # A result that no tile adds to is still to be written: let it have one that is hidden.
    keep = [n for n, a in enumerate("ts") if a in own]
    every = np.argwhere(np.ones(walk.many, bool))
    tile_of = {tuple(t[keep]): t for t in every[::-1]}
    missing = sorted(set(tile_of) - {tuple(t[keep]) for t in tiles})
    tiles = np.concatenate([tiles, *(tile_of[m][None] for m in missing)])
    tiles = tiles[np.lexsort([*tiles.T[::-1], *tiles[:, keep].T[::-1]])]
    change = np.any(tiles[1:, keep] != tiles[:-1, keep], -1)
    flags = np.append(True, change) + 2 * np.append(change, True)
    return walk._replace(table=np.stack([*tiles.T, flags]).astype(np.int32))
