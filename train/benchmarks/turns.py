"""How programs are measured against each other: in turns, so that all meet the same load."""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Seconds(NamedTuple):
    """How long one run took.

    Attributes:
      wall: by the clock.
      cpu: of all threads of the process.
    """

    wall: float
    cpu: float


def keep_memory() -> None:
    """Let glibc keep what it has allocated; elsewhere nothing is done.

    It would give large arrays (above 32 MiB at the latest) back to the system and ask for them anew
    in the next run. New pages take CPU time that is not the program's: a fifth of AdaHessian's
    step, two fifths of NT-Xent's gradient at 1024 examples.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(arena_max, 1)  # others' heaps end at 64 MiB


def take_turns(runs: Mapping[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[Seconds]]:
    """What every run took, one of each a turn; a first turn warms up and is not counted."""
    times: dict[Any, list[Seconds]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            took = Seconds(time.perf_counter() - wall, time.process_time() - cpu)
            if turn:
                times[name].append(took)
    return times


def torch_peak(run: Callable[[], Any]) -> int:
    """Bytes that PyTorch allocates on the CPU during a run, at most at once."""
    import torch

    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(max(np.cumsum([0, *sizes])))
