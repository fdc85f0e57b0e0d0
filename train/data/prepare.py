"""Finds a data set by name on disk, and prepares the embedded ones on first use."""

import contextlib
import difflib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
from typing import Any

from papyrax.train.errors import UserError

EMBEDDED = (
    "breast_cancer",
    "diabetes",
    "digits",
    "iris",
    "photo_patches",
    "python_source",
    "wine",
)
"""The sets that need no download; `papyrax.train.data.embedded` says what they hold."""

_PREPARING = ".preparing-"
_STALE_SECONDS = 3600


def find(name: str, *, data_dir: str | os.PathLike[str] | None, sequence_length: int) -> Any:
    """The TFDS builder of a prepared set.

    Args:
      name: an embedded set, or a TFDS name such as "mnist", "name/config" or "name:version".
      data_dir: where prepared sets are; for embedded ones `$PAPYRAX_DATA` or
        `~/.cache/papyrax/data` by default, for the others TFDS's own folder.
      sequence_length: of text.

    Returns:
      A `tfds.core.DatasetBuilder` that can be read.

    Raises:
      UserError: where the name is unknown, the set is not prepared or cannot be.
    """
    if name in EMBEDDED:
        return _embedded(name, data_dir, sequence_length)
    return _from_tfds(name, data_dir)


def unreadable(folder: str | os.PathLike[str], error: Exception) -> UserError:
    """The error for a prepared folder whose files cannot be read."""
    why = " ".join(str(error).split())[:200]
    if isinstance(error, ImportError):
        return UserError(f"{folder}: cannot be read: {why}; pip install 'papyrax[train]'")
    if "Permission denied" in why:
        return UserError(f"{folder}: cannot be read: {why}")
    return UserError(f"{folder}: is damaged ({type(error).__name__}: {why}); delete this folder")


def _embedded(name: str, data_dir: str | os.PathLike[str] | None, sequence_length: int) -> Any:
    import tensorflow_datasets as tfds

    from papyrax.train.data import embedded

    make = embedded.builder_class(name, sequence_length)
    chosen = data_dir or os.environ.get("PAPYRAX_DATA") or "~/.cache/papyrax/data"
    root = pathlib.Path(os.path.abspath(os.path.expanduser(chosen)))
    folder = root.joinpath(name, *(c.name for c in make.BUILDER_CONFIGS), str(make.VERSION))
    try:
        if not folder.exists():
            _prepare(name, make, root, folder)
    except ImportError as error:
        raise UserError(
            f"{name}: cannot be prepared: {error.msg}; pip install 'papyrax[train]'"
        ) from error
    except (OSError, RuntimeError) as error:  # the writer of records raises the latter
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"{root}: cannot hold prepared data: {why}; set PAPYRAX_DATA to another folder"
        ) from error
    try:
        return tfds.core.read_only_builder.builder_from_directory(folder)
    except Exception as error:
        raise unreadable(folder, error) from error


def _prepare(name: str, make: Any, root: pathlib.Path, folder: pathlib.Path) -> None:
    """Prepares into a folder aside and renames it: what has its name is whole.

    Processes that prepare at once each do the work, and the first rename wins.
    """
    import tensorflow_datasets as tfds

    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(_PREPARING + "*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREPARING, dir=root) as aside:
        builder = make(data_dir=aside, file_format="array_record")
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder.download_and_prepare(download_config=config)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(builder.data_dir, folder)
        except OSError:
            if not folder.exists():
                raise
            return
    sizes = ", ".join(f"{k} {split.num_examples}" for k, split in builder.info.splits.items())
    print(f"prepared {name} ({sizes}) in {folder}", file=sys.stderr)


def _from_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    base = re.split("[/:]", name)[0]
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    folder = os.path.expanduser(os.fspath(folder))
    if re.fullmatch(r"[A-Za-z_]\w*(/[\w.+-]+)?(:[\w.*]+)?", name):
        try:
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
        except tfds.core.DatasetNotFoundError:
            if base in known:
                how = how_to_prepare(name, data_dir)
                raise UserError(f"{name}: is not prepared in {folder}; {how}") from None
        except Exception as error:
            raise unreadable(os.path.join(folder, base), error) from error
    near = difflib.get_close_matches(base, [*EMBEDDED, *known], n=3)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"takes {', '.join(EMBEDDED)} or a set of TensorFlow Datasets"
    )
    raise UserError(f"there is no data set {name!r}; {hint}")


def how_to_prepare(name: str, data_dir: str | os.PathLike[str] | None = None) -> str:
    """The shell command that downloads and prepares a TFDS set for random access.

    Reading needs no TensorFlow, but most builders of TFDS use it to write.
    """
    where = f", data_dir='{os.fspath(data_dir)}'" if data_dir else ""
    builder = f"tfds.builder('{name}', file_format='array_record'{where})"
    code = f"import tensorflow_datasets as tfds; {builder}.download_and_prepare()"
    return f'run, where tensorflow is installed too: python -c "{code}"'
