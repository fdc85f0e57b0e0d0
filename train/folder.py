"""A run's folder: found writable before any work, held by one run, and of one config.

config.json      what the run is
metrics.jsonl    one line a record; the same bytes whenever the same run is repeated
timings.jsonl    when it happened and how fast
checkpoints/     what the run resumes from
tensorboard/     the metrics as event files
failed/          batch, parameters and config of a step that was not finite
"""

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

from papyrax.train import config as config_lib
from papyrax.train.config import Config
from papyrax.train.errors import UserError
from papyrax.train.files import write_atomic


@dataclasses.dataclass(frozen=True)
class Folder:
    """The open folder of a run.

    Attributes:
      path: where it is.
      lock: the open file that keeps a second run out; released when this process ends, however.
    """

    path: pathlib.Path
    lock: Any

    def keep(self, config: Config) -> None:
        """Writes down what the run is, once it is known to be one that can run."""
        if self.lock is not None:
            write_atomic(self.path / "config.json", f"{config}\n")

    def close(self) -> None:
        """Lets the next run in."""
        if self.lock is not None:
            self.lock.close()


def open_folder(config: Config, *, first: bool = True) -> Folder:
    """Makes or reopens the folder of a run.

    Args:
      config: the run; `config.out` is the folder.
      first: whether this is the process that writes there.

    Returns:
      The folder.

    Raises:
      UserError: where it cannot be written, is in use, or holds a run with another config.
    """
    path = pathlib.Path(str(config.out))
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        lock = _lock(path) if first else None
    except OSError as error:
        raise UserError(f"out: cannot write to {path}: {error.strerror or error}") from error
    saved = path / "config.json"
    try:
        if saved.exists():
            _compare(saved, config)
    except BaseException:
        Folder(path, lock).close()
        raise
    return Folder(path, lock)


def _lock(path: pathlib.Path) -> Any:
    file = open(path / ".lock", "a")  # noqa: SIM115 - held until the run ends
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not a POSIX system
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"out: another run is writing to {path}") from error
    except OSError:  # a file system without locks
        pass
    return file


def _compare(saved: pathlib.Path, config: Config) -> None:
    keys = list(config_lib.changed(config_lib.load(saved), config))
    if keys:
        raise UserError(
            f"out: {saved.parent} holds a run with another {', '.join(keys)}; give its config "
            f"({os.fspath(saved)}) to resume it, or another --out"
        )
