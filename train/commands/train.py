"""`papyrax train`: trains a model with the parts that are named."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.table import Table

from papyrax.train import cli, configs, distributed, terminal
from papyrax.train import config as config_lib
from papyrax.train.config import Config
from papyrax.train.errors import UserError

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a model, starting from a preset or from the config of an earlier run.

    Every part is named: --optimizer.name takes an optimizer of papyrax.optim or optax, --loss.name
    a loss of papyrax.losses or optax.losses, --attention.name an operator of papyrax.attention or
    jax.nn, or the dotted path of your own; --optimizer.options '{"b1": 0.8}' sets what its
    signature has. A run that was stopped, however, goes on where it was when it is started again.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    show_config: bool = False
    """Print the config as JSON and do nothing."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Train":
        """Reads the command line, whose first word is a preset or a path."""
        help_only = not arguments or arguments[0] in ("-h", "--help")
        if help_only and not arguments:
            known = ", ".join(configs.presets())
            raise UserError(f"train takes a preset first ({known}), or the path of a config.json")
        name, rest = ("PRESET", arguments) if help_only else (arguments[0], arguments[1:])
        if name.startswith("-"):
            raise UserError(f"train takes a preset or a path before {name}")
        base = Config() if help_only else configs.get(name)
        if base.out is None and not help_only:
            base = dataclasses.replace(base, out=f"runs/{name}")
        listed = "\n".join(f"    {n:16} {text}" for n, text in configs.presets().items())
        parsed = tyro.cli(
            cls,
            prog=f"papyrax train {name}",
            description=f"{cli.description(cls)}\n\n Presets:\n{listed}",
            args=list(rest),
            default=cls(base),
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=_registry(),
        )
        return dataclasses.replace(parsed, config=renamed(base, parsed.config))

    def run(self) -> int:
        """Trains."""
        if self.show_config:
            print(self.config)
            return 0
        distributed.initialize()
        import jax

        from papyrax.train.loop import fit
        from papyrax.train.sharding import size

        result = fit(self.config, show=True)
        if jax.process_index() == 0:
            out = terminal.console()
            table = Table.grid(padding=(0, 2))
            table.add_row("parameters", f"{size(result.params):,}")
            for split in dict.fromkeys(record["split"] for record in result.metrics):
                last = [r for r in result.metrics if r["split"] == split][-1]
                shown = "  ".join(f"{n} {v:.4g}" for n, v in last.items() if isinstance(v, float))
                table.add_row(f"{split} {last['step']}", shown)
            table.add_row("folder", str(result.folder))
            out.print(table)
            if result.stopped:
                out.print("stopped before its end; the same command goes on from here")
        return 0


def renamed(base: Any, changed: Any) -> Any:
    """`changed` without the options of parts that it has replaced by another name.

    The options of the preset are those of the preset's part; another part starts with its own
    defaults, unless the command line gives options for it too.
    """
    values = {}
    for field in dataclasses.fields(base):
        old: Any = getattr(base, field.name)
        new: Any = getattr(changed, field.name)
        if hasattr(old, "options") and new.name != old.name and new.options == old.options:
            values[field.name] = dataclasses.replace(new, options={})
    return dataclasses.replace(changed, **values)


def _registry() -> Any:
    """How tyro reads the fields that are JSON on the command line."""
    registry = tyro.constructors.ConstructorRegistry()

    def json_of(kind: Any, metavar: str) -> Any:
        def read(words: list[str]) -> Any:
            try:
                return config_lib.read(kind, json.loads(words[0]), "")
            except ValueError as error:
                raise ValueError(f"not JSON: {error}") from error
            except UserError as error:
                raise ValueError(str(error).removeprefix("config: ")) from error

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, dict | tuple),
            str_from_instance=lambda value: [json.dumps(value)],
        )

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        if info.type == dict[str, Any]:
            return json_of(dict[str, Any], "JSON")
        if info.type == Rules:
            return json_of(Rules, "JSON")
        return None

    return registry
