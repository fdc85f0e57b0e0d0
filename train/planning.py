"""What a training run needs on machines that are not here.

The real training step is compiled ahead of time for a slice of TPUs that is only described, or for
virtual CPU devices, and the compiled program is read: memory, arithmetic, communication. Nothing
runs on a device and no data is read beyond its description.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from papyrax.train import feed, objectives, parts, sharding
from papyrax.train.config import Config, validate
from papyrax.train.data import EMBEDDED, Spec
from papyrax.train.errors import UserError
from papyrax.train.programs import collectives, flops
from papyrax.train.step import build

GIB = 2**30

HBM = {
    "TPU v2": 16 * GIB,
    "TPU v3": 32 * GIB,
    "TPU v4": 32 * GIB,
    "TPU v5 lite": 16 * GIB,
    "TPU v5": 95 * GIB,
    "TPU v6 lite": 32 * GIB,
    "TPU7x": 192 * GIB,
}
"""Bytes of memory of a chip, by JAX's name of it; the devices of a chip share them."""

SERIES = ("v2", "v3", "v4", "v5e", "v5p", "v6e", "tpu7x")

_ENVIRONMENT = {
    # Another process may use libtpu, and nobody is asked what machine this is.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on the device that holds most.

    Attributes:
      parameters: parameters.
      optimizer: the optimizer's state.
      other: averaged parameters, the model's and the loss's other state, counters.
      batch: the device's part of a batch.
      padding: what the layout of these in memory adds; None where the step did not compile, as all
        that follow.
      outputs: results that are not written in place of the old state.
      temporaries: activations, gradients and whatever else lives during a step.
      code: the program.
      total: the sum.
    """

    parameters: int
    optimizer: int
    other: int
    batch: int
    padding: int | None = None
    outputs: int | None = None
    temporaries: int | None = None
    code: int | None = None
    total: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training step needs.

    Attributes:
      topology: what it was compiled for.
      device: JAX's name of a device.
      devices: how many the mesh has.
      chips: how many chips these are.
      mesh: devices along `data` and `model`.
      step: "train", or "refresh" for the larger step that also estimates curvature.
      refresh_every: steps from one refresh to the next; None where there is none.
      num_parameters: numbers in the parameters.
      batch: examples a step.
      unit: "token" or "example".
      units: of them a step.
      memory: bytes of a device.
      hbm: bytes that a device has; None for CPUs.
      fits: whether the step fits; None for CPUs, whose memory is not known.
      why_not: the compiler's line where it does not.
      flops: multiplications and additions of the matrix products and convolutions of a step, over
        all devices; they are counted in the program before it is partitioned.
      kernels: calls of Pallas kernels in a step, whose arithmetic is not counted in `flops`.
      at_least: whether a loop whose length is not known was counted once.
      collectives: by kind, {"count", "bytes"} a step and device; None where it did not compile.
      lower_seconds: time to trace and lower.
      compile_seconds: time to compile.
      notes: what else the reader has to know.
    """

    topology: str
    device: str
    devices: int
    chips: int
    mesh: dict[str, int]
    step: str
    refresh_every: int | None
    num_parameters: int
    batch: int
    unit: str
    units: int
    memory: Memory
    hbm: int | None
    fits: bool | None
    why_not: str | None
    flops: int
    kernels: int
    at_least: bool
    collectives: dict[str, dict[str, int]] | None
    lower_seconds: float
    compile_seconds: float
    notes: tuple[str, ...]


def plan(config: Config, topology: str) -> Plan:
    """Compiles the training step of a config for a topology and reads what it needs.

    Where the optimizer estimates curvature at intervals, the step that does is compiled.

    Args:
      config: the run. Its mesh fills the topology unless it says how many devices it takes.
      topology: a slice of TPUs such as "v5e:16x16", or "cpu:8" for virtual CPU devices.

    Returns:
      The plan.

    Raises:
      UserError: where the topology is unknown, libtpu is missing, or the config does not fit it.
    """
    validate(config)
    devices = topology_devices(topology)
    mesh = sharding.make_mesh(config.mesh, devices)
    spec, notes = describe_data(config)
    built = build(config, mesh, spec)
    start = time.perf_counter()
    traced: Any = built.train_step(built.refreshes)
    try:
        lowered = traced.lower(built.state, built.batch)
    except (ValueError, NotImplementedError) as error:
        hint = ""
        if "automatically partitioned" in str(error):
            hint = """ Or take XLA's: --attention.options '{"implementation": "xla_chunked"}'"""
        raise UserError(f"the step does not lower for {topology}: {_line(error)}{hint}") from error
    middle = time.perf_counter()
    compiled, why_not = _compile(lowered, topology)
    end = time.perf_counter()

    used = list(mesh.devices.flat)
    chips = len({_chip(device) for device in used})
    hbm = device_memory(devices)
    memory = _memory(built.state, built.batch, compiled)
    fits = None if hbm is None else compiled is not None and (memory.total or 0) <= hbm
    if compiled is not None and fits is False:
        why_not = "the step compiles, but its arrays and code are more than the memory"
    work = flops(lowered.compiler_ir("stablehlo"))
    text = spec.task == "language_model"
    length = math.prod(built.batch["labels"].shape[1:]) if text else 1
    return Plan(
        topology=topology,
        device=used[0].device_kind,
        devices=len(used),
        chips=chips,
        mesh=dict(mesh.shape),
        step="refresh" if built.refreshes else "train",
        refresh_every=parts.curvature_plan(config)[1] if built.refreshes else None,
        num_parameters=sharding.size(built.state.params),
        batch=config.data.batch_size,
        unit="token" if text else "example",
        units=config.data.batch_size * length,
        memory=memory,
        hbm=hbm,
        fits=fits,
        why_not=why_not,
        flops=work.flops,
        kernels=work.kernels,
        at_least=work.at_least,
        collectives=None if compiled is None else collectives(compiled.as_text()),
        lower_seconds=middle - start,
        compile_seconds=end - middle,
        notes=notes,
    )


def _chip(device: Any) -> Any:
    return tuple(device.coords) if hasattr(device, "coords") else device.id


def device_memory(devices: Sequence[Any]) -> int | None:
    """Bytes that each of the devices of a topology has; None where that is not known."""
    chip = HBM.get(devices[0].device_kind)
    return None if chip is None else chip * len({_chip(d) for d in devices}) // len(devices)


def _line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _compile(lowered: Any, topology: str) -> tuple[Any, str | None]:
    """The compiled program, or None and the line that says why it takes too much memory."""
    try:
        with _uncached(topology):
            return lowered.compile(), None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None, _line(error).partition("RESOURCE_EXHAUSTED: ")[2]
        raise UserError(f"the step does not compile for {topology}: {_line(error)}") from error
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"the step does not compile for {topology}: {_line(error)}") from error


@contextlib.contextmanager
def _uncached(topology: str) -> Iterator[None]:
    """Keeps programs for TPUs that are not here out of JAX's cache, which cannot read them back."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    if not topology.startswith("cpu"):
        jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def topology_devices(topology: str) -> list[Any]:
    """The devices of a topology.

    Args:
      topology: "v5e:16x16", "cpu:8", ...

    Returns:
      The devices; those of TPUs are only described.

    Raises:
      UserError: where it is unknown, or cannot be described here.
    """
    series, _, layout = topology.partition(":")
    if series == "cpu" and layout.isdecimal() and int(layout):
        return _cpus(int(layout))
    takes = f"takes one of {', '.join(SERIES)} and its layout, such as v5e:16x16, or cpu:8"
    if series not in SERIES:
        raise UserError(f"topology: got {topology!r}, {takes}")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"topology: {topology!r} needs libtpu: pip install 'papyrax[aot]'; cpu:8 does not"
        )
    from jax.experimental import topologies

    # Without this JAX describes the two cores of a v4 as two devices, which it does not on a v4.
    options = {"chip_config_name": "megacore"} if series == "v4" else {}
    try:
        with _environment():
            described: Any = topologies.get_topology_desc(
                platform="tpu", topology_name=topology, **options
            )
    except (RuntimeError, NotImplementedError) as error:  # JAX's own are RuntimeErrors
        raise UserError(f"topology: got {topology!r}, {takes}: {_line(error)}") from error
    return list(described.devices)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What libtpu reads when it is loaded, where the user has not set it."""
    added = {key: value for key, value in _ENVIRONMENT.items() if key not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


def _cpus(number: int) -> list[Any]:
    """Virtual CPU devices; JAX makes them when it starts, and not later."""
    with contextlib.suppress(RuntimeError):  # it has started
        settings: Any = jax.config
        if settings.jax_num_cpu_devices < number:
            jax.config.update("jax_num_cpu_devices", number)
    devices = jax.devices("cpu")
    if len(devices) < number:
        raise UserError(
            f"topology: got 'cpu:{number}', takes at most cpu:{len(devices)} in this process; set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={number} before it starts"
        )
    return devices[:number]


def describe_data(config: Config) -> tuple[Spec, tuple[str, ...]]:
    """What the data set holds, without its files where TFDS knows it by itself.

    Args:
      config: the run.

    Returns:
      The description, and notes on what it rests on.

    Raises:
      UserError: where the data set is unknown, or its files are needed.
    """
    try:
        return feed.open_split(config).spec, ()
    except UserError as error:
        if "is not prepared" not in str(error) or config.data.name in EMBEDDED:
            raise
        # Losses with a memory have a row for every example, and only the files say how many.
        if objectives.needs_index(config):
            raise
        spec = _undelivered(config)
        return spec, (f"{spec.name} is not prepared here; shapes are those that TFDS describes",)


def _undelivered(config: Config) -> Spec:
    """The description of a set that TFDS knows and that is not on disk."""
    import tensorflow_datasets as tfds

    from papyrax.train.data.pipeline import Randomness
    from papyrax.train.data.spec import decoder
    from papyrax.train.data.transforms import as_random

    data = config.data
    name, side = data.name, data.options.get("image_size")
    try:
        info = tfds.builder(name, try_gcs=False).info
    except Exception as error:
        raise UserError(f"{name}: TFDS does not describe it: {_line(error)}") from error
    decode = decoder(name, info, side)
    record = {
        key: np.zeros([side or 1 if n is None else n for n in feature.shape], feature.np_dtype)
        for key, feature in info.features.items()
        if key in (decode.inputs, decode.labels)
    }
    example = decode(record)
    for number, transform in enumerate(data.transforms):
        function = as_random(parts.find("transform", transform))
        example = function(example, Randomness(config.seed).at(0, 0, number))
    return Spec(
        name=name,
        split=data.options.get("split", "train"),
        task=decode.task,
        num_examples=0,
        features={
            k: jax.ShapeDtypeStruct(np.shape(v), np.asarray(v).dtype) for k, v in example.items()
        },
        num_classes=decode.num_classes,
        vocab_size=decode.vocab_size,
    )


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of abstract arrays on one device, by their shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _memory(state: Any, batch: Any, compiled: Any) -> Memory:
    own = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    known = Memory(
        parameters=device_bytes(own.pop("params")),
        optimizer=device_bytes(own.pop("optimizer")),
        other=device_bytes(own),
        batch=device_bytes(batch),
    )
    stats = None if compiled is None else compiled.memory_analysis()
    if stats is None:
        return known
    arguments = known.parameters + known.optimizer + known.other + known.batch
    rest = collections.OrderedDict(
        # Arguments that the program does not read are not among its arguments.
        padding=max(stats.argument_size_in_bytes - arguments, 0),
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )
    return dataclasses.replace(known, **rest, total=arguments + sum(rest.values()))
