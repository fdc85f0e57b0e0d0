"""The step's pure functions: from a state and a batch to the next state and its metrics."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from papyrax.train import objectives, parts
from papyrax.train.config import Config

Batch = Mapping[str, Array]
Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything that a step changes, and that a checkpoint holds.

    Attributes:
      step: steps done.
      ok: False once a step was not finite; the state is frozen from then on.
      key: raw data of the run's random key; a step folds its number in.
      params: parameters, float32.
      ema: their moving average, or None.
      model: what else the model keeps, such as running moments.
      optimizer: the optimizer's state.
      loss: a stateful loss's state; empty for the others.
    """

    step: Array
    ok: Array
    key: Array
    params: Any
    ema: Any
    model: Any
    optimizer: Any
    loss: Any


def apply(
    graphdef: Any, params: Any, rest: Any, inputs: Array, train: bool, key: Array | None
) -> tuple[Array, Any]:
    """Logits, and the model's other state after them."""
    model = nnx.merge(graphdef, params, rest)
    logits = model(inputs, train=train, key=key)
    split: Any = nnx.split(model, nnx.Param, ...)
    return logits, nnx.to_pure_dict(split[2])


def train_step(
    config: Config,
    graphdef: Any,
    objective: objectives.Objective,
    update: parts.Update,
    extras: tuple[str, ...],
    refreshes: bool,
    refresh: bool,
    state: State,
    batch: Batch,
) -> tuple[State, Metrics]:
    """One step.

    Args:
      config: the run.
      graphdef: the model without its arrays.
      objective: the loss.
      update: the optimizer.
      extras: the extra arguments that its update takes.
      refreshes: whether it reads curvature.
      refresh: whether the curvature is estimated in this step.
      state: the state before it.
      batch: "inputs" and "labels", and "index" where the loss asks for it.

    Returns:
      The state after it, and what was measured: loss, accuracy, norm of the gradient, learning
      rate, and "ok", False where something was not finite and the state stays as it was.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss_fn(params: Any, carry: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        """The mean loss, with the states after the batch and what else is measured."""
        rest, loss_state = carry
        for_model, for_loss = jax.random.split(key)
        logits, rest = apply(graphdef, params, rest, batch["inputs"], True, for_model)
        values, loss_state = objective.apply(loss_state, logits, batch, for_loss)
        return jnp.mean(values), ((rest, loss_state), _measures(logits, batch))

    first = (state.model, state.loss)

    def value_fn(params: Any) -> Array:
        return loss_fn(params, first, batch, key)[0]

    if refreshes:
        gradient = functools.partial(_with_curvature, config, graphdef, objective, loss_fn, refresh)
        (loss, (carry, measures)), grads, curvature = gradient(state.params, first, batch, key)
    else:
        plain = functools.partial(jax.value_and_grad(loss_fn, has_aux=True), state.params)
        (loss, (carry, measures)), grads = _accumulate(plain, config.accumulate, first, batch, key)
        curvature = None
    given = parts.extras(extras, loss, grads, value_fn, curvature)
    updates, optimizer = update.transform.update(grads, state.optimizer, state.params, **given)
    params = optax.apply_updates(state.params, updates)
    ema, decay = state.ema, config.ema
    if decay is not None:
        ema = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, ema, params)
    grad_norm = optax.tree.norm(grads)
    ok = state.ok & jnp.isfinite(loss + grad_norm + optax.tree.norm(updates))
    new = State(state.step + 1, ok, state.key, params, ema, carry[0], optimizer, carry[1])
    # A step that is not finite changes nothing, so that what led to it can be looked at.
    frozen = dataclasses.replace(state, ok=ok)
    new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, frozen)
    metrics = {
        "loss": loss,
        **measures,
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(update.learning_rate(state.step), jnp.float32),
        "ok": ok,
    }
    return new, metrics


def _measures(logits: Array, batch: Batch) -> Metrics:
    right = objectives.correct(logits, batch["labels"])
    return {} if right is None else {"accuracy": jnp.mean(right)}


def _with_curvature(
    config: Config,
    graphdef: Any,
    objective: objectives.Objective,
    loss_fn: Callable[..., Any],
    refresh: bool,
    params: Any,
    carry: Any,
    batch: Batch,
    key: Array,
) -> tuple[Any, Any, Any]:
    """Value, gradient and curvature in one pass, over all microbatches."""
    from papyrax.curvature import value_grad_and_diag

    def told(logits: Array, carry: Any, batch: Batch, key: Array) -> Array:
        return jnp.mean(objective.apply(carry[1], logits, batch, key)[0])

    estimator, takes_outputs = parts.curvature(config, told)

    def fun(params: Any, carry: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        # Every piece of the batch gets the same key; its first row tells it from the others.
        key = jax.random.fold_in(key, batch["row"][0])
        if not takes_outputs:
            return loss_fn(params, carry, batch, key)
        logits, rest = apply(graphdef, params, carry[0], batch["inputs"], True, key)
        return logits, ((rest, carry[1]), _measures(logits, batch))

    oracle = value_grad_and_diag(
        fun,
        estimator=estimator,
        fraction=config.curvature.fraction,
        microbatches=config.accumulate,
        has_aux=True,
        batch_argnums=2,
    )
    rows = {**batch, "row": jnp.arange(config.data.batch_size)}
    probe, key = jax.random.split(key)
    return oracle(params, carry, rows, key, key=probe, refresh=refresh)


def _accumulate(
    gradient: Callable[[Any, Batch, Array], Any], number: int, carry: Any, batch: Batch, key: Array
) -> Any:
    """Value and gradient, the means over microbatches that go one after the other.

    Args:
      gradient: `gradient(carry, batch, key) -> ((loss, (carry, measures)), grads)`.
      number: of microbatches.
      carry: what goes from one to the next.
      batch: the whole batch.
      key: a random key.

    Returns:
      What `gradient` does.
    """
    if number == 1:
        return gradient(carry, batch, key)

    def split(x: Array) -> Array:
        # Strided, so that each device's rows stay on it: microbatch i is rows i, i + number, ...
        return jnp.swapaxes(x.reshape(x.shape[0] // number, number, *x.shape[1:]), 0, 1)

    def body(state: Any, micro: Any) -> tuple[Any, None]:
        carry, sums = state
        (loss, (carry, measures)), grads = gradient(carry, *micro)
        return (carry, jax.tree.map(jnp.add, sums, (loss, measures, grads))), None

    micro = (jax.tree.map(split, dict(batch)), jax.random.split(key, number))
    (loss, (_, measures)), grads = jax.eval_shape(
        gradient, carry, *jax.tree.map(lambda x: x[0], micro)
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, measures, grads))
    (carry, sums), _ = jax.lax.scan(body, (carry, zeros), micro)
    loss, measures, grads = jax.tree.map(lambda x: x / number, sums)
    return (loss, (carry, measures)), grads


def eval_step(
    graphdef: Any, objective: objectives.Objective, state: State, batch: Batch
) -> Metrics:
    """Sums over the examples of a batch whose "mask" is True: their number, loss and accuracy."""
    params = state.params if state.ema is None else state.ema
    logits, _ = apply(graphdef, params, state.model, batch["inputs"], False, None)
    values = objective.evaluate(logits, batch)
    right = objectives.correct(logits, batch["labels"])
    rows = batch["mask"].shape[0]

    def total(values: Array) -> Array:
        per_row = (
            jnp.broadcast_to(values, (rows,)) if values.ndim == 0 else values.reshape(rows, -1)
        )
        per_row = per_row.mean(-1) if per_row.ndim > 1 else per_row
        return jnp.sum(jnp.where(batch["mask"], per_row, 0))

    sums = {"examples": jnp.sum(batch["mask"]), "loss": total(values)}
    return sums if right is None else {**sums, "accuracy": total(right)}
