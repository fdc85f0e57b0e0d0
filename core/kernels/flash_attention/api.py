"""Chooses the implementation of attention for the platform lowered for; wires its derivatives."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp

from ...numerics import check
from ..availability import check_known, check_reasons, wrong_platform
from ..second_order import second_order
from . import passes, reference
from .operands import Config, Inputs, Masks, Output, struct
from .passes import Pass, Tiles

# Best first. `None` takes the first that can run what is asked on the platform lowered for.
IMPLEMENTATIONS = (
    "pallas_tpu",
    "pallas_triton",
    "xla_chunked",
    "xla",
    "interpret",
    "interpret_triton",
)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _choose(config: Config, x: Inputs, masks: Masks, platform: str) -> str:
    """The implementation for a platform; what was asked for and cannot run raises."""
    name = config.implementation
    if name is None:
        name = next(n for n in IMPLEMENTATIONS if not why_not(n, config, x, masks, platform))
    _check(name, config, x, masks, platform)
    return name


def _check(name: str, config: Config, x: Inputs, masks: Masks, platform: str | None) -> None:
    """Raise unless an implementation can run this, in the tiles asked for."""
    check_reasons(name, why_not(name, config, x, masks, platform))
    if config.blocks is not None:
        reasons: list[str] = getattr(_module(name), "bad_tiles", lambda *_: [])(config, x, masks)
        check(not reasons, "tiles", f"got {config.blocks} for {name!r}; {'; '.join(reasons)}")


def why_not(
    name: str, config: Config, x: Inputs, masks: Masks, platform: str | None = None
) -> list[str]:
    """The reasons why an implementation cannot run; those of the platform only if it is given."""
    module = _module(name)
    return getattr(module, "why_not", lambda *_: [])(config, x, masks, platform)


def _run(work: Pass, x: Inputs, masks: Masks, config: Config, platform: str) -> Tiles:
    name = _choose(config, x, masks, platform)
    if 0 in (*x.query.shape, *x.value.shape):
        name = "xla_chunked"  # no kernel has empty tiles, and there is next to nothing to compute
    return _module(name).run(work, x, masks, config, platform)


def forward(x: Inputs, masks: Masks, *, config: Config, platform: str) -> Output:
    """F: the attention and its log-sum-exp."""
    return Output(**_run(passes.forward(x, config), x, masks, config, platform))


def tangent(
    x: Inputs, y: Output, t: Inputs, masks: Masks, *, config: Config, platform: str
) -> Output:
    """J: the tangent along `t`."""
    work = passes.tangent(x, y, t, config)
    return Output(shift=jnp.zeros_like(y.shift), **_run(work, x, masks, config, platform))


def _inputs(found: Tiles) -> Inputs:
    return Inputs(found["q"], found["k"], found["v"], found.get("bias"))


def cotangent(
    x: Inputs, y: Output, g: Output, masks: Masks, *, config: Config, platform: str
) -> Inputs:
    """B: the cotangent of the inputs."""
    work = passes.cotangent(x, y, g, config)
    return _inputs(_run(work, x, masks, config, platform))


def hessian(
    x: Inputs,
    y: Output,
    g: Output,
    x_dot: Inputs,
    y_dot: Output,
    g_dot: Output,
    masks: Masks,
    *,
    config: Config,
    platform: str,
) -> Inputs:
    """H: the tangent of `cotangent`."""
    work = passes.hessian(x, y, g, x_dot, y_dot, g_dot, config)
    return _inputs(_run(work, x, masks, config, platform))


def second_tangent(
    x: Inputs,
    y: Output,
    t: Inputs,
    x_dot: Inputs,
    y_dot: Output,
    t_dot: Inputs,
    masks: Masks,
    *,
    config: Config,
    platform: str,
) -> Output:
    """K: the tangent of `tangent`."""
    first = tangent(x, y, t, masks, config=config, platform=platform)
    work = passes.second_tangent(x, y, t, first.logsum, x_dot, y_dot, t_dot, config)
    return Output(shift=jnp.zeros_like(y.shift), **_run(work, x, masks, config, platform))


_attention = second_order(
    "attention",
    forward=forward,
    tangent=tangent,
    cotangent=cotangent,
    hessian=hessian,
    second_tangent=second_tangent,
    reference=reference.forward,
    out=lambda x, masks, *, config: struct(x),
    by_platform=True,
)


def check_implementation(x: Inputs, masks: Masks, config: Config) -> None:
    """Raise unless what is asked for by name exists and can run this on some platform."""
    name = config.implementation
    check_known(name, (None, *IMPLEMENTATIONS))
    if name is not None:
        _check(name, config, x, masks, None)


def attention(x: Inputs, masks: Masks, config: Config) -> Output:
    """Softmax attention in the kernels' layout, differentiable to any order.

    Args:
      x: the arrays to differentiate in.
      masks: what hides keys.
      config: hyper-parameters.

    Returns:
      The attention and its log-sum-exp in two parts.

    Raises:
      ValueError: naming `implementation` or `tiles` where those asked for do not exist or cannot
        run.
    """
    check_implementation(x, masks, config)
    return _attention(x, (), masks, config=config)


def implementations() -> dict[str, str | None]:
    """Which implementations run on this machine's default backend.

    Returns:
      For each name, None where it runs, else why not.

    >>> implementations()["xla_chunked"] is None
    True
    """
    platform = jax.default_backend()
    report = {}
    for name in IMPLEMENTATIONS:
        platforms = getattr(_module(name), "PLATFORMS", (platform,))
        reasons = wrong_platform(platform, platforms)
        report[name] = "; ".join(reasons) or None
    return report
