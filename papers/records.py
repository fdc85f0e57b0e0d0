"""Where measured results are kept, and how they are read."""

import json
import os
import pathlib
import tomllib
import types
from collections.abc import Mapping
from typing import Any

from .registry import Result

FOLDER = pathlib.Path(__file__).parent
SHIPPED = FOLDER / "results"
"""The results that come with the package."""

RUN: Mapping[str, type | types.UnionType] = {
    "acceptance": str,
    "seconds": int | float,
    "versions": dict,
    "device": dict,
    "commit": str | None,
    "date": str,
}
"""What a record says of the run, beside the fields of its `Result`."""


def checkout() -> pathlib.Path | None:
    """The root of the source checkout that this package is imported from; None when installed."""
    root = FOLDER.parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = project.get("project", {}).get("name") == "papyrax"
    return root if named and FOLDER.name == "papers" else None


def results_dir() -> pathlib.Path:
    """The folder that new results are written to; it may not exist yet.

    `$PAPYRAX_RESULTS` where it is set; `papers/results` of a source checkout that can be written;
    else `papyrax/results` of the user's data folder, `~/.local/share` or `$XDG_DATA_HOME`.
    """
    if chosen := os.environ.get("PAPYRAX_RESULTS"):
        return pathlib.Path(chosen).expanduser()
    if checkout() is not None and os.access(SHIPPED if SHIPPED.is_dir() else FOLDER, os.W_OK):
        return SHIPPED
    data = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(data) / "papyrax" / "results"


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """One recorded result.

    Args:
      path: the file.

    Returns:
      The fields of `Result.to_json()` and, beside them, `acceptance`, `seconds`, `versions`,
      `device`, `commit` and `date`; None where there is no such file. Numbers that are not finite
      are the strings "NaN", "Infinity" and "-Infinity", as `Result.from_json` takes them.

    Raises:
      ValueError: for a file that is not a recorded result.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        record: dict[str, Any] = json.loads(text)
        Result.from_json(record)
        for name, kind in RUN.items():
            if not isinstance(record[name], kind):
                raise ValueError(f"{name} is {record[name]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a recorded result ({type(error).__name__}: {error})"
        ) from None
    return record


def recorded(slug: str, folder: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """The last recorded result of a paper.

    Args:
      slug: the paper.
      folder: where to look; by default in `results_dir()`, then in what the package ships.

    Returns:
      The record as `read` gives it; None where there is none.

    Raises:
      ValueError: for a file that is not a recorded result.
    """
    folders = (results_dir(), SHIPPED) if folder is None else (pathlib.Path(folder),)
    for place in folders:
        if (record := read(place / f"{slug}.json")) is not None:
            return record
    return None
