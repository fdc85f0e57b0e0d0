"""Measuring many papers: one crash stops nobody, and finished papers stay finished."""

import collections
import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, Literal, cast

from papyrax.train import measure

Follow = Callable[[str, float, str], None]
"""`follow(slug, fraction, what)`: a paper started, with fraction 0, or went on."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How it went with one paper.

    Attributes:
      slug: the paper.
      state: `measured` now, `recorded` before and still valid, or `crashed`.
      record: the result as recorded; None after a crash.
      error: the error in one line; None unless it crashed.
      log: the file with the traceback and the output; None unless it crashed.
    """

    slug: str
    state: Literal["measured", "recorded", "crashed"]
    record: dict[str, Any] | None = None
    error: str | None = None
    log: pathlib.Path | None = None

    @property
    def holds(self) -> bool:
        """Whether the acceptance is met."""
        return self.record is not None and bool(self.record["holds"])


def run(
    slugs: Sequence[str],
    settings: measure.Settings,
    follow: Follow,
    *,
    jobs: int = 1,
    fresh: bool = False,
) -> Generator[Outcome, None, None]:
    """Measures papers and yields each as soon as it is done.

    Args:
      slugs: the papers.
      settings: how they are measured.
      follow: is told how far each paper is.
      jobs: papers at once. One runs in this process; more run each in a process of its own, with
        its own JAX.
      fresh: measure even what is recorded already.

    Yields:
      One outcome a paper: those recorded already first, the others in the order they finish.
    """
    waiting = []
    for slug in slugs:
        record = None if fresh else measure.finished(slug, settings)
        if record is None:
            waiting.append(slug)
        else:
            yield Outcome(slug, "recorded", record)
    if jobs > 1 and len(waiting) > 1:
        yield from _processes(waiting, settings, follow, jobs)
    else:
        for slug in waiting:
            follow(slug, 0.0, "starting")
            log_path(slug, settings).unlink(missing_ok=True)
            yield _attempt(slug, settings, functools.partial(follow, slug))


def log_path(slug: str, settings: measure.Settings) -> pathlib.Path:
    """Where the traceback of a paper goes."""
    return settings.folder / f"{slug}.log"


def _attempt(slug: str, settings: measure.Settings, progress: Callable[..., None]) -> Outcome:
    log = log_path(slug, settings)
    try:
        record = measure.measure(slug, settings, progress)
    except (Exception, SystemExit) as error:
        with open(log, "a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        return Outcome(slug, "crashed", error=one_line(error), log=log)
    log.unlink(missing_ok=True)
    return Outcome(slug, "measured", record)


def one_line(error: BaseException) -> str:
    """An error in one line: its kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _processes(
    slugs: Sequence[str], settings: measure.Settings, follow: Follow, jobs: int
) -> Generator[Outcome, None, None]:
    context = multiprocessing.get_context("spawn")
    waiting = collections.deque(slugs)
    running: dict[multiprocessing.connection.Connection, tuple[str, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                slug = waiting.popleft()
                follow(slug, 0.0, "starting")
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(slug, settings, theirs), name=slug)
                with _interrupts_held():
                    process.start()
                theirs.close()
                running[ours] = (slug, process)
            for end in multiprocessing.connection.wait(list(running)):
                ready = cast(multiprocessing.connection.Connection, end)
                slug, process = running[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):  # it died before it could say how it went
                    process.join()
                    message = _died(slug, settings, process.exitcode)
                if isinstance(message, Outcome):
                    del running[ready]
                    ready.close()
                    process.join()
                    yield message
                else:
                    follow(slug, *message)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches the parent, who ends its children; those born in here never see it."""
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # where it does not run yet, starting it lets them go
        old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
    else:
        yield


def _died(slug: str, settings: measure.Settings, code: int | None) -> Outcome:
    if code is not None and code < 0:
        error = f"its process was killed by {signal.Signals(-code).name}"
    else:
        error = f"its process ended with status {code}"
    return Outcome(slug, "crashed", error=error, log=log_path(slug, settings))


def _child(
    slug: str, settings: measure.Settings, connection: multiprocessing.connection.Connection
) -> None:
    """Runs in a process of its own: measures one paper and sends how it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Several processes share an accelerator only if none takes all of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    log = os.open(log_path(slug, settings), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):  # also what C++ libraries print
        os.dup2(log, stream)
    connection.send(_attempt(slug, settings, lambda f, what: connection.send((f, what))))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
