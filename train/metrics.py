"""Metrics: JSON lines that can be compared byte by byte, TensorBoard, and a bar for the eye."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from papyrax.train.files import to_json
from papyrax.train.terminal import warn

Record = dict[str, Any]


class Log:
    """The metrics of a run, in its folder and in memory.

    `metrics.jsonl` holds nothing that two runs of the same config differ in; clocks are in
    `timings.jsonl`.
    """

    def __init__(self, folder: pathlib.Path | None, offset: int = 0, step: int = 0):
        """Opens the log at `offset` bytes, which is where it was at `step`."""
        self.records: list[Record] = []
        self._file: Any = None
        self._timings: Any = None
        self._board: Any = None
        self._clock = (step, time.monotonic())
        if folder is None:
            return
        path = folder / "metrics.jsonl"
        path.touch()
        kept = path.read_bytes()[:offset]  # what came after the checkpoint will be written again
        if len(kept) < offset:
            warn("metrics.jsonl is shorter than at the checkpoint; some of its records are lost")
            kept = kept[: kept.rfind(b"\n") + 1]
        os.truncate(path, len(kept))
        self.records = [json.loads(line) for line in kept.splitlines()]
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._timings = open(folder / "timings.jsonl", "ab")  # noqa: SIM115
        with contextlib.suppress(ImportError):
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    @property
    def offset(self) -> int:
        """Bytes of `metrics.jsonl` so far, all of them on the disk."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return int(self._file.tell())

    def write(self, step: int, split: str, values: Mapping[str, float]) -> Record:
        """Adds a record."""
        first = {name: values[name] for name in ("loss", "accuracy") if name in values}
        record: Record = {"step": step, "split": split, **first, **values}
        self.records.append(record)
        if self._file is not None:
            self._file.write(to_json(record, indent=None).encode())
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{split}/{name}", value, step)
        return record

    def time(self, step: int) -> float:
        """Notes when `step` was reached; steps a second since the last note."""
        (last, then), now = self._clock, time.monotonic()
        self._clock = (step, now)
        rate = (step - last) / max(now - then, 1e-9)
        if self._timings is not None:
            line = {"step": step, "time": time.time(), "steps_per_second": rate}
            self._timings.write(to_json(line, indent=None).encode())
            self._timings.flush()
        return rate

    def close(self) -> None:
        """Closes the files."""
        for file in (self._file, self._timings, self._board):
            if file is not None:
                file.close()


class Bar:
    """A live line: loss, accuracy, steps a second, time to go."""

    def __init__(self, progress: Any, task: Any):
        self._progress, self._task = progress, task

    def update(self, step: int, record: Mapping[str, Any] | None = None) -> None:
        """Moves to `step` and shows the numbers of a record, where there is one."""
        if self._progress is None:
            return
        fields: dict[str, Any] = {}
        if record is not None:
            shown = [f"{n} {record[n]:.4g}" for n in ("loss", "accuracy") if n in record]
            where = "text" if record["split"] == "train" else "test"
            prefix = "" if where == "text" else f"{record['split']} "
            fields[where] = prefix + "  ".join(shown)
        self._progress.update(self._task, completed=step, **fields)


@contextlib.contextmanager
def bar(total: int, step: int, *, show: bool) -> Iterator[Bar]:
    """Shows a progress bar on standard error while its block runs.

    Args:
      total: steps of the run.
      step: where it starts.
      show: False for a bar that shows nothing.

    Yields:
      The bar.
    """
    if not show:
        yield Bar(None, None)
        return
    from rich import progress

    from papyrax.train.terminal import console

    class Speed(progress.ProgressColumn):
        """Steps a second."""

        def render(self, task: Any) -> Any:
            return progress.Text(f"{task.speed:.1f} steps/s" if task.speed else "")

    columns = (
        progress.BarColumn(24),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[text]}"),
        progress.TextColumn("{task.fields[test]}", style="cyan"),
        Speed(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console(stderr=True)) as shown:
        yield Bar(shown, shown.add_task("", total=total, completed=step, text="", test=""))
