"""Measuring the claim of one paper and recording the result."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import papyrax
from papyrax import papers
from papyrax.papers import records
from papyrax.train import files

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
SOURCES = ("core", "papers", "train", "pyproject.toml", ":(exclude)papers/results")
"""What a result depends on. Results are left out: one that was just written is no change."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How claims are measured.

    Attributes:
      budget: "quick" or "full".
      seed: the first seed.
      seeds: how many seeds.
      folder: where results are recorded.
    """

    budget: papers.Budget
    seed: int
    seeds: int
    folder: pathlib.Path

    def path(self, slug: str) -> pathlib.Path:
        """The record of a paper."""
        return self.folder / f"{slug}.json"


def measure(slug: str, settings: Settings, progress: papers.Progress) -> dict[str, Any]:
    """Measures the claim of a paper and records the result.

    The record is written whole when the paper is done; nothing is written before.

    Args:
      slug: the paper.
      settings: budget, seeds and folder.
      progress: is told how far the paper is.

    Returns:
      The record, as it was written.

    Raises:
      Exception: whatever the paper raises; ValueError where it returns something else than the
        result that was asked for.
    """
    module = papers.load(slug)
    start = time.perf_counter()
    # Standard output is for the answer of the command; a paper that prints must not spoil it.
    with contextlib.redirect_stdout(sys.stderr):
        result = module.reproduce(
            settings.budget, settings.seed, seeds=settings.seeds, progress=progress
        )
    seconds = time.perf_counter() - start
    _check(result, slug, settings)
    record = {
        **result.to_json(),
        "acceptance": module.PAPER.claim.accept,
        "seconds": round(seconds, 1),
        "versions": versions(),
        "device": device(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    files.write_atomic(settings.path(slug), files.to_json(record))
    return record


def finished(slug: str, settings: Settings) -> dict[str, Any] | None:
    """The record of a paper, if it answers exactly what is asked for.

    Args:
      slug: the paper.
      settings: budget, seeds and folder.

    Returns:
      The record where it has the same budget, seeds and acceptance; else None.
    """
    try:
        record = records.read(settings.path(slug))
        same = record is not None and (
            record["budget"] == settings.budget
            and record["seeds"] == list(papers.seed_range(settings.seed, settings.seeds))
            and record["acceptance"] == papers.load(slug).PAPER.claim.accept
        )
    except Exception:  # a damaged record or a broken module: measuring it says more
        return None
    return record if same else None


def _check(result: object, slug: str, settings: Settings) -> None:
    if not isinstance(result, papers.Result):
        raise ValueError(f"reproduce: returned {type(result).__name__}, takes a papyrax Result")
    asked = (slug, settings.budget, papers.seed_range(settings.seed, settings.seeds))
    got = (result.slug, result.budget, tuple(result.seeds))
    if got != asked:
        raise ValueError(f"reproduce: returned a result for {got}, was asked for {asked}")
    if not result.measures:
        raise ValueError("reproduce: returned no measures, so that nothing can fail")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "papyrax": papyrax.__version__,
    }


def device() -> dict[str, str | int]:
    """What JAX computes on here."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }


def commit() -> str | None:
    """The commit of the source checkout, with "+changes" where its sources differ from it.

    Returns:
      None where the package is installed, or the checkout is no git repository of its own.
    """
    root = records.checkout()
    if root is None:
        return None
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if not pathlib.Path(top).samefile(root):
            return None
        changed = _git(root, "status", "--porcelain", "--", *SOURCES)
        return _git(root, "rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", root, "--no-optional-locks", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.strip()
