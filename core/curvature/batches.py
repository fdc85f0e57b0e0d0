"""Cutting a batch into pieces, and making one value of what the pieces gave."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import check


class Batch:
    """The arrays of positional arguments that have the batch axis, and the rest of them.

    Scalars and what is not an array (a graph definition, a random key) go to every piece as they
    are. Pieces are taken with a stride, so that each is spread over the devices as the batch is.
    """

    def __init__(self, args: Sequence[Any], argnums: int | Sequence[int] | None):
        chosen = range(1, len(args) + 1) if argnums is None else np.atleast_1d(argnums).tolist()
        for i in chosen:
            check(
                1 <= i <= len(args),
                "batch_argnums",
                f"got {i}, takes positions from 1 to {len(args)} (0 is the parameters)",
            )
        self._treedefs: list[Any] = []
        self._leaves: list[Any] = []
        self._is_batch: list[bool] = []
        for i, arg in enumerate(args, 1):
            leaves, treedef = jax.tree.flatten(arg)
            self._treedefs.append(treedef)
            self._leaves += leaves
            self._is_batch += [i in chosen and bool(np.ndim(x)) for x in leaves]
        sizes = {np.shape(x)[0] for x in self.arrays}
        check(
            len(sizes) == 1,
            "args",
            f"got arrays with first axes {sorted(sizes)}, takes one length, the batch "
            "(batch_argnums says which arguments have it)",
        )
        (self.size,) = sizes

    @property
    def arrays(self) -> list[Any]:
        """The arrays with the batch axis."""
        return [x for x, yes in zip(self._leaves, self._is_batch) if yes]

    def args(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with their batch arrays replaced."""
        new = iter(arrays)
        leaves = iter([next(new) if y else x for x, y in zip(self._leaves, self._is_batch)])
        return tuple(
            jax.tree.unflatten(treedef, [next(leaves) for _ in range(treedef.num_leaves)])
            for treedef in self._treedefs
        )

    def split(self, fraction: float) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arguments for `fraction` of the examples, and those for the rest of them."""
        part = Fraction(fraction).limit_denominator(self.size)
        exact = abs(part - Fraction(fraction)) * self.size < 1e-3
        check(
            exact and 0 < part < 1 and self.size % part.denominator == 0,
            "fraction",
            f"got {fraction} of a batch of {self.size}, takes a fraction that gives whole examples",
        )
        rows = [jnp.reshape(x, (-1, part.denominator, *np.shape(x)[1:])) for x in self.arrays]
        cut = part.numerator
        return (
            self.args([x[:, :cut].reshape(-1, *x.shape[2:]) for x in rows]),
            self.args([x[:, cut:].reshape(-1, *x.shape[2:]) for x in rows]),
        )

    def stack(self, pieces: int) -> list[jax.Array]:
        """The batch arrays [pieces, batch / pieces, ...]."""
        check(
            self.size % pieces == 0,
            "microbatches",
            f"got {pieces} of a batch of {self.size}, takes a divisor of it",
        )
        return [
            jnp.moveaxis(jnp.reshape(x, (-1, pieces, *np.shape(x)[1:])), 1, 0) for x in self.arrays
        ]


def combine(stacked: Any, weights: Sequence[float]) -> Any:
    """One output of those of several pieces, stacked on the first axis.

    Floats are averaged with the weights, integers (counts) are added up, and random keys are those
    of the first piece.
    """

    def one(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x[0]
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.sum(x, axis=0, dtype=x.dtype)
        check(
            jnp.issubdtype(x.dtype, jnp.floating),
            "fun",
            f"got an auxiliary leaf of {x.dtype}, takes floats (which are averaged over the pieces "
            "of the batch), integers (which are added up) and random keys",
        )
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return jnp.tensordot(jnp.asarray(weights, wide.dtype), wide, axes=1).astype(x.dtype)

    return jax.tree.map(one, stacked)


def average(
    run: Callable[[Sequence[Any], Any], tuple[Any, Any]], batch: Batch, pieces: int
) -> tuple[Any, Any]:
    """The mean over pieces of the tree of `run(args, index) -> (aux, tree)`, and the combined aux.

    One piece at a time in a scan, accumulated in float32 or wider.
    """
    arrays = batch.stack(pieces)
    index = jnp.arange(pieces)
    like = jax.eval_shape(lambda i, x: run(batch.args(x), i)[1], index[0], [x[0] for x in arrays])

    def zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros_like(x, dtype=jnp.promote_types(x.dtype, jnp.float32))

    def step(total: Any, piece: Any) -> tuple[Any, Any]:
        i, arrays = piece
        aux, tree = run(batch.args(arrays), i)
        return jax.tree.map(lambda t, x: t + x.astype(t.dtype) / pieces, total, tree), aux

    total, stacked = jax.lax.scan(step, jax.tree.map(zeros, like), (index, arrays))
    aux = combine(stacked, [1 / pieces] * pieces)
    return aux, jax.tree.map(lambda t, x: t.astype(x.dtype), total, like)
