"""Files that are there whole or not at all, and numbers that survive JSON."""

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file so that whoever reads it, at whatever moment, finds the old one or the new one.

    The content goes to a temporary file of the same folder, which then takes the name. A process
    killed on the way leaves `path` as it was.

    Args:
      path: the file; its folder must exist.
      content: text, written as UTF-8 with "\\n" at line ends on every system, or bytes.

    Raises:
      OSError: where the folder cannot be written or the disk is full.
    """
    path = pathlib.Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp keeps files to their owner
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def to_json(data: Any, *, indent: int | None = 1) -> str:
    """Strict JSON, which has no NaN and no infinity: these are written as strings.

    The strings are "NaN", "Infinity" and "-Infinity". Python's `float()` reads them, and so does
    `papyrax.papers.Result.from_json`, so a measured NaN is still one after a round trip. A list of
    plain values takes one line, so that a curve of a hundred points is not a hundred lines.

    Args:
      data: dicts, lists, tuples, strings, numbers, booleans and None.
      indent: spaces a level; None writes everything in one line.

    Returns:
      The text, with a line end after it.

    >>> from papyrax.train.files import to_json
    >>> print(to_json({"x": (1, float("inf")), "y": [{"z": None}]}), end="")
    {
     "x": [1, "Infinity"],
     "y": [
      {
       "z": null
      }
     ]
    }
    """
    return _format(data, "\n", indent) + "\n"


def _format(data: Any, line: str, indent: int | None) -> str:
    if isinstance(data, Mapping):
        inner = _deeper(line, indent)
        items = [f"{json.dumps(str(k))}: {_format(v, inner, indent)}" for k, v in data.items()]
        return _join("{", items, "}", line, indent if items else None)
    if isinstance(data, list | tuple):
        nested = any(isinstance(value, Mapping | list | tuple) for value in data)
        items = [_format(value, _deeper(line, indent), indent) for value in data]
        return _join("[", items, "]", line, indent if nested else None)
    if isinstance(data, float) and not math.isfinite(data):
        return '"NaN"' if math.isnan(data) else '"Infinity"' if data > 0 else '"-Infinity"'
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _deeper(line: str, indent: int | None) -> str:
    return line + " " * (indent or 0)


def _join(first: str, items: list[str], last: str, line: str, indent: int | None) -> str:
    if indent is None:
        return first + ", ".join(items) + last
    inner = _deeper(line, indent)
    return first + inner + f",{inner}".join(items) + line + last
