"""What a run is: one tree of frozen dataclasses that prints, is saved with the run and loads back.

Parts (model, attention, loss, optimizer, schedule) are a name and its options: the name is looked
up in the public namespaces (see `papyrax.train.parts`), the options are checked against its
signature, so a new part is usable without a change here.
"""

import dataclasses
import difflib
import json
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from papyrax.train.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the library by name.

    Attributes:
      name: its public name, or a dotted path to your own ("package.module.name").
      options: its hyper-parameters by name.
    """

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer and what surrounds it.

    Attributes:
      name: an optimizer of `papyrax.optim` or `optax`, or a dotted path.
      learning_rate: the peak of the schedule.
      clip_norm: global norm that gradients are clipped to.
      decayed: pattern of the parameter paths that weight decay applies to, where the optimizer
        takes a `mask`.
      options: its hyper-parameters by name.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    clip_norm: float | None = None
    decayed: str = r"(kernel|embedding)$"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Curvature:
    """How the curvature is estimated for an optimizer that asks for it; unused by the others.

    Attributes:
      name: an estimator of `papyrax.curvature.value_grad_and_diag`: "hutchinson", "gnb" or
        "exact_diagonal", or a dotted path; None takes that of the optimizer's authors.
      every: steps from one estimate to the next; None as the optimizer's authors do.
      fraction: part of the batch that it is estimated on.
      options: the estimator's hyper-parameters by name.
    """

    name: str | None = None
    every: int | None = None
    fraction: float = 1.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The course of the learning rate.

    Attributes:
      name: a schedule of `optax.schedules`, with or without its ending `_schedule`, or a dotted
        path. The engine fills in the learning rate (`value`, `init_value` or `peak_value`) and the
        length (`decay_steps` or `transition_steps`); `options` overrides them.
      warmup: steps of a linear rise from zero.
      options: further arguments of the schedule.
    """

    name: str = "constant"
    warmup: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples.

    Attributes:
      name: a data set of `papyrax.train.data`.
      batch_size: examples a step, over all devices and microbatches.
      transforms: augmentations of the training split, in order: names of `papyrax.train.data`, or
        dotted paths.
      options: further arguments of `papyrax.train.data.load`.
    """

    name: str = "digits"
    batch_size: int = 128
    transforms: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How the devices are laid out.

    Attributes:
      data: devices along the batch; None takes all that `model` leaves.
      model: devices along the parameters.
      rules: pairs of a pattern and the mesh axes of the last dimensions of every array whose path
        it matches, such as ["head/kernel$", [null, "model"]]; they come before the rules of
        `papyrax.train.sharding`. A dimension that its axis does not divide is not split.
    """

    data: int | None = None
    model: int = 1
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When a run is saved.

    Attributes:
      every: steps between two checkpoints; the last step is always saved.
      keep_last: how many of the newest are kept.
      keep_best: how many of the best are kept.
      best: the measure of the test split that says which is best.
    """

    every: int = 100
    keep_last: int = 2
    keep_best: int = 1
    best: Literal["loss", "accuracy"] = "loss"


@dataclasses.dataclass(frozen=True)
class Eval:
    """When a run is measured on data it is not trained on.

    Attributes:
      every: steps between two evaluations; the last step is always evaluated. 0: never.
      split: the split.
      batches: batches of the split that are used; None takes all.
    """

    every: int = 100
    split: str = "test"
    batches: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
      model: a model of `papyrax.train.models`, or a dotted path.
      attention: an operator of `papyrax.attention` or `jax.nn`; unused by models without it.
      loss: a loss of `papyrax.losses` or `optax.losses`.
      optimizer: the optimizer.
      curvature: how curvature is estimated for an optimizer that asks for it.
      schedule: the learning rate's course.
      data: the examples.
      mesh: the devices.
      checkpoint: when the run is saved.
      eval: when the run is measured.
      steps: length of the run.
      accumulate: microbatches that a batch is split into, one after the other.
      precision: the dtype that models compute in; parameters are float32.
      ema: decay of a moving average of the parameters, which is then what is evaluated.
      log_every: steps between two lines of metrics.
      seed: decides parameters, data order and every random draw.
      out: the run's folder.
    """

    model: Part = Part("mlp")
    attention: Part = Part("dot_product_attention")
    loss: Part = Part("softmax_cross_entropy_with_integer_labels")
    optimizer: Optimizer = Optimizer()
    curvature: Curvature = Curvature()
    schedule: Schedule = Schedule()
    data: Data = Data()
    mesh: Mesh = Mesh()
    checkpoint: Checkpoint = Checkpoint()
    eval: Eval = Eval()
    steps: int = 1000
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    ema: float | None = None
    log_every: int = 10
    seed: int = 0
    out: str | None = None

    def __str__(self) -> str:
        return json.dumps(to_json(self), indent=2)


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain dicts, lists, strings and numbers."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def from_json(data: Any) -> Config:
    """The inverse of `to_json`; a key that is left out takes its default.

    Raises:
      UserError: naming the key that is unknown or whose value has the wrong type.

    >>> from_json({"steps": 3, "model": {"name": "mlp"}}).model
    Part(name='mlp', options={})
    >>> from_json({"stepz": 3})
    Traceback (most recent call last):
    papyrax.train.errors.UserError: stepz: no such key; did you mean 'steps'?
    """
    config: Config = read(Config, data, "")
    return config


def load(path: str | pathlib.Path) -> Config:
    """Reads a saved config.

    Raises:
      UserError: where the file cannot be read or is not a config.
    """
    try:
        data = json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}") from error
    try:
        return from_json(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def validate(config: Config) -> None:
    """Raises `UserError` unless the numbers of a config make sense together."""
    least = {
        "steps": 0,
        "accumulate": 1,
        "log_every": 1,
        "data.batch_size": 1,
        "curvature.every": 1,
        "schedule.warmup": 0,
        "mesh.data": 1,
        "mesh.model": 1,
        "checkpoint.every": 1,
        "checkpoint.keep_last": 1,
        "checkpoint.keep_best": 0,
        "eval.every": 0,
        "eval.batches": 1,
        "seed": 0,
    }
    for path, low in least.items():
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key)
        if value is not None and value < low:
            raise UserError(f"{path}: got {value}, takes {low} or more")
    if not config.optimizer.learning_rate >= 0:
        raise UserError(
            f"optimizer.learning_rate: got {config.optimizer.learning_rate}, takes 0 or more"
        )
    if config.optimizer.clip_norm is not None and not config.optimizer.clip_norm > 0:
        raise UserError(
            f"optimizer.clip_norm: got {config.optimizer.clip_norm}, takes a number above 0"
        )
    if not 0 < config.curvature.fraction <= 1:
        raise UserError(f"curvature.fraction: got {config.curvature.fraction}, takes (0, 1]")
    if config.ema is not None and not 0 <= config.ema < 1:
        raise UserError(f"ema: got {config.ema}, takes a number in [0, 1)")
    if config.data.batch_size % config.accumulate:
        raise UserError(
            f"accumulate: got {config.accumulate}, takes a divisor of data.batch_size, "
            f"{config.data.batch_size}"
        )


def changed(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys whose values differ between two configs, the run's folder aside.

    >>> list(changed(Config(), Config(seed=1, schedule=Schedule(warmup=5))))
    ['schedule.warmup', 'seed']
    """
    for field in dataclasses.fields(old):
        a, b = getattr(old, field.name), getattr(new, field.name)
        path = prefix + field.name
        if dataclasses.is_dataclass(a):
            yield from changed(a, b, path + ".")
        elif a != b and path != "out":
            yield path


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    types.NoneType: "null",
    dict: "an object",
    tuple: "a list",
}


def _takes(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(map(_takes, typing.get_args(kind)))
    return _NAMES.get(typing.get_origin(kind) or kind, "an object")


def read(kind: Any, data: Any, path: str) -> Any:
    """`data`, as JSON gives it, as a value of the type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    wrong = UserError(f"{path or 'config'}: got {json.dumps(data)}, takes {_takes(kind)}")
    if kind is Any:
        return data
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(data, Mapping):
            raise wrong
        return _read_fields(kind, data, path)
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return read(option, data, path)
            except UserError:
                continue
        raise wrong
    if origin is Literal:
        if data in arguments:
            return data
        raise wrong
    if origin is dict:
        if isinstance(data, Mapping):
            return dict(data)
        raise wrong
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise wrong
        if arguments[-1] is Ellipsis:
            return tuple(read(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(data))
        if len(data) != len(arguments):
            raise wrong
        return tuple(read(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(arguments, data)))
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise wrong


def _read_fields(kind: type, data: Mapping[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(kind)
    prefix = path + "." if path else ""
    for key in data:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"takes {', '.join(hints)}"
            raise UserError(f"{prefix}{key}: no such key; {hint}")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{prefix}{missing[0]}: is missing; takes {_takes(hints[missing[0]])}")
    return kind(**{key: read(hints[key], value, prefix + key) for key, value in data.items()})
