"""Reads compiled programs: the arithmetic of StableHLO, the communication of XLA's text."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Work:
    """Arithmetic of a program.

    Attributes:
      flops: multiplications and additions in matrix products and convolutions.
      kernels: calls of Pallas kernels, whose arithmetic is unknown.
      at_least: whether a loop of unknown length was counted once.
    """

    flops: int = 0
    kernels: int = 0
    at_least: bool = False

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flops + other.flops,
            self.kernels + other.kernels,
            self.at_least or other.at_least,
        )

    def __mul__(self, times: int) -> "Work":
        return Work(self.flops * times, self.kernels * times, self.at_least)


def flops(module: Any) -> Work:
    """Counts the arithmetic of a lowered program, loops as often as they run.

    XLA's own `cost_analysis` counts the body of a loop once, so that layers under `scan` would
    count as one layer.

    Args:
      module: a StableHLO module, as `jax.stages.Lowered.compiler_ir` gives it.

    Returns:
      The work of the whole program, over all devices.
    """
    functions = {
        op.attributes["sym_name"].value: op
        for op in module.body.operations
        if op.operation.name == "func.func"
    }

    @functools.cache
    def function(name: str) -> Work:
        return inside(functions[name])

    def inside(op: Any) -> Work:
        found = (operation(x) for r in op.operation.regions for b in r.blocks for x in b.operations)
        return sum(found, Work())

    def operation(op: Any) -> Work:
        name = op.operation.name
        if name in ("stablehlo.dot_general", "stablehlo.convolution"):
            return Work(_multiply_adds(op, name))
        if name == "func.call":
            return function(op.attributes["callee"].value)
        if name == "stablehlo.custom_call":
            target = op.attributes["call_target_name"].value
            return Work(kernels=int(target in ("tpu_custom_call", "mosaic_gpu_v2")))
        if name == "stablehlo.while":
            times = _loop_length(op)
            return inside(op) * (times or 1) + Work(at_least=times is None)
        if name in ("stablehlo.case", "stablehlo.if"):
            branches = [
                sum((operation(x) for b in r.blocks for x in b.operations), Work())
                for r in op.operation.regions
            ]
            return max(branches, key=lambda work: (work.flops, work.kernels))
        return inside(op)

    return function("main")


def _multiply_adds(op: Any, name: str) -> int:
    left, right = (x.type.shape for x in list(op.operation.operands)[:2])
    result = math.prod(op.operation.results[0].type.shape)
    from jax.extend.mlir.dialects import stablehlo

    if name == "stablehlo.dot_general":
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        return 2 * result * math.prod(left[i] for i in numbers.lhs_contracting_dimensions)
    shape = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    return 2 * result * math.prod(right) // max(right[shape.kernel_output_feature_dimension], 1)


def _loop_length(op: Any) -> int | None:
    """How often a loop runs that counts from 0 up to a constant, as those of `scan` do."""
    last = list(op.operation.regions[0].blocks[0].operations)[-1]
    compare = last.operation.operands[0].owner
    if getattr(compare, "name", "") != "stablehlo.compare":
        return None
    limit = compare.operands[1].owner
    if getattr(limit, "name", "") != "stablehlo.constant":
        return None
    found = re.search(r"dense<(\d+)> : tensor<[su]?i\d+>", str(limit.attributes["value"]))
    return (
        int(found[1]) if found and "LT" in str(compare.attributes["comparison_direction"]) else None
    )


_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_CALLS = re.compile(r"(body|condition|calls|to_apply|\w+_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Counts the collectives of a compiled program, those in loops as often as they run.

    Args:
      text: the program, as `jax.stages.Compiled.as_text` gives it.

    Returns:
      By kind, how many a device takes part in and the bytes of their arrays, those on one device:
      the larger of what goes in and what comes out. A branch that may not be taken counts too, and
      a loop of unknown length once.
    """
    computations, entry = _computations(text)
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def visit(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            found = _COLLECTIVE.search(line)
            if found:
                kind, size = _collective(line, found)
                if name.startswith("all-reduce-scatter"):  # XLA's for TPU: both in one
                    kind = "reduce-scatter"
                totals[kind].update(count=times, bytes=times * size)
            for called, number in _called(line, computations):
                visit(called, times * number)

    visit(entry, 1)
    return {kind: dict(totals[kind]) for kind in KINDS if kind in totals}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by name, and the name of the first to run."""
    found: dict[str, list[str]] = {}
    entry = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY") else entry
            found[name] = lines = []
        else:
            lines.append(line)
    return found, entry


def _called(line: str, computations: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """The computations that a line runs, and how often."""
    if "-done(" in line or "async-update(" in line:
        return  # what it ends has been counted where it starts
    names = dict(_CALLS.findall(line))
    trips = _TRIPS.search(line)
    times = int(trips[1]) if trips else _limit(computations.get(names.get("condition", ""), ()))
    for how, name in names.items():
        if how != "to_apply" or " call(" in line:  # not the addition of a reduction
            yield name, times if how in ("body", "condition") else 1
    branches = _BRANCHES.search(line)
    for name in branches[1].split(",") if branches else ():
        yield name.strip().lstrip("%"), 1


def _limit(condition: Any) -> int:
    """The constant that a loop's condition compares its counter with, or 1."""
    numbers = [m[1] for line in condition if (m := re.search(r" constant\((\d+)\)", line))]
    return int(numbers[0]) if len(numbers) == 1 else 1


def _collective(line: str, found: re.Match[str]) -> tuple[str, int]:
    shapes, kind, start = found.groups()
    sizes = [_bytes(*array) for array in _ARRAY.findall(shapes)]
    if start and kind == "all-gather":  # operands, then results
        sizes = sizes[len(sizes) // 2 :]
    elif start and kind == "collective-permute":  # an operand, a result, counters
        sizes = sizes[1:2]
    if kind == "reduce-scatter":
        return kind, sum(sizes) * _group(line)
    return kind, sum(sizes)


def _group(line: str) -> int:
    """How many devices a collective brings together, in each of XLA's ways to write it down."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", line):  # [groups, devices of each]
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[([^]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        # An axis, or the part of one: 'x':(what lies before it)its size.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[name]) for name, part in axes)
    return 1


def _bytes(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return math.ceil(bits * math.prod(int(n) for n in shape.split(",") if n) / 8)
