"""`papyrax doctor`: checks this machine."""

import dataclasses
import platform
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from papyrax.train import files, terminal
from papyrax.train.machine import examine, failed

LITTLE_DISK = 5e9
"""Bytes; less than this does not hold a data set of images."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check this machine: versions, devices, kernels, folders, and what could be better.

    The exit status is 1 where something that papyrax needs is missing or broken.
    """

    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Examines the machine and prints what was found."""
        found = examine()
        faults, hints = list(problems(found)), list(advice(found))
        if self.json:
            print(files.to_json({**found, "problems": faults, "advice": hints}), end="")
        else:
            _print(found, faults, hints)
        return 1 if faults else 0


def problems(found: dict[str, Any]) -> Iterator[str]:
    """What papyrax cannot work with, one line each."""
    for row in _rows(found["versions"]):
        if not row["fits"]:
            name, needs = row["name"], row["needs"]
            have = f"{row['installed']} is installed" if row["installed"] else "is not installed"
            wants = f"; papyrax needs {needs}" if needs else ""
            yield f"{name}: {have}{wants}: pip install '{name}{needs}'"
    devices = found["devices"]
    if failed(devices):
        yield f"JAX does not start: {devices['error']}"
    elif devices["computes"] is not True:
        why = devices["computes"]["error"] if failed(devices["computes"]) else "a wrong sum"
        yield f"JAX starts but does not compute on {devices['default']}: {why}"
    for row in _rows(found["folders"]):
        if not failed(row) and not row["writable"]:
            variable = {"data": "PAPYRAX_DATA", "results": "PAPYRAX_RESULTS"}[row["name"]]
            yield f"{row['path']} cannot be written: set {variable} to another folder"


def advice(found: dict[str, Any]) -> Iterator[str]:
    """What could be better, one line each."""
    devices, settings = found["devices"], found["settings"]
    if not failed(devices):
        yield from _accelerators(found)
    if not found["libtpu"] and platform.system() == "Linux" and platform.machine() == "x86_64":
        yield "to compile for TPUs without one: pip install 'papyrax[aot]'"
    for row in _rows(found["extras"]):
        if row["name"] == "train" and row["missing"]:
            yield f"{', '.join(row['missing'])}: missing: pip install 'papyrax[train]'"
    if not failed(settings):
        if not settings["compilation_cache"]:
            yield (
                "compiled programs are not kept between runs: "
                "export JAX_COMPILATION_CACHE_DIR=~/.cache/papyrax/jax"
            )
        if settings["x64"]:
            yield "x64 is on: numbers are float64 unless told otherwise, slow on GPUs and TPUs"
    for row in _rows(found["folders"]):
        if not failed(row) and row["free"] < LITTLE_DISK:
            yield f"little room for {row['name']}: {size(row['free'])} free in {row['path']}"


def _accelerators(found: dict[str, Any]) -> Iterator[str]:
    here = {row["platform"] for row in found["devices"]["devices"]}
    if here & {"gpu", "cuda", "rocm", "tpu"}:
        return
    forced = None if failed(found["settings"]) else found["settings"]["platforms"]
    gpus, plugins = _rows(found["nvidia"]), _rows(found["gpu_plugins"])
    if gpus and forced and not {"cuda", "gpu"} & set(forced.split(",")):
        yield f"{gpus[0]}: not used, because JAX_PLATFORMS is {forced}"
    elif gpus and plugins:
        yield (
            f"{gpus[0]}: here, and {plugins[0]} is installed, but JAX does not use it: "
            "python -c 'import jax; jax.devices(\"cuda\")' says why"
        )
    elif gpus:
        yield f"{gpus[0]}: here, but JAX has no plugin for it: pip install 'papyrax[cuda]'"
    else:
        yield "no GPU found, so JAX uses the CPU; for an NVIDIA GPU: pip install 'papyrax[cuda]'"


def size(count: float) -> str:
    """A number of bytes for a reader."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _rows(part: Any) -> list[Any]:
    """The rows of a part; none where its probe failed."""
    return part if isinstance(part, list) else []


def _print(found: dict[str, Any], faults: list[str], hints: list[str]) -> None:
    out = terminal.console()
    system = found["system"]
    if failed(system):
        _section(out, "System", system["error"])
    else:
        memory = system["memory"]
        parts = [f"Python {system['python']}", system["os"], f"{system['cpus']} CPUs"]
        if not failed(memory):
            free = f", {size(memory['free'])} free" if "free" in memory else ""
            parts.append(f"{size(memory['total'])} memory{free}")
        _section(out, "System", " · ".join(parts))
    _section(out, "Versions", _table(found["versions"], _version, "package", "version", "needs"))
    _section(out, "Devices", _devices(found["devices"]))
    _section(
        out,
        "Kernels",
        _table(found["kernels"], _kernel, "operator", "implementation", "here"),
    )
    _section(out, "Ahead-of-time compilation for TPU", _aot(found))
    _section(out, "Optional extras", _table(found["extras"], _extra, "extra", "state"))
    _section(out, "Folders", _table(found["folders"], _folder, "for", "folder", "state"))
    names = found["datasets"]
    prepared = names["error"] if failed(names) else ", ".join(names) or "none"
    _section(out, "Prepared data sets", prepared)
    _section(out, "Settings of JAX", _settings(found["settings"]))
    for title, lines, style in (("Problems", faults, "red"), ("Advice", hints, "")):
        if lines:
            out.print(Text(f"\n{title}", style="bold"))
            for line in lines:
                out.print(Text(f"- {line}", style=style), soft_wrap=True)
    if not faults:
        out.print(Text("\nNo problem found.", style="green"))


def _section(out: Console, title: str, body: str | Table | Text) -> None:
    out.print(Text(f"\n{title}", style="bold"))
    out.print(Text(body) if isinstance(body, str) else body, soft_wrap=isinstance(body, str))


def _table(part: Any, row: Any, *columns: str) -> Table | str:
    if failed(part):
        return f"cannot be told: {part['error']}"
    if not part:
        return "none"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for values in part:
        table.add_row(*row(values))
    return table


def _version(row: dict[str, Any]) -> tuple[Text, ...]:
    style = "" if row["fits"] else "red"
    return (
        Text(row["name"]),
        Text(row["installed"] or "missing", style=style),
        Text(row["needs"], style="dim"),
    )


def _kernel(row: dict[str, Any]) -> tuple[Text, ...]:
    if row["runs"]:
        return (
            Text(row["operator"]),
            Text(row["implementation"]),
            Text(f"runs on {row['backend']}", style="green"),
        )
    return Text(row["operator"]), Text(row["implementation"]), Text(f"no: {row['why_not']}")


def _extra(row: dict[str, Any]) -> tuple[Text, ...]:
    if row["missing"]:
        return Text(row["name"]), Text(f"lacks {', '.join(row['missing'])}", style="yellow")
    return Text(row["name"]), Text("installed", style="green")


def _folder(row: dict[str, Any]) -> tuple[Text, ...]:
    if failed(row):
        return Text(row["name"]), Text(""), Text(row["error"], style="red")
    state = "writable" if row["writable"] else "not writable"
    made = "" if row["exists"] else ", made when needed"
    style = "" if row["writable"] else "red"
    return (
        Text(row["name"]),
        Text(row["path"]),
        Text(f"{state}{made}, {size(row['free'])} free", style=style),
    )


def _devices(part: Any) -> str:
    if failed(part):
        return f"JAX does not start: {part['error']}"
    lines = []
    for row in part["devices"]:
        memory = f", {size(row['memory'])} each" if row["memory"] else ""
        used = " (used by default)" if row["platform"] == part["default"] else ""
        lines.append(f"{row['count']} x {row['kind']} ({row['platform']}){memory}{used}")
    if part["processes"] > 1:
        lines.append(f"{part['processes']} processes")
    return "\n".join(lines)


def _aot(found: dict[str, Any]) -> str:
    part = found["aot"]
    if failed(part):
        return f"does not work: {part['error']}"
    if part["runs"]:
        return f"works: libtpu {found['libtpu']} describes a {part['example']}"
    return f"not available: {part['why_not']}"


def _settings(part: Any) -> str:
    if failed(part):
        return f"cannot be told: {part['error']}"
    lines = [
        f"x64: {'on' if part['x64'] else 'off'}",
        f"matrix products: {part['matmul_precision'] or 'default precision'}",
        f"compilation cache: {part['compilation_cache'] or 'off'}",
    ]
    lines += [f"JAX_PLATFORMS: {part['platforms']}"] if part["platforms"] else []
    lines += [f"XLA_FLAGS: {part['xla_flags']}"] if part["xla_flags"] else []
    return "\n".join(lines)
