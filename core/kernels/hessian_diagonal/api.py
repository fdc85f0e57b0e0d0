"""Chooses the implementation of AdaHessian's step, and lays its leaves out for it."""

from typing import Any

import jax
import jax.numpy as jnp

from ...numerics import check
from ..availability import GPUS, check_known, check_reasons, wrong_platform
from ..op import Op
from . import reference
from .reference import Constants, Numbers

IMPLEMENTATIONS = ("xla", "pallas_tpu", "pallas_triton", "interpret", "interpret_triton")


def _kernels(
    at: Any, along: Any, aux: Any, *, constants: Constants, name: str, platform: Any
) -> Any:
    from . import pallas

    wanted = {"pallas_tpu": ("tpu",), "pallas_triton": GPUS}.get(name, (str(platform),))
    check_reasons(name, wrong_platform(platform, wanted))
    numbers, leaves = at
    return pallas.run(
        constants,
        Numbers(*numbers),
        leaves,
        gpu="triton" in name,
        interpret=name.startswith("interpret"),
    )


def _out(at: Any, along: Any, aux: Any, **_: Any) -> Any:
    return [
        tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (p, m, v)) for p, _, _, m, v in at[1]
    ]


_op = Op("adahessian_step", _kernels, out=_out, by_platform=True)


def _view(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """A leaf as [window, rows, columns], whose last axis is the leaf's own where it has two."""
    shape = x.shape[len(window) :]
    columns = shape[-1] if shape else 1
    lead = 1
    for n in x.shape[: len(window)]:
        lead *= n
    return x.reshape(lead, -1, columns)


def adahessian_step(
    params: list[jax.Array],
    grads: list[jax.Array],
    diag: list[jax.Array],
    mu: list[jax.Array],
    nu: list[jax.Array],
    *,
    numbers: Numbers,
    constants: Constants,
    spatial: bool,
    implementation: str | None,
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """One step of lists of leaves; with `spatial`, nu is averaged over all but the last two axes.

    Returns new parameters, mu and nu, each in its own shape and dtype.
    """
    check_known(implementation, (None, *IMPLEMENTATIONS))
    leaves = []
    for leaf in zip(params, grads, diag, mu, nu, strict=True):
        window = leaf[0].shape[:-2] if spatial else ()
        leaves.append(tuple(_view(x, window) for x in leaf))
    if implementation in (None, "xla"):
        done = reference.run(constants, numbers, leaves)
    else:
        wide = [x.dtype.name for x in params if x.dtype == jnp.float64]
        check(not wide, "params", "got a leaf of float64, which the kernels do not take")
        scalars = tuple(jnp.asarray(x, jnp.float32) for x in numbers)
        done = _op((scalars, leaves), constants=constants, name=implementation)
    new = zip(*done, strict=True) if done else ((), (), ())
    return tuple(  # type: ignore[return-value]
        [x.reshape(y.shape) for x, y in zip(xs, ys, strict=True)]
        for xs, ys in zip(new, (params, mu, nu), strict=True)
    )
