"""Where arrays live: a mesh of `data` by `model` devices, and rules from paths to its axes.

Every array of the state (parameters, their moving average, the optimizer's moments) has a path such
as "params/stack/blocks/0/attention/query/kernel" or "optimizer/0/mu/head/kernel". The first rule
whose pattern is found in the path says which mesh axes split its last dimensions; moments therefore
follow their parameters, and stacked layers, which have one dimension more in front, theirs.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from papyrax.train.config import Mesh as MeshConfig
from papyrax.train.errors import UserError

Rules = Sequence[tuple[str, Sequence[str | None]]]

AXES = ("data", "model")

RULES: Rules = (
    (r"(query|key|value)/kernel$", (None, "model", None)),
    (r"out/kernel$", ("model", None, None)),
    (r"up/kernel$", (None, "model")),
    (r"up/bias$", ("model",)),
    (r"down/kernel$", ("model", None)),
    (r"(hidden/\d+|head)/kernel$", (None, "model")),
    (r"(hidden/\d+|head)/bias$", ("model",)),
    (r"tokens/embedding$", ("model", None)),
    (r"conv\d/kernel$", (None, None, None, "model")),
)
"""How the models of `papyrax.train.models` are split; `mesh.rules` of a config comes first."""


def path_name(path: Sequence[Any]) -> str:
    """A path of `jax.tree_util` as "a/b/0"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def matches(pattern: str, tree: Any) -> Any:
    """The tree with, at each leaf, whether `pattern` is found in its path.

    >>> matches("kernel$", {"head": {"kernel": 0, "bias": 0}})
    {'head': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: re.search(pattern, path_name(path)) is not None, tree
    )


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a config.

    Args:
      config: `data` by `model` devices.
      devices: the devices; all of `jax.devices()` by default. They may be those of a topology that
        is only described (`jax.experimental.topologies`).

    Returns:
      A mesh with the axes `data` and `model`.

    Raises:
      UserError: where the devices are too few, or are not what several processes need.
    """
    devices = list(jax.devices() if devices is None else devices)
    model = config.model
    data = config.data if config.data is not None else max(len(devices) // model, 1)
    needed = data * model
    if needed > len(devices):
        raise UserError(
            f"mesh: got {data} x {model} (data x model), takes at most the "
            f"{len(devices)} device{'s' if len(devices) > 1 else ''} there are"
        )
    chosen = devices[:needed]
    everyone = {d.process_index for d in devices}
    if {d.process_index for d in chosen} != everyone:
        raise UserError(
            f"mesh: got {data} x {model} (data x model), which leaves processes without a device; "
            f"takes all {len(devices)}"
        )
    return Mesh(np.asarray(chosen).reshape(data, model), AXES)


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> PartitionSpec:
    """How one array is split.

    Args:
      path: its path.
      shape: its shape.
      mesh: the mesh.
      rules: patterns and axes; the first whose pattern is found counts.

    Returns:
      The partition, of the last dimensions; a dimension that its axis does not divide, and an array
      of fewer dimensions than the rule has, stay whole.

    >>> from papyrax.train.config import Mesh
    >>> tuple(spec("optimizer/0/mu/head/kernel", (16, 10), make_mesh(Mesh()), RULES))
    (None, 'model')
    """
    for pattern, axes in rules:
        if re.search(pattern, path):
            front = len(shape) - len(axes)
            if front < 0:
                break
            fits = [
                axis if axis is not None and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape[front:])
            ]
            return PartitionSpec(*[None] * front, *fits)
    return PartitionSpec()


def check_rules(rules: Rules) -> None:
    """Raises `UserError` for a pattern that is not one, or an axis that the mesh has not."""
    for pattern, axes in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"mesh.rules: {pattern!r} is not a pattern: {error}") from error
        for axis in axes:
            if axis not in (*AXES, None):
                raise UserError(f"mesh.rules: got axis {axis!r}, takes 'data', 'model' or null")


def shardings(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """The sharding of every array of a tree.

    Args:
      tree: arrays, or `jax.ShapeDtypeStruct`.
      mesh: the mesh.
      rules: rules that come before `RULES`.

    Returns:
      The tree of `NamedSharding`.
    """
    every = (*rules, *RULES)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(mesh, spec(path_name(path), x.shape, mesh, every)), tree
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def data_shard(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """Which part of each batch a process loads.

    Processes that differ only along `model` load the same part.

    Args:
      mesh: the mesh.
      process: the process; this one by default.

    Returns:
      The part's index and the number of parts.
    """
    process = jax.process_index() if process is None else process
    rows: dict[int, set[int]] = {}
    for (row, _), device in np.ndenumerate(mesh.devices):
        rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(r)) for r in rows.values()})
    whole = sum(len(part) for part in parts) == mesh.shape["data"]
    if not whole or len({len(part) for part in parts}) != 1:
        raise UserError(
            "mesh: the processes do not share the batch in equal parts; change mesh.model"
        )
    return parts.index(tuple(sorted(rows[process]))), len(parts)


def put(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch of which each process has loaded its part.

    Args:
      batch: this process's rows, arrays [rows, ...].
      mesh: the mesh.

    Returns:
      Arrays [batch, ...] over the mesh's `data` axis.
    """
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return {k: jax.device_put(v, sharding) for k, v in batch.items()}
    parts = data_shard(mesh)[1]
    return {
        k: jax.make_array_from_process_local_data(
            sharding, np.asarray(v), (v.shape[0] * parts, *v.shape[1:])
        )
        for k, v in batch.items()
    }


def size(tree: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
