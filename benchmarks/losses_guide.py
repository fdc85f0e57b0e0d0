"""Which loss has which property, and what it costs: computed, and written as docs/losses.md.

    python benchmarks/losses_guide.py [--repeats N] [--write]

Properties are looked for in float64 on sampled scores of three classes (two for preferences). Costs
are processor time of value and gradient over that of optax's softmax cross-entropy right before and
after, in one process, medians. `--write` replaces docs/losses.md; without it the page is printed.
"""

import argparse
import inspect
import os
import pathlib
import platform
from typing import Any

import jax
import optax
from guide.costs import costs
from guide.entries import CLASSIFICATION, NOISY, PREFERENCE, REGRESSION, WHOLE_BATCH
from guide.properties import UNKNOWN, properties, regression_properties, yes

from papyrax import losses
from papyrax.train.benchmarks.turns import keep_memory
from papyrax.train.files import write_atomic

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "losses.md"
TEXT = HERE / "guide" / "page.txt"


def inputs(name: str) -> str:
    """What a loss must be given."""
    parameters = inspect.signature(getattr(losses, name)).parameters.values()
    return ", ".join(p.name for p in parameters if p.default is p.empty)


def stateful(name: str) -> str:
    """Whether a loss takes a state and returns the next."""
    return yes("state" in inspect.signature(getattr(losses, name)).parameters)


def table(entries: tuple[Any, ...], found: dict[str, dict[str, str]], cost: dict[str, str]) -> str:
    """A table of losses in Markdown."""
    columns = [*next(iter(found.values()))]
    head = ["loss", "takes", *columns, "state", "cost", "for"]
    lines = [head, ["---"] * len(head)]
    for e in entries:
        row = [f"`{e.name}`", inputs(e.name), *found[e.name].values()]
        lines.append([*row, stateful(e.name), cost[e.name], e.use])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(repeats: int) -> str:
    """The whole of docs/losses.md."""
    groups = {"classification": CLASSIFICATION, "noisy": NOISY, "preference": PREFERENCE}
    parts = {}
    for title, entries in groups.items():
        found = {e.name: properties(e) for e in entries}
        parts[title] = table(entries, found, costs(entries, repeats))
    found = {e.name: regression_properties(e) for e in REGRESSION}
    parts["regression"] = table(REGRESSION, found, costs(REGRESSION, repeats))
    lines = [["loss", "takes", "state", "for"], ["---"] * 4]
    lines += [[f"`{n}`", inputs(n), stateful(n), use] for n, use in WHOLE_BATCH.items()]
    return TEXT.read_text().format(
        **parts,
        whole="\n".join("| " + " | ".join(line) + " |" for line in lines),
        unknown=UNKNOWN,
        classes="three (preferences: two)",
        jax=jax.__version__,
        optax=optax.__version__,
        machine=platform.machine(),
        cores=os.cpu_count(),
        device=jax.devices()[0].device_kind,
    )


def main() -> None:
    """Compute everything, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--write", action="store_true", help="replace docs/losses.md")
    a = parser.parse_args()
    keep_memory()
    text = page(a.repeats)
    if a.write:
        write_atomic(PAGE, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
