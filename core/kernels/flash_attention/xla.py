"""Attention with every logit in memory: the reference and its derivatives, left to XLA."""

from typing import Any

import jax

from . import reference
from .operands import Config, Inputs, Masks, Output


def forward(x: Inputs, masks: Masks, *, config: Config, platform: str) -> Output:
    """F."""
    return reference.forward(x, masks, config=config)


def tangent(
    x: Inputs, y: Output, t: Inputs, masks: Masks, *, config: Config, platform: str
) -> Output:
    """J."""
    return jax.jvp(lambda x: reference.forward(x, masks, config=config), (x,), (t,))[1]


def cotangent(
    x: Inputs, y: Output, g: Output, masks: Masks, *, config: Config, platform: str
) -> Inputs:
    """B."""
    return jax.vjp(lambda x: reference.forward(x, masks, config=config), x)[1](g)[0]


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
    """H."""

    def pull(x: Inputs, g: Output) -> Inputs:
        return cotangent(x, y, g, masks, config=config, platform=platform)

    return jax.jvp(pull, (x, g), (x_dot, g_dot))[1]


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
    """K."""

    def push(x: Inputs, t: Inputs) -> Any:
        return tangent(x, y, t, masks, config=config, platform=platform)

    return jax.jvp(push, (x, t), (x_dot, t_dot))[1]
