"""Two-pass softmax in Pallas: the grid walks the columns of a block of rows twice."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from ..op import local_struct
from .extended import NOTHING, combine
from .xla import finish, total

ROWS, COLUMNS = 128, 2048  # 1 MiB of float32 a block, of 16 MiB with all temporaries


def _kernel(x_ref: Any, y_ref: Any, m_ref: Any, n_ref: Any, *, log: bool) -> None:
    second, column = pl.program_id(1), pl.program_id(2)

    @pl.when((second == 0) & (column == 0))
    def _start() -> None:
        m_ref[...] = jnp.zeros_like(m_ref)
        n_ref[...] = jnp.full_like(n_ref, NOTHING)

    @pl.when(second == 0)
    def _add() -> None:
        m, n = total(x_ref[...])
        m_ref[...], n_ref[...] = combine((m_ref[...], n_ref[...]), (m[:, None], n[:, None]))

    @pl.when(second == 1)
    def _finish() -> None:
        y_ref[...] = finish(x_ref[...], m_ref[...], n_ref[...], log)


def run(x: Float[Array, "rows n"], *, log: bool, interpret: bool = False) -> Float[Array, "rows n"]:
    """Softmax or its logarithm over the last axis; minus infinity marks what is not there."""
    rows, columns = x.shape
    block = min(ROWS, -(-rows // 8) * 8), min(COLUMNS, -(-columns // 128) * 128)
    pad = -rows % block[0], -columns % block[1]
    x = jnp.pad(x, ((0, pad[0]), (0, pad[1])), constant_values=-jnp.inf)
    y = pl.pallas_call(
        functools.partial(_kernel, log=log),
        grid=(x.shape[0] // block[0], 2, x.shape[1] // block[1]),
        in_specs=[pl.BlockSpec(block, lambda i, second, j: (i, j))],
        # The first pass stays at the first block, which the second writes before it moves on.
        out_specs=pl.BlockSpec(block, lambda i, second, j: (i, j * second)),
        out_shape=local_struct(x.shape, x.dtype),
        scratch_shapes=[pltpu.VMEM((block[0], 1), x.dtype)] * 2,
        interpret=interpret,
        name="two_pass_softmax",
    )(x)
    return jax.lax.slice(y, (0, 0), (rows, columns))
