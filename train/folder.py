"""A run's folder: found writable before any work, held by one run, and of one config.

config.json      what the run is
metrics.jsonl    one line a record; the same bytes whenever the same run is repeated
timings.jsonl    when it happened and how fast
checkpoints/     what the run resumes from
tensorboard/     the metrics as event files
failed/          batch, parameters and config of a step that was not finite
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Sequence
from typing import Any

from papyrax.train import config as config_lib
from papyrax.train.config import Config
from papyrax.train.errors import UserError
from papyrax.train.files import write_atomic

MADE = frozenset(
    {".lock", "config.json", "metrics.jsonl", "timings.jsonl", "checkpoints", "tensorboard"}
)
"""What a run makes in its folder while nothing goes wrong."""


@dataclasses.dataclass
class Folder:
    """The open folder of a run; a block `with` it is the run.

    A run that fails before its first step takes away what it has made: its files and the folder
    itself, where they were not there before.

    Attributes:
      path: where it is.
      lock: the open file that keeps a second run out; released when this process ends, however.
      made: the folders that were not there, the innermost first.
      own: names in it that are this run's alone; none where the file system has no locks.
      begun: whether a step was done.
    """

    path: pathlib.Path
    lock: Any = None
    made: Sequence[pathlib.Path] = ()
    own: Collection[str] = ()
    begun: bool = False

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Lets the next run in."""
        if kind is not None and not self.begun:
            self._clear()
        if self.lock is not None:
            self.lock.close()

    def keep(self, config: Config) -> None:
        """Writes down what the run is, once it is known to be one that can run."""
        if self.lock is not None:
            write_atomic(self.path / "config.json", f"{config}\n")

    def _clear(self) -> None:
        # The lock comes last, and while it is held: who has opened it meanwhile sees that it went.
        for name in sorted(self.own, reverse=True):
            entry = self.path / name
            with contextlib.suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in self.made:
            with contextlib.suppress(OSError):  # something of another's is in it
                folder.rmdir()


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
    opened = Folder(path)
    with contextlib.ExitStack() as stack:
        stack.push(opened.__exit__)  # for what fails below
        try:
            opened.made = [place for place in (path, *path.parents) if not place.exists()]
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            if first:
                _lock(opened)
        except OSError as error:
            raise UserError(f"out: cannot write to {path}: {error.strerror or error}") from error
        saved = path / "config.json"
        if saved.exists():
            _compare(saved, config)
        stack.pop_all()
    return opened


def _lock(opened: Folder) -> None:
    path = opened.path / ".lock"
    before = {".lock"} if path.exists() else set()
    file = opened.lock = open(path, "a")  # noqa: SIM115 - held until the run ends
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not a POSIX system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samefile(path, file.fileno())
    except (BlockingIOError, FileNotFoundError):  # held, or let go just now
        is_ours = False
    except OSError:  # a file system without locks
        return
    if not is_ours:
        raise UserError(f"out: another run is writing to {opened.path}")
    # Whatever is here now, no other run is writing.
    opened.own = MADE - before - {name for name in os.listdir(opened.path) if name != ".lock"}


def _compare(saved: pathlib.Path, config: Config) -> None:
    keys = list(config_lib.changed(config_lib.load(saved), config))
    if keys:
        raise UserError(
            f"out: {saved.parent} holds a run with another {', '.join(keys)}; give its config "
            f"({os.fspath(saved)}) to resume it, or another --out"
        )
