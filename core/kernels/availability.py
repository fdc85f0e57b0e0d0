"""Where kernels run: what is said of an implementation that cannot, and the GPU's shared memory."""

import functools
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from ..numerics import check

GPUS = ("cuda", "rocm")
# KiB of shared memory that a block may have, by compute capability; other GPUs of NVIDIA have 99.
SHARED = {"8.0": 163, "8.7": 163, "9.0": 227, "10.0": 227, "10.3": 227, "11.0": 227}
SMALLEST = 99 * 1024


def check_known(name: str | None, names: Sequence[str | None]) -> None:
    """Raise a ValueError naming `implementation` unless it is one of the names."""
    takes = ", ".join(map(repr, names))
    check(name in names, "implementation", f"got {name!r}, takes {takes}")


def check_reasons(name: str, reasons: list[str]) -> None:
    """Raise a ValueError naming `implementation` if there are reasons why it cannot run."""
    check(not reasons, "implementation", f"got {name!r}; {'; '.join(reasons)}")


def wrong_platform(platform: str | None, platforms: Sequence[str]) -> list[str]:
    """Why a kernel for `platforms` cannot run on one, a `Platform` or its name, if it is given."""
    known = platform is None or platform in platforms or (platform == "gpu" and "cuda" in platforms)
    reasons = [] if known else [f"it runs on {' and '.join(platforms)}, not on {platform}"]
    if getattr(platform, "partitioned", False):
        reasons.append("XLA cannot partition it over devices: call it inside jax.shard_map")
    return reasons


def wrong_dtypes(dtypes: Iterable[Any], takes: Sequence[str]) -> list[str]:
    """Why a kernel that takes dtypes of these names cannot take others."""
    wrong = sorted({str(d) for d in dtypes} - set(takes))
    listed = " and ".join([", ".join(takes[:-1]), takes[-1]] if takes[1:] else takes)
    return [f"it takes {listed}, not {' and '.join(wrong)}"] if wrong else []


def kernels_of(package: str, name: str) -> Any:
    """The module of an implementation or its interpreter: of one chip without another's."""
    module = "pallas_triton" if name.endswith("triton") else "pallas_tpu"
    return importlib.import_module(f"{package}.{module}")


@functools.cache
def shared_memory() -> int | None:
    """Bytes that a block may have on the GPU of this process; None without one."""
    try:
        capability = jax.devices("gpu")[0].compute_capability
    except RuntimeError:
        return None
    if capability.startswith("gfx"):
        return 64 * 1024
    return 1024 * SHARED[capability] if capability in SHARED else SMALLEST
