"""The loss by name, as one function of the step: plain or stateful, integer or dense labels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from papyrax.train.config import Config
from papyrax.train.errors import UserError
from papyrax.train.parts import build_part, check_options, find, parameters, required

_LABELS = ("labels", "targets")
_INDEX = ("index", "indices", "example_index", "example_indices")
_KEY = ("key", "rng")
"""Names by which a stateful loss asks for labels, for the examples' numbers, for a random key."""


class Objective(NamedTuple):
    """A loss, ready for the step.

    Attributes:
      init: `init() -> state`, a pytree of arrays, empty for a plain loss.
      apply: `apply(state, logits, batch, key) -> (values, state)`, one value per example (per token
        for text).
      needs_index: whether `batch` has to have "index", the number of each example.
      evaluate: `evaluate(logits, batch) -> values`, what is reported on data not trained on: the
        loss itself where it is plain, cross-entropy where it keeps a state of the training set.
    """

    init: Callable[[], Any]
    apply: Callable[[Any, Array, Mapping[str, Array], Array], tuple[Array, Any]]
    evaluate: Callable[[Array, Mapping[str, Array]], Array]
    needs_index: bool = False


class Pair(NamedTuple):
    """A loss with a state: `init(...) -> state`, `apply(state, ...) -> (values, state)`."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


def flat(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Logits in float32, and one axis for all rows of a batch, tokens of text too.

    Args:
      logits: [..., classes], or [batch, 1] where `labels` are numbers.
      labels: classes [...] as integers, or numbers [batch, ...].

    Returns:
      [rows, classes] and [rows]; two arrays of the shape of `labels` where these are numbers.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return logits.reshape(labels.shape), labels
    return logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)


def correct(logits: Array, labels: Array) -> Float[Array, "rows"] | None:
    """Whether the largest logit is the label's, [rows]; None where labels are no classes."""
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return None
    logits, labels = flat(logits, labels)
    return (jnp.argmax(logits, -1) == labels).astype(jnp.float32)


def objective(config: Config, classes: int | None, examples: int) -> Objective:
    """The loss of a config.

    Args:
      config: the run.
      classes: number of classes, or size of the vocabulary; None where labels are numbers.
      examples: number of training examples, for losses with a state of each.

    Returns:
      The objective.

    Raises:
      UserError: where the loss or its options do not fit.
    """
    pair = find_pair(config)
    if pair is None:
        return _plain(config, find("loss", config.loss.name), classes)
    return _stateful(config, pair, classes, examples)


def find_pair(config: Config) -> Pair | None:
    """The two functions of a loss with a state; None for a plain loss.

    They are an object with `init` and `apply` (as an optax transformation has `init` and `update`),
    a function of options alone that makes one, or a function `name` whose first argument is
    `state`, beside another `name_init`.
    """
    part = config.loss
    found = find("loss", part.name)
    if hasattr(found, "init") and hasattr(found, "apply"):
        return Pair(found.init, found.apply)
    takes = parameters(found)
    if takes[:1] == ["state"]:
        return Pair(find("loss", f"{part.name}_init"), found)
    if required(found):
        return None
    check_options("loss", part.name, part.options, found)
    made = build_part("loss", part.name, lambda: found(**part.options))
    if not (hasattr(made, "init") and hasattr(made, "apply")):
        raise UserError(f"loss.name: {part.name} is no loss: it takes no predictions and labels")
    return Pair(made.init, made.apply)


def needs_index(config: Config) -> bool:
    """Whether the loss of a config asks for the number of each example."""
    pair = find_pair(config)
    return pair is not None and any(name in _INDEX for name in parameters(pair.apply))


def _plain(config: Config, loss: Callable[..., Any], classes: int | None) -> Objective:
    part = config.loss
    check_options("loss", part.name, part.options, loss, given=parameters(loss)[:2])
    one_hot = classes is not None and _wants_one_hot(config, loss, classes)

    def values(logits: Array, batch: Mapping[str, Array]) -> Array:
        logits, labels = flat(logits, batch["labels"])
        if one_hot:
            labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        out = loss(logits, labels, **part.options)
        return out.reshape(out.shape[0], -1).mean(-1) if out.ndim > 1 else out

    return Objective(
        init=lambda: {},
        apply=lambda state, logits, batch, key: (values(logits, batch), state),
        evaluate=values,
    )


def _wants_one_hot(config: Config, loss: Callable[..., Any], classes: int) -> bool:
    """Whether a loss takes dense targets: found by tracing it on integers first.

    The batch of the trial differs from the number of classes, so that integers cannot pass for
    dense targets by broadcasting.
    """
    part, rows = config.loss, classes + 1
    logits = jax.ShapeDtypeStruct((rows, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    first: Exception | None = None
    for one_hot, targets in ((False, labels), (True, logits)):
        try:
            jax.eval_shape(lambda a, b: loss(a, b, **part.options), logits, targets)
            return one_hot
        except (TypeError, ValueError, AssertionError) as error:
            first = first or error
    raise UserError(f"loss: {part.name} does not take logits and labels of classes: {first}")


def _stateful(config: Config, pair: Pair, classes: int | None, examples: int) -> Objective:
    """A loss with a state, whose arguments are filled in by their names."""
    part = config.loss
    known = {
        "num_examples": examples,
        "examples": examples,
        "num_classes": classes,
        "classes": classes,
        "batch_size": config.data.batch_size // config.accumulate,
    }
    init_takes, apply_takes = parameters(pair.init), parameters(pair.apply)
    predictions, *others = [n for n in apply_takes[1:] if n not in (*_LABELS, *_INDEX, *_KEY)]
    takes = [n for n in init_takes if n not in known]
    options = {n: v for n, v in part.options.items() if n in (*takes, *others)}
    if options != part.options:
        made_by = find("loss", part.name)
        check_options("loss", part.name, part.options, pair.init, pair.apply, made_by)
    init_options = {n: {**known, **options}[n] for n in init_takes if n in {*known, *options}}
    apply_options = {n: v for n, v in options.items() if n in others}

    def apply(
        state: Any, logits: Array, batch: Mapping[str, Array], key: Array
    ) -> tuple[Array, Any]:
        logits, labels = flat(logits, batch["labels"])
        arguments: dict[str, Any] = {predictions: logits, **apply_options}
        for name in apply_takes[1:]:
            if name in _LABELS:
                arguments[name] = labels
            elif name in _KEY:
                arguments[name] = key
            elif name in _INDEX:
                arguments[name] = batch["index"]
        return pair.apply(state, **arguments)

    def evaluate(logits: Array, batch: Mapping[str, Array]) -> Array:
        logits, labels = flat(logits, batch["labels"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def init() -> Any:
        return build_part("loss", part.name, lambda: pair.init(**init_options))

    return Objective(init, apply, evaluate, needs_index(config))
