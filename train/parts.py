"""Parts by name: a config's words become functions of the public namespaces.

A part that appears in one of these namespaces is usable at once; one of your own is named by its
dotted path. The options of a part are checked against its signature before anything is built.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from papyrax.train.config import Config
from papyrax.train.errors import UserError

NAMESPACES: dict[str, tuple[str, ...]] = {
    "model": ("papyrax.train.models",),
    "attention": ("papyrax.attention", "jax.nn"),
    "loss": ("papyrax.losses", "optax.losses"),
    "optimizer": ("papyrax.optim", "optax", "optax.contrib"),
    "schedule": ("optax.schedules",),
    "curvature": ("papyrax.curvature",),
    "transform": ("papyrax.train.data.transforms",),
}
"""Where the parts of each kind are looked up, first come first served."""


def _is_transformation(function: Callable[..., Any]) -> bool:
    """Whether a function returns an optax transformation, as far as its annotation says."""
    returned = getattr(function, "__annotations__", {}).get("return")
    return returned is None or "GradientTransformation" in str(returned)


_LOOKS: dict[str, Callable[[str, list[str], Any], bool]] = {
    "attention": lambda name, takes, part: takes[:3] == ["query", "key", "value"],
    "optimizer": lambda name, takes, part: "learning_rate" in takes and _is_transformation(part),
    "schedule": lambda name, takes, part: name.endswith(("_schedule", "_decay")),
    "transform": lambda name, takes, part: takes[:1] == ["example"],
}
"""What tells the parts of a kind from what else lives in its namespaces."""

_KEYS = {"transform": "data.transforms"}


def canonical(name: str) -> str:
    """The spelling that names are compared in: "Dot-Product" is "dot_product"."""
    return name.replace("-", "_").casefold()


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, of a class's constructor; none where it hides them."""
    is_class = inspect.isclass(function)
    try:
        found = list(
            inspect.signature(function.__init__ if is_class else function).parameters.values()
        )
    except (TypeError, ValueError):
        return []
    named = [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return named[1:] if is_class else named


def required(function: Callable[..., Any]) -> int:
    """How many arguments a function cannot be called without."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(p.default is p.empty and p.kind not in variadic for p in found)


def _public(namespace: str) -> dict[str, Any]:
    module = importlib.import_module(namespace)
    names = getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of names that were not asked for
        return {name: getattr(module, name) for name in names}


@functools.cache
def available(kind: str) -> dict[str, Any]:
    """Every part of a kind by its public name.

    Args:
      kind: a key of `NAMESPACES`.

    Returns:
      Names and parts, in the order they are looked up.
    """
    looks = _LOOKS.get(kind, lambda name, takes, part: True)
    found: dict[str, Any] = {}
    for namespace in NAMESPACES[kind]:
        for name, value in _public(namespace).items():
            pair = hasattr(value, "init") and hasattr(value, "apply")
            if inspect.ismodule(value) or not (callable(value) or pair):
                continue
            if looks(name, parameters(value), value):
                found.setdefault(name, value)
    return found


def find(kind: str, name: str) -> Any:
    """The part of a kind that has a name.

    Args:
      kind: a key of `NAMESPACES`.
      name: a public name, or a dotted path to any importable object.

    Returns:
      The part.

    Raises:
      UserError: where there is none, with the names that are close.

    >>> find("optimizer", "adamw").__name__
    'adamw'
    >>> find("optimizer", "adamx")
    Traceback (most recent call last):
    papyrax.train.errors.UserError: optimizer.name: there is no optimizer 'adamx'; did you mean ...
    """
    where = _KEYS.get(kind, f"{kind}.name")
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{where}: {name!r} cannot be imported: {error}") from error
    known = {canonical(n): part for n, part in reversed(available(kind).items())}
    endings = ("", "_schedule") if kind == "schedule" else ("",)
    for ending in endings:
        if canonical(name) + ending in known:
            return known[canonical(name) + ending]
    names = list(dict.fromkeys(n.removesuffix(endings[-1]) for n in known))
    near = difflib.get_close_matches(canonical(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"takes {_list(names)}"
    raise UserError(f"{where}: there is no {kind} {name!r}; {hint}")


def _list(names: Iterable[str], most: int = 12) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def check_options(
    kind: str,
    name: str,
    options: Mapping[str, Any],
    *functions: Callable[..., Any],
    given: Iterable[str] = (),
) -> None:
    """Raise `UserError` for an option that none of the functions takes.

    Args:
      kind: the key of the config, for the message.
      name: the part's name.
      options: hyper-parameters by name.
      *functions: the functions that they are for.
      given: parameters that the engine supplies and a user cannot.
    """
    takes = [p for function in functions for p in parameters(function) if p not in given]
    for option in options:
        if option in takes:
            continue
        near = difflib.get_close_matches(option, takes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"takes {', '.join(takes) or 'no options'}"
        raise UserError(f"{kind}.options: {name} has no option {option!r}; {hint}")


def build_part(kind: str, name: str, call: Callable[[], Any]) -> Any:
    """`call()`, with what it objects to in its arguments as one line.

    Raises:
      UserError: where the part raises `TypeError`, `ValueError` or `AssertionError`.
    """
    try:
        return call()
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{kind}: {name} does not take these options: {error}") from error


def attention(config: Config) -> Callable[..., Any]:
    """The attention operator with its options filled in."""
    part = config.attention
    operator = find("attention", part.name)
    given = ("query", "key", "value", "bias", "mask", "is_causal")
    check_options("attention", part.name, part.options, operator, given=given)
    return functools.partial(operator, **part.options) if part.options else operator


def schedule(config: Config) -> Any:
    """The learning rate as a number, or as a function of the step."""
    import optax

    part, peak = config.schedule, config.optimizer.learning_rate
    steps = max(config.steps - part.warmup, 1)
    factory = find("schedule", part.name)
    takes = parameters(factory)
    check_options("schedule", part.name, part.options, factory)
    filled: dict[str, Any] = {}
    if "peak_value" in takes:
        filled["peak_value"] = peak
        if "warmup_steps" in takes:  # it has its own warm-up: no second one before it
            filled |= {"init_value": 0.0, "warmup_steps": part.warmup}
            steps = max(config.steps, part.warmup + 1)
    else:
        filled |= {n: peak for n in ("value", "init_value") if n in takes}
    filled |= {n: steps for n in ("decay_steps", "transition_steps") if n in takes}
    if "end_value" in takes:
        filled["end_value"] = 0.0
    filled |= part.options
    rate = build_part("schedule", part.name, lambda: factory(**filled))
    if part.warmup and "warmup_steps" not in takes:
        rise = optax.linear_schedule(0.0, peak, part.warmup)
        rate = optax.join_schedules([rise, rate], [part.warmup])
    return rate


def curvature_plan(config: Config) -> tuple[str, int]:
    """The estimator's name and the steps from one estimate to the next.

    Where the config leaves them open they are those of the optimizer's authors.
    """
    from papyrax.optim import curvature_plan

    plan = curvature_plan(canonical(config.optimizer.name).rpartition(".")[2])
    name, every = ("hutchinson", 1) if plan is None else (plan.estimator, plan.every)
    chosen = config.curvature
    return chosen.name or name, chosen.every or every


def curvature(config: Config, loss: Callable[..., Any]) -> tuple[Any, bool]:
    """The curvature estimator of a config.

    Args:
      config: the run.
      loss: `loss(outputs, *args) -> []`, for an estimator that has to know it (`gnb`).

    Returns:
      The estimator, and whether it was told the loss, so that it takes a function of outputs.
    """
    (name, _), options = curvature_plan(config), config.curvature.options
    factory = find("curvature", name)
    told = "loss" in parameters(factory)
    check_options("curvature", name, options, factory, given=("loss", "where"))
    arguments = (loss,) if told else ()
    return build_part("curvature", name, lambda: factory(*arguments, **options)), told


@dataclasses.dataclass(frozen=True)
class Update:
    """An optimizer, ready for the step.

    Attributes:
      transform: the optax transformation, with extra arguments.
      learning_rate: the schedule, from the step.
    """

    transform: Any
    learning_rate: Callable[[Any], Any]


def optimizer(config: Config) -> Update:
    """The optimizer of a config, with its schedule, its decay mask and clipping."""
    import optax

    from papyrax.train.sharding import matches

    part = config.optimizer
    factory = find("optimizer", part.name)
    check_options("optimizer", part.name, part.options, factory, given=("learning_rate",))
    options = dict(part.options)
    if "mask" in parameters(factory):
        options.setdefault("mask", functools.partial(matches, part.decayed))
    rate = schedule(config)
    transform = build_part("optimizer", part.name, lambda: factory(learning_rate=rate, **options))
    if not isinstance(transform, optax.GradientTransformation):
        got = type(transform).__name__
        raise UserError(f"optimizer.name: {part.name} is no optax transformation: it makes {got}")
    if part.clip_norm is not None:
        transform = optax.chain(optax.clip_by_global_norm(part.clip_norm), transform)
    return Update(optax.with_extra_args_support(transform), rate)


EXTRAS = ("value", "grad", "value_fn", "obj_fn", "grad_fn", "curvature")
"""What an update may be given beside the gradient, under the names of optax: the loss and its
gradient, the loss as a function (line searches; Sophia), the gradient as a function (SAM), and the
diagonal of the Hessian (`papyrax.optim`)."""


def extras(
    names: Iterable[str], value: Any, grads: Any, value_fn: Callable[[Any], Any], curvature: Any
) -> dict[str, Any]:
    """Extra arguments of an update.

    Args:
      names: those of `EXTRAS` that it takes.
      value: the loss.
      grads: its gradient.
      value_fn: from parameters to the loss of the same batch; costs nothing unless it is called.
      curvature: a `papyrax.curvature.Curvature`, or None.

    Returns:
      The arguments by name.
    """
    import jax

    def loss(params: Any, *, obj_fn: Any = None, grad_fn: Any = None, curvature: Any = None) -> Any:
        return value_fn(params)  # line searches hand on all arguments that are not their own

    def gradient(params: Any, *_: Any) -> Any:
        return jax.grad(value_fn)(params)

    every = {
        "value": value,
        "grad": grads,
        "value_fn": loss,
        "obj_fn": value_fn,
        "grad_fn": gradient,
        "curvature": curvature,
    }
    return {name: every[name] for name in names}


def reads(transform: Any, params: Any) -> tuple[tuple[str, ...], bool]:
    """Which extra arguments an update takes, and whether it depends on the curvature.

    Nothing needs to be declared: the update is traced, without being run, and reads the curvature
    if an equation of the program does. That sees through `chain`, `masked`, `inject_hyperparams`
    and whatever else wraps the transformation. Updates that refuse arguments they do not know are
    given the one that they ask for.

    Args:
      transform: a transformation with extra arguments.
      params: parameters, arrays or `jax.ShapeDtypeStruct`.

    Returns:
      Names of `EXTRAS`, and whether the curvature has to be computed.

    Raises:
      TypeError, ValueError: what the update raises where it takes none of the arguments.
    """
    import jax
    import jax.numpy as jnp

    from papyrax.curvature import Curvature

    leaves = len(jax.tree.leaves(params))

    def update(names: tuple[str, ...], diag: Any, params: Any) -> Any:
        state = transform.init(params)
        zero = jnp.zeros(())
        given = extras(names, zero, params, lambda params: zero, Curvature(diag, True))
        return transform.update(params, state, params, **given)

    first: Exception | None = None
    for names in (EXTRAS, *((name,) for name in EXTRAS), ()):
        try:
            jaxpr = jax.make_jaxpr(functools.partial(update, names))(params, params).jaxpr
        except (TypeError, ValueError) as error:
            first = first or error
            continue
        diag = set(jaxpr.invars[:leaves])
        used = [v for equation in jaxpr.eqns for v in equation.invars] + list(jaxpr.outvars)
        return names, any(v in diag for v in used if isinstance(v, type(jaxpr.invars[0])))
    assert first is not None
    raise first
