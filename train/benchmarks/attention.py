"""Softmax attention against other libraries: time and memory as ratios, and growth with length."""

import datetime
import gc
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

import papyrax
from papyrax.attention import dot_product_attention
from papyrax.train.benchmarks.rivals import PROGRAMS, Problem, Program, compiled, libraries
from papyrax.train.benchmarks.turns import take_turns

MIB = 2**20


def machine() -> list[str]:
    """Processor, load and versions, a line each."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            found = [line.split(":")[1] for line in file if line.startswith("model name")]
        name = " ".join(found[0].split()) if found else name
    except OSError:
        pass
    device = jax.devices()[0]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"papyrax {papyrax.__version__}"]
    for package in ("jax", "jaxlib", "tokamax", "torch"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return [
        f"{today}, {device.device_kind} ({device.platform}), {name}, {os.cpu_count()} CPUs{load}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
    ]


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:110]}{'...' if len(text) > 110 else ''}"


def compare(
    problem: Problem,
    repeats: int,
    makers: Sequence[tuple[str, Callable[[Problem, str], Program]]] | None = None,
) -> Iterator[str]:
    """A table of times and memory, in Markdown.

    Args:
      problem: what is attended to.
      repeats: timed runs of each program.
      makers: names and makers of programs; the first is compared with the others.

    Yields:
      The lines. "papyrax / it" is the median over the turns of the ratio of times of one turn, of
      wall and of CPU time (over all threads, which neighbours on the machine disturb less); below
      one papyrax is the faster.
    """
    kind = "causal" if problem.causal else "all pairs"
    heads = f"{problem.batch} x {problem.heads} heads of {problem.dim}"
    yield f"### {problem.tokens} tokens, {heads}, {kind}, {problem.dtype}"
    yield ""
    yield "| program | library | wall ms | CPU ms | papyrax / it, wall | CPU | memory MiB |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    missing: dict[str, list[str]] = {}
    makers = list(libraries()) if makers is None else makers
    for what in PROGRAMS:
        programs: dict[str, Program] = {}
        for name, make in makers:
            try:
                programs[name] = make(problem, what)
            except Exception as error:
                missing.setdefault(f"{name}: {_why(error)}", []).append(what)
        times = take_turns({name: p.run for name, p in programs.items()}, repeats)
        ours = times.get(makers[0][0])
        for name, of in times.items():
            wall, cpu = (1e3 * statistics.median(t[n] for t in of) for n in (0, 1))
            ratios = ["", ""]
            if ours is not None and of is not ours:
                pairs = list(zip(ours, of, strict=True))
                ratios = [
                    f"{statistics.median(a[n] / max(b[n], 1e-9) for a, b in pairs):.2f}"
                    for n in (0, 1)
                ]
            memory = programs[name].memory / MIB
            yield (
                f"| {what} | {name} | {wall:.2f} | {cpu:.2f} | {' | '.join(ratios)} | "
                f"{memory:.1f} |"
            )
        del programs
        gc.collect()
    if missing:
        yield ""
    for why, lacks in missing.items():
        yield f"- no {', '.join(lacks)} of {why}"


def growth(problem: Problem, sizes: Sequence[int]) -> Iterator[str]:
    """How the memory of papyrax's programs grows with the tokens; compiled and not run.

    Args:
      problem: all but the number of tokens.
      sizes: numbers of tokens, two or more.

    Yields:
      The lines: MiB at each size, the least-squares line and its largest error, and the exponent p
      of memory ~ tokens^p between the last two sizes.
    """
    shape = f"{problem.batch} x {problem.heads} heads of {problem.dim}, {problem.dtype}"
    yield f"### Growth of papyrax's memory for temporary arrays, MiB, {shape}"
    yield ""
    heads = " | ".join(f"{n} tokens" for n in sizes)
    yield f"| program | {heads} | least-squares line | error | exponent |"
    yield f"|---|{'--:|' * len(sizes)}---|--:|--:|"
    for what in PROGRAMS:
        found = [
            compiled(dot_product_attention, problem._replace(tokens=n), what)
            .memory_analysis()
            .temp_size_in_bytes
            / MIB
            for n in sizes
        ]
        yield _fitted(what, sizes, found)
    matrix = problem.batch * problem.heads * sizes[-1] ** 2 * 4 / MIB
    yield ""
    yield f"A matrix of logits of {sizes[-1]} tokens has {matrix:.0f} MiB."


def _fitted(what: str, sizes: Sequence[int], found: Sequence[float]) -> str:
    n, y = np.asarray(sizes, float), np.asarray(found)
    slope, start = np.polyfit(n, y, 1)
    scale = max(float(y.max()), 1e-12)
    error = np.abs(start + slope * n - y).max() / scale
    last = max(y[-1], 1e-12) / max(y[-2], 1e-12)
    exponent = np.log(last) / np.log(n[-1] / n[-2])
    cells = " | ".join(f"{v:.1f}" for v in found)
    line = f"{round(start, 1) + 0.0:.1f} + {1024 * slope:.2f} per 1024"
    return f"| {what} | {cells} | {line} | {error:.1%} | {exponent:.2f} |"


def report(problems: Sequence[Problem], repeats: int, memory_at: Sequence[int]) -> Iterator[Any]:
    """All tables, line by line, as they are measured.

    Args:
      problems: what is timed.
      repeats: timed runs of each program.
      memory_at: numbers of tokens at which memory is fitted; none for fewer than two.

    Yields:
      The lines.
    """
    yield "# Softmax attention against other libraries"
    yield ""
    for line in machine():
        yield f"- {line}"
    for problem in problems:
        yield ""
        yield from compare(problem, repeats)
    if len(memory_at) > 1:
        for dim in dict.fromkeys(problem.dim for problem in problems):
            yield ""
            yield from growth(problems[0]._replace(dim=dim), memory_at)
