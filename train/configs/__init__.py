"""Presets: a module each, with a one-line docstring and `config`; `digits_mlp` is "digits-mlp"."""

import difflib
import importlib
import pathlib
import pkgutil

from papyrax.train.config import Config, load
from papyrax.train.errors import UserError


def presets() -> dict[str, str]:
    """Every preset and its line of description."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        doc = importlib.import_module(f"{__name__}.{module}").__doc__ or ""
        found[module.replace("_", "-")] = doc.splitlines()[0]
    return found


def get(name: str) -> Config:
    """The config of a preset, or of a saved run.

    Args:
      name: a preset, or the path of a `config.json` or of a folder that has one.

    Returns:
      The config.

    Raises:
      UserError: where there is neither.
    """
    known = presets()
    if name in known:
        config: Config = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").config
        return config
    path = pathlib.Path(name)
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" or path.exists():
        return load(path)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"takes {', '.join(known)}, or a config.json"
    raise UserError(f"no preset {name!r}; {hint}")
