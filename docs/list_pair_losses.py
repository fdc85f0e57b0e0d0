"""Writes docs/pair_losses.md, the table of losses that compare examples, from their signatures.

python docs/list_pair_losses.py
"""

import inspect
import pathlib
import re
from typing import Any

from papyrax import losses
from papyrax.train.files import write_atomic

PAGE = pathlib.Path(__file__).with_name("pair_losses.md")
# By title of a table, what its losses take first after a state, and its introduction. Those that
# take embeddings stand in three of them, by what comes next.
GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "Embeddings and labels": (
        (),
        "Pairs of one class are positive, of two negative. In place of the labels most take "
        "several labels an example, a mask of pairs, or what a miner returns, and other examples "
        "to compare with in `references`.",
    ),
    "Embeddings, labels and proxies": (
        (),
        "An example is compared with vectors that stand for the classes, not with the batch.",
    ),
    "Two views, or more": (
        ("view1", "views", "student", "anchors", "scores1"),
        "Self-supervision: row i of one view and of the other show the same example.",
    ),
    "Two towers": (
        ("first", "queries"),
        "Two sides, such as images and texts or questions and passages.",
    ),
    "Embeddings alone": (("embeddings",), "How a batch is spread."),
}


def takes(fun: Any) -> list[str]:
    """The names of the arguments of a loss that are given by place, after a state."""
    parameters = inspect.signature(fun).parameters.values()
    names = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    return [n for n in names if n not in ("state", "states")]


def group(fun: Any) -> str | None:
    """The title of the table in which a loss stands, or None."""
    names = takes(fun)
    if names[:2] == ["embeddings", "labels"]:
        is_by_proxy = not {"proxies", "basis"}.isdisjoint(names)
        return "Embeddings, labels and proxies" if is_by_proxy else "Embeddings and labels"
    return next((title for title, (firsts, _) in GROUPS.items() if names[0] in firsts), None)


def row(name: str) -> str:
    """A loss in a line."""
    fun = getattr(losses, name)
    parameters = inspect.signature(fun).parameters
    doc = inspect.getdoc(fun) or ""
    source = re.search(r"arXiv (\d{4}\.\d{4,5})", doc)
    cells = [
        f"`{name}`",
        " ".join(doc.split("\n\n")[0].split()).rstrip("."),
        "yes" if "chunk_size" in parameters else "",
        "ring" if "ring" in parameters else "gathered" if "axis_name" in parameters else "",
        "yes" if next(iter(parameters)) in ("state", "states") else "",
        f"[{source[1]}](https://arxiv.org/abs/{source[1]})" if source else "",
    ]
    return f"| {' | '.join(cells)} |"


def render() -> str:
    """The page."""
    found: dict[str, list[str]] = {title: [] for title in GROUPS}
    for name in sorted(losses.__all__):
        fun = getattr(losses, name)
        title = group(fun) if name.endswith("_loss") and inspect.isfunction(fun) else None
        if title is not None:
            found[title].append(name)
    parts = [
        "# Losses that compare examples",
        "Written by `python docs/list_pair_losses.py`; changes by hand are lost. Those of logits "
        "and labels are in [losses.md](losses.md), and [pytorch_metric_learning.md]"
        "(pytorch_metric_learning.md) says what stands for what in that library.",
        "- **chunks**: `chunk_size` keeps the matrix of pairs out of memory.\n"
        "- **devices**: with `axis_name`, inside `jax.shard_map`, an example meets those of all "
        'devices: "gathered" brings them together, "ring" (`ring=True`) also sends them round, so '
        "that no device holds more than its own pairs.\n"
        "- **state**: the first argument and the second result; an array, or a tuple of arrays.",
    ]
    head = "| loss | | chunks | devices | state | source |\n|---|---|---|---|---|---|\n"
    for title, names in found.items():
        table = head + "\n".join(map(row, names))
        parts += [f"## {title}", GROUPS[title][1], table]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    write_atomic(PAGE, render())
