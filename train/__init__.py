"""The training engine and the command line.

    from papyrax.train import Config, fit
    result = fit(Config(steps=200))

Names are imported when they are first used, so that `import papyrax.train` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from papyrax.train.config import Config
    from papyrax.train.loop import FitResult, fit
    from papyrax.train.step import Built, State, build

_HOMES = {
    "Built": "step",
    "Config": "config",
    "FitResult": "loop",
    "State": "step",
    "build": "step",
    "fit": "loop",
}

__all__ = ["Built", "Config", "FitResult", "State", "build", "fit"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
