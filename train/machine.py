"""What this machine is and what of papyrax runs on it, for `papyrax doctor`.

What needs JAX is asked of a process of its own: a driver that hangs or aborts must not take the
answer with it. Run as a program, this file is that process.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import pkgutil
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import papyrax

TIMEOUT = 60.0
"""Seconds that JAX gets to start. A GPU takes a few; a TPU that is in use never answers."""

ANSWER = "papyrax-machine: "
"""What the line with the answer begins with: drivers print to standard output too."""

EXTRAS_SHOWN = ("train", "notebooks", "bench", "cuda", "tpu", "aot")
GPU_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin", "jax-rocm60-plugin")


def examine(timeout: float = TIMEOUT) -> dict[str, Any]:
    """Everything there is to know, as plain data; a part that cannot be found out says why.

    Args:
      timeout: seconds that JAX gets to start.

    Returns:
      The parts by name. One that failed is `{"error": why}`.
    """
    deadline = time.monotonic() + timeout
    answers = {name: guard(_start, name) for name in CHILDREN}
    parts = {
        "system": guard(system),
        "versions": guard(versions),
        "extras": guard(extras),
        "folders": guard(folders),
        "datasets": guard(datasets),
        "nvidia": guard(nvidia),
        "gpu_plugins": guard(lambda: [name for name in GPU_PLUGINS if installed(name)]),
        "libtpu": guard(installed, "libtpu"),
    }
    for name, child in answers.items():
        answer = child if failed(child) else guard(_answer, child, deadline)
        names = [probe.__name__ for probe in CHILDREN[name]]
        parts |= dict.fromkeys(names, answer) if failed(answer) else answer
    return parts


def guard(probe: Callable[..., Any], *arguments: Any) -> Any:
    """What a probe finds, or `{"error": why}`."""
    try:
        return probe(*arguments)
    except Exception as error:
        why = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {why}" if why else type(error).__name__}


def failed(part: Any) -> bool:
    """Whether a part is the error of its probe."""
    return isinstance(part, dict) and "error" in part


def installed(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def system() -> dict[str, Any]:
    """The operating system, its processors and its memory in bytes."""
    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": guard(_memory),
    }


def _memory() -> dict[str, int]:
    try:
        fields = pathlib.Path("/proc/meminfo").read_text().split("\n")
        sizes = {f.split(":")[0]: int(f.split()[1]) * 1024 for f in fields if ":" in f}
        return {"total": sizes["MemTotal"], "free": sizes["MemAvailable"]}
    except OSError:  # no Linux
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {"total": total}


def versions() -> list[dict[str, Any]]:
    """The library and what it needs: what is installed, what is needed, whether that fits."""
    rows: list[dict[str, Any]] = [
        {"name": "papyrax", "installed": papyrax.__version__, "needs": "", "fits": True}
    ]
    for name, needs, fits, _ in _requirements("papyrax", None):
        rows.append({"name": name, "installed": installed(name), "needs": needs, "fits": fits})
        if name == "jax":
            jaxlib = installed("jaxlib")
            row = {"name": "jaxlib", "installed": jaxlib, "needs": "", "fits": bool(jaxlib)}
            rows.append(row)
    return rows


def extras() -> list[dict[str, Any]]:
    """The optional extras: what each still lacks."""
    known = importlib.metadata.metadata("papyrax").get_all("Provides-Extra") or []
    return [
        {"name": extra, "missing": sorted(set(_missing("papyrax", extra)))}
        for extra in EXTRAS_SHOWN
        if extra in known
    ]


def _missing(distribution: str, extra: str) -> Iterator[str]:
    for name, needs, fits, wanted in _requirements(distribution, extra):
        if not fits:
            yield name + needs if installed(name) else name
        elif name != distribution or extra not in wanted:
            # `papyrax[train]` of another extra, or `jax[cuda13]`: what the brackets ask for counts.
            for inner in wanted:
                yield from _missing(name, inner)


def _requirements(
    distribution: str, extra: str | None
) -> Iterator[tuple[str, str, bool, frozenset[str]]]:
    """What a distribution, or an extra of it, needs: name, version, whether it fits, extras."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(distribution) or []:
        wanted = Requirement(text)
        marker = wanted.marker
        always = marker is None or marker.evaluate({"extra": ""})
        asked = marker is not None and marker.evaluate({"extra": extra or ""})
        if (extra is None and not always) or (extra is not None and (always or not asked)):
            continue
        version = installed(wanted.name)
        fits = version is not None and wanted.specifier.contains(version, prereleases=True)
        yield wanted.name, str(wanted.specifier), fits, frozenset(wanted.extras)


def data_folder() -> pathlib.Path:
    """Where prepared data sets are kept."""
    chosen = os.environ.get("PAPYRAX_DATA") or "~/.cache/papyrax/data"
    return pathlib.Path(chosen).expanduser().absolute()


def folders() -> list[dict[str, Any]]:
    """The folders that papyrax writes to: whether it can, and the bytes that are free there."""
    from papyrax.papers import results_dir

    places = {"data": data_folder(), "results": results_dir().absolute()}
    return [{"name": name, **guard(_folder, path)} for name, path in places.items()]


def _folder(path: pathlib.Path) -> dict[str, Any]:
    there = next(p for p in (path, *path.parents) if p.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".papyrax-"):
            writable = True
    except OSError:
        writable = False
    free = shutil.disk_usage(there).free
    return {"path": str(path), "exists": there == path, "writable": writable, "free": free}


def datasets() -> list[str]:
    """The data sets that are prepared: "name", or "name/config"."""
    root = data_folder()
    found = set()
    for pattern in ("*/*", "*/*/*"):  # name/version, name/config/version
        for info in root.glob(f"{pattern}/dataset_info.json"):
            parts = info.parent.relative_to(root).parts
            if not any(part.startswith(".") for part in parts):
                found.add("/".join(parts[:-1]))
    return sorted(found)


def nvidia() -> list[str]:
    """NVIDIA's GPUs and drivers, as the driver lists them, whether JAX sees them or not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=10)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] * (
        done.returncode == 0
    )


def _start(name: str) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if name == "aot":
        # A TPU in use elsewhere is not asked for, nor is Google Cloud, what machine this is.
        environment |= {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        environment.setdefault("TPU_SKIP_MDS_QUERY", "1")
    return subprocess.Popen(
        [sys.executable, "-m", __name__, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _answer(child: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
    try:
        out, err = child.communicate(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise TimeoutError(
            "JAX took too long to start; is an accelerator in use by another process?"
        ) from None
    for line in reversed(out.splitlines()):
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    last = (err.strip().splitlines() or ["it said nothing"])[-1]
    raise RuntimeError(f"JAX ended with status {child.returncode}: {last}")


def devices() -> dict[str, Any]:
    """The default backend, all devices, and whether it computes."""
    import jax
    from jax.extend import backend

    default = jax.default_backend()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name in sorted(backend.backends(), key=lambda name: name != default):
        for device in jax.devices(name):
            key = (device.platform, device.device_kind)
            row = rows.setdefault(
                key, {"platform": key[0], "kind": key[1], "count": 0, "memory": None}
            )
            row["count"] += 1
            row["memory"] = (guard(device.memory_stats) or {}).get("bytes_limit")
    two = guard(lambda: float(jax.jit(lambda x: x + 1.0)(1.0)))
    return {
        "default": default,
        "devices": list(rows.values()),
        "processes": jax.process_count(),
        "computes": two if failed(two) else two == 2.0,
    }


def kernels() -> list[dict[str, Any]]:
    """Every implementation of every operator: does it run on the default backend, or why not."""
    import jax

    package = importlib.import_module("papyrax.kernels")
    rows: list[dict[str, Any]] = []
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            continue
        found = guard(_implementations, f"{package.__name__}.{module.name}")
        if failed(found):
            found = {"all": found["error"]}
        rows += [
            {
                "operator": module.name,
                "implementation": name,
                "backend": jax.default_backend(),
                "runs": why is None,
                "why_not": why,
            }
            for name, why in found.items()
        ]
    return rows


def _implementations(name: str) -> dict[str, str | None]:
    operator = importlib.import_module(name)
    if not hasattr(operator, "implementations"):
        return {}
    found = operator.implementations()
    return {str(key): None if why is None else str(why) for key, why in found.items()}


def settings() -> dict[str, Any]:
    """JAX's settings that change what a run does."""
    import jax

    config: Any = jax.config
    return {
        "x64": bool(config.jax_enable_x64),
        "matmul_precision": config.jax_default_matmul_precision,
        "compilation_cache": config.jax_compilation_cache_dir,
        "platforms": config.jax_platforms or None,
        "xla_flags": os.environ.get("XLA_FLAGS") or None,
    }


def aot() -> dict[str, Any]:
    """Whether programs can be compiled for a TPU that is not here."""
    if importlib.util.find_spec("libtpu") is None:
        return {"runs": False, "why_not": "libtpu is not installed"}
    from jax.experimental import topologies

    topology: Any = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    return {"runs": True, "why_not": None, "example": topology.devices[0].device_kind}


CHILDREN: dict[str, tuple[Callable[[], Any], ...]] = {
    "jax": (devices, kernels, settings),
    "aot": (aot,),
}
"""The probes that run in processes of their own, by process."""


if __name__ == "__main__":
    found = {probe.__name__: guard(probe) for probe in CHILDREN[sys.argv[1]]}
    print(f"\n{ANSWER}{json.dumps(found)}", flush=True)
    # Some drivers crash when they are unloaded; the answer is out.
    os._exit(0)
