"""`papyrax plan`: what a training run needs on a slice of TPUs that is not here."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich import box
from rich.table import Table
from rich.text import Text

from papyrax.train import cli, configs, files, terminal
from papyrax.train.commands.train import _registry, renamed
from papyrax.train.config import Config, to_json
from papyrax.train.errors import UserError

if TYPE_CHECKING:
    from papyrax.train.planning import Plan as Found

KINDS = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "other": "other state",
    "batch": "batch",
    "padding": "padding of these",
    "outputs": "new arrays (not in place)",
    "temporaries": "activations, temporaries",
    "code": "program",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Say what a training run would need on a slice of TPUs, before it runs.

    The training step is compiled ahead of time for --topology, with no TPU at hand; the first word
    and the options are those of `papyrax train`. It is the step that estimates curvature where the
    optimizer does so at intervals, which is the larger.

    The exit status is 1 where the step does not fit into the memory of a device.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    topology: str
    """The slice: v2, v3, v4, v5e, v5p, v6e or tpu7x and its layout, such as v5e:16x16 or
    v5p:4x4x4; or cpu:8, virtual devices, where libtpu is not installed."""
    json: bool = False
    """Print JSON instead of tables."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Plan":
        """Reads the command line, whose first word is a preset or a path."""
        known = configs.presets()
        if not arguments:
            raise UserError(
                f"plan takes a preset first ({', '.join(known)}), or the path of a config.json"
            )
        help_only = arguments[0] in ("-h", "--help")
        name, rest = ("PRESET", arguments) if help_only else (arguments[0], arguments[1:])
        if name.startswith("-"):
            raise UserError(f"plan takes a preset or a path before {name}")
        base = Config() if help_only else configs.get(name)
        parsed = tyro.cli(
            cls,
            prog=f"papyrax plan {name}",
            description=f"{cli.description(cls)}\n\n Presets: {', '.join(known)}",
            args=list(rest),
            default=cls(base, tyro.MISSING),
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=_registry(),
        )
        return dataclasses.replace(parsed, config=renamed(base, parsed.config))

    def run(self) -> int:
        """Compiles, and prints what was found."""
        # An accelerator of this machine has no part in it, and may be in use.
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        jax.config.update("jax_platforms", "cpu")
        from papyrax.train.planning import plan

        found = plan(self.config, self.topology)
        if self.json:
            data = {**dataclasses.asdict(found), "config": to_json(self.config)}
            print(files.to_json(data), end="")
        else:
            _print(found)
        return 1 if found.fits is False else 0


def size(count: float) -> str:
    """A number of bytes for a reader, in the units that memory is sold in."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def amount(count: float) -> str:
    """A large number for a reader."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if count < 1000:
            return f"{count:.3g} {unit}".strip()
        count /= 1000
    return f"{count:.3g} E"


def _print(found: "Found") -> None:
    out = terminal.console()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in _facts(found):
        table.add_row(name, Text(text))
    out.print(table)
    out.print(Text("\nMemory of a device", style="bold"))
    out.print(_memory(found))
    out.print(Text("\nCollectives a step, on a device", style="bold"))
    out.print(_collectives(found))
    for note in found.notes:
        out.print(Text(f"\n{note}", style="dim"))
    out.print(_verdict(found))


def _facts(found: "Found") -> Iterator[tuple[str, str]]:
    chips = f" ({found.chips} chips)" if found.chips != found.devices else ""
    layout = " x ".join(f"{n} {axis}" for axis, n in found.mesh.items())
    yield "topology", f"{found.topology}: {found.devices} x {found.device}{chips}"
    yield "mesh", layout
    if found.refresh_every is not None:
        yield "step", f"the one that estimates curvature, every {found.refresh_every} steps"
    yield "parameters", f"{found.num_parameters:,}"
    tokens = f" ({found.units:,} tokens)" if found.unit == "token" else ""
    yield "batch", f"{found.batch:,} examples{tokens}"
    least = "at least " if found.at_least else ""
    each = amount(found.flops / found.units)
    yield "FLOPs", f"{least}{amount(found.flops)} a step, {each} per {found.unit}"
    kernels = f"; {found.kernels} calls of Pallas kernels are not counted" * bool(found.kernels)
    yield "", f"matrix products and convolutions, all devices{kernels}"
    yield "compiled", f"in {found.lower_seconds + found.compile_seconds:.1f} s"


def _memory(found: "Found") -> Table:
    table = _table("kind", "bytes", "part of memory")
    values = dataclasses.asdict(found.memory)

    def row(name: str, count: int | None, style: str = "") -> None:
        share = f"{count / found.hbm:.2%}" if found.hbm and count is not None else ""
        text = "not known" if count is None else size(count)
        table.add_row(Text(name, style=style), Text(text, style=style), Text(share, style=style))

    for key, name in KINDS.items():
        if values[key] or key in ("parameters", "optimizer"):
            row(name, values[key])
    row("total", found.memory.total, "bold")
    return table


def _collectives(found: "Found") -> Table | str:
    if found.collectives is None:
        return "not known: the step did not compile"
    if not found.collectives:
        return "none"
    table = _table("kind", "count", "bytes")
    for kind, total in found.collectives.items():
        table.add_row(kind, f"{total['count']:,}", size(total["bytes"]))
    return table


def _table(*columns: str) -> Table:
    table: Any = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _verdict(found: "Found") -> Text:
    if found.fits is None:
        return Text(f"\nCompiles for {found.topology}, whose memory is not known.")
    assert found.hbm is not None
    has = f"{size(found.hbm)} of a {found.device}"
    if found.fits:
        return Text(f"\nFits into the {has}.", style="green")
    return Text(f"\nDoes not fit into the {has}: {found.why_not}", style="red")
