"""Attention with every logit in memory: the only tile is the whole."""

import dataclasses

from . import xla_chunked
from .operands import Config, Inputs, Masks
from .passes import Pass, Tiles


def run(work: Pass, x: Inputs, masks: Masks, config: Config, platform: str) -> Tiles:
    """Do a pass in one step and return its results."""
    whole = dataclasses.replace(config, blocks=(x.query.shape[3], x.key.shape[2]))
    return xla_chunked.run(work, x, masks, whole, platform, all_heads=True)


def bad_tiles(config: Config, x: Inputs, masks: Masks) -> list[str]:
    """Why the tiles asked for cannot be."""
    return ["its only tile is the whole"]
