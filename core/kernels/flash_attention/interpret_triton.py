"""The Triton kernels run by Pallas' interpreter on any platform, in any floating-point dtype."""

from . import pallas_triton
from .operands import Config, Inputs, Masks
from .passes import Pass, Tiles


def run(work: Pass, x: Inputs, masks: Masks, config: Config, platform: str) -> Tiles:
    """Run the kernels of a pass and return its results."""
    return pallas_triton.run(work, x, masks, config, platform, interpret=True)
