"""The loss by name, as one function of the step: plain or stateful, integer or dense labels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from papyrax.train.config import Config
from papyrax.train.errors import UserError
from papyrax.train.parts import build_part, check_options, find, parameters

_LABELS = ("labels", "targets")
_ALIASES = {
    "index": "index",
    "indices": "index",
    "example_index": "index",
    "example_indices": "index",
    "key": "key",
    "rng": "key",
}
"""Names by which a stateful loss may ask for the examples' numbers and for a random key."""


class Objective(NamedTuple):
    """A loss, ready for the step.

    Attributes:
      init: `init() -> state`, a pytree of arrays, empty for a plain loss.
      apply: `apply(state, logits, batch, key) -> (values, state)`, one value per example (per token
        for text).
      evaluate: `evaluate(logits, batch) -> values`, what is reported on data not trained on: the
        loss itself where it is plain, cross-entropy where it keeps a state of the training set.
    """

    init: Callable[[], Any]
    apply: Callable[[Any, Array, Mapping[str, Array], Array], tuple[Array, Any]]
    evaluate: Callable[[Array, Mapping[str, Array]], Array]


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
    part = config.loss
    found = find("loss", part.name)
    if _is_pair(found):
        return _stateful(config, found, classes, examples)
    if not _takes_predictions(found):
        check_options("loss", part.name, part.options, found)
        pair = build_part("loss", part.name, lambda: found(**part.options))
        if not _is_pair(pair):
            raise UserError(
                f"loss.name: {part.name} is no loss: it takes no predictions and labels"
            )
        return _stateful(config, pair, classes, examples, options={})
    return _plain(config, found, classes)


def _is_pair(found: Any) -> bool:
    return hasattr(found, "init") and hasattr(found, "apply")


def _takes_predictions(found: Callable[..., Any]) -> bool:
    names = parameters(found)
    return len(names) >= 2 and bool({*_LABELS} & {*names[1:3]} or not names[0].startswith("num"))


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


def _stateful(
    config: Config,
    pair: Any,
    classes: int | None,
    examples: int,
    options: Mapping[str, Any] | None = None,
) -> Objective:
    """An init/apply pair, whose arguments are filled in by their names."""
    part = config.loss
    options = part.options if options is None else options
    known = {
        "num_examples": examples,
        "examples": examples,
        "num_classes": classes,
        "classes": classes,
        "batch_size": config.data.batch_size // config.accumulate,
    }
    init_takes, apply_takes = parameters(pair.init), parameters(pair.apply)
    check_options("loss", part.name, options, pair.init, pair.apply, given=apply_takes[:1])
    init_options = {n: options.get(n, known.get(n)) for n in init_takes if n in {*options, *known}}
    apply_options = {n: v for n, v in options.items() if n in apply_takes}
    predictions = next((n for n in apply_takes[1:] if n not in (*_LABELS, *_ALIASES)), None)
    if predictions is None:
        raise UserError(f"loss: {part.name}.apply takes no predictions")

    def apply(
        state: Any, logits: Array, batch: Mapping[str, Array], key: Array
    ) -> tuple[Array, Any]:
        logits, labels = flat(logits, batch["labels"])
        arguments: dict[str, Any] = {predictions: logits, **apply_options}
        for name in apply_takes[1:]:
            if name in _LABELS:
                arguments[name] = labels
            elif _ALIASES.get(name) == "key":
                arguments[name] = key
            elif name in _ALIASES:
                if "index" not in batch:
                    raise UserError(
                        f"loss: {part.name} needs the number of each example, which the data set "
                        f"{config.data.name} does not give"
                    )
                arguments[name] = batch["index"]
        return pair.apply(state, **arguments)

    def evaluate(logits: Array, batch: Mapping[str, Array]) -> Array:
        logits, labels = flat(logits, batch["labels"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def init() -> Any:
        return build_part("loss", part.name, lambda: pair.init(**init_options))

    return Objective(init, apply, evaluate)
