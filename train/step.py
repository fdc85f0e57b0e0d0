"""The training step: pure functions of (state, batch), and where their arrays live.

`build` makes them from a config without running anything: abstract state, shardings and step are
the same whether the mesh is of real devices or of a topology that is only described, so the step of
a pod can be compiled on a laptop. `papyrax.train.loop` runs what is built here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from papyrax.train import feed, objectives, parts, sharding
from papyrax.train.config import Config, validate
from papyrax.train.data import Spec
from papyrax.train.errors import UserError

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


@dataclasses.dataclass(frozen=True)
class Built:
    """A run, ready to be compiled or run.

    Attributes:
      config: the config.
      mesh: the devices.
      graphdef: the model without its arrays; `nnx.merge(graphdef, params, model)` is the model.
      state: abstract `State`: shapes, dtypes and shardings.
      batch: abstract training batch, likewise.
      refreshes: whether the optimizer reads curvature, so that there are two steps.
      init: from a random key to the first state; jitted.
      train_step: `train_step(refresh)` is the jitted `(state, batch) -> (state, metrics)`, which
        donates the state; with `refresh` the curvature is estimated anew.
      eval_step: from a state and a batch with "mask" to sums over its examples; jitted.
    """

    config: Config
    mesh: Mesh
    graphdef: Any
    state: State
    batch: dict[str, jax.ShapeDtypeStruct]
    refreshes: bool
    init: Callable[[Array], State]
    train_step: Callable[[bool], Callable[[State, Batch], tuple[State, Metrics]]]
    eval_step: Callable[[State, Batch], Metrics]


def outputs(spec: Spec) -> int:
    """Numbers that a model puts out for one example (one token): classes, or labels' numbers."""
    if spec.task == "images":
        raise UserError(f"data.name: {spec.name} has no labels to train on")
    number = spec.num_classes or spec.vocab_size
    return number if number is not None else max(sharding.size(spec.features["labels"]), 1)


def make_model(config: Config, spec: Spec) -> tuple[Any, Callable[[Array], Any]]:
    """The model of a config.

    Args:
      config: the run.
      spec: what the data set holds.

    Returns:
      The graph definition, and a function from a random key to (parameters, other state).
    """
    factory = parts.find("model", config.model.name)
    given = ("shape", "classes", "attention", "dtype", "rngs")
    parts.check_options("model", config.model.name, config.model.options, factory, given=given)
    options = dict(config.model.options)
    if "attention" in parts.parameters(factory):
        options["attention"] = parts.attention(config)
    shape, number = spec.features["inputs"].shape, outputs(spec)
    dtype = jnp.dtype(config.precision)

    def create(key: Array) -> Any:
        return factory(shape, number, dtype=dtype, rngs=nnx.Rngs(key), **options)

    def initial(key: Array) -> Any:
        split: Any = nnx.split(create(key), nnx.Param, ...)
        return nnx.to_pure_dict(split[1]), nnx.to_pure_dict(split[2])

    abstract = parts.build_part(
        "model", config.model.name, lambda: nnx.eval_shape(lambda: create(jax.random.key(0)))
    )
    graphdef: Any = nnx.graphdef(abstract)
    return graphdef, initial


def abstract_batch(
    config: Config, spec: Spec, mesh: Mesh, *, index: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a training batch; `index`: with the examples' numbers."""
    size, data = config.data.batch_size, mesh.shape["data"]
    if size % (data * config.accumulate):
        times = f" x {config.accumulate} microbatches" if config.accumulate > 1 else ""
        raise UserError(
            f"data.batch_size: got {size}, takes a multiple of {data * config.accumulate} "
            f"({data} devices along data{times})"
        )
    where = sharding.batch_sharding(mesh)
    features = {feed.rename(key): x for key, x in spec.features.items()}
    if index:
        features["index"] = jax.ShapeDtypeStruct((), jnp.int32)
    return {
        key: jax.ShapeDtypeStruct((size, *x.shape), x.dtype, sharding=where)
        for key, x in features.items()
    }


def build(config: Config, mesh: Mesh | None = None, spec: Spec | None = None) -> Built:
    """Makes a run's functions, abstract state and shardings; runs nothing on a device.

    Args:
      config: the run.
      mesh: the devices, with the axes `data` and `model`; made from `config.mesh` by default. They
        may be those of a topology description.
      spec: what the data set holds; read from the data set by default.

    Returns:
      The run.

    Raises:
      UserError: where a part, an option or a number does not fit.
    """
    validate(config)
    sharding.check_rules(config.mesh.rules)
    mesh = sharding.make_mesh(config.mesh) if mesh is None else mesh
    spec = feed.open_split(config).spec if spec is None else spec
    batch = abstract_batch(config, spec, mesh, index=objectives.needs_index(config))
    graphdef, initial = make_model(config, spec)
    classes = None if spec.task == "regression" else outputs(spec)
    objective = objectives.objective(config, classes, spec.num_examples)
    update = parts.optimizer(config)

    def init(key: Array) -> State:
        params, rest = initial(jax.random.fold_in(key, 0))
        return State(
            step=jnp.zeros((), jnp.int32),
            ok=jnp.ones((), bool),
            key=jax.random.key_data(jax.random.fold_in(key, 1)),
            params=params,
            ema=None if config.ema is None else jax.tree.map(jnp.copy, params),
            model=rest,
            optimizer=update.transform.init(params),
            loss=objective.init(),
        )

    abstract = jax.eval_shape(initial, jax.random.key(0))[0]
    extras, refreshes = parts.build_part(
        "optimizer", config.optimizer.name, lambda: parts.reads(update.transform, abstract)
    )
    state = jax.eval_shape(init, jax.random.key(0))
    where = sharding.shardings(state, mesh, config.mesh.rules)
    whole = sharding.replicated(mesh)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where
    )
    if refreshes:
        _check_curvature(config, state)
    step = functools.partial(_train_step, config, graphdef, objective, update, extras, refreshes)

    @functools.cache
    def train_step(refresh: bool) -> Any:
        return jax.jit(
            functools.partial(step, refresh),
            donate_argnums=0,
            in_shardings=(where, {k: x.sharding for k, x in batch.items()}),
            out_shardings=(where, whole),
        )

    return Built(
        config=config,
        mesh=mesh,
        graphdef=graphdef,
        state=state,
        batch=batch,
        refreshes=refreshes,
        init=jax.jit(init, out_shardings=where, compiler_options=_run_once(mesh)),
        train_step=train_step,
        eval_step=jax.jit(
            functools.partial(_eval_step, graphdef, objective),
            in_shardings=(where, sharding.batch_sharding(mesh)),
            out_shardings=whole,
        ),
    )


def _check_curvature(config: Config, state: State) -> None:
    """Raises where the config asks of the curvature what cannot be."""
    parts.curvature(config, lambda *_: jnp.zeros(()))
    whole = config.accumulate == 1 and config.curvature.fraction == 1
    if jax.tree.leaves(state.loss) and not whole:
        raise UserError(
            f"loss.name: {config.loss.name} keeps a state, which goes with an optimizer that reads "
            "curvature only where accumulate and curvature.fraction are 1"
        )


def _run_once(mesh: Mesh) -> dict[str, Any]:
    """Options for a program that runs once: on CPUs optimizing it takes longer than it saves."""
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if is_cpu else {}


def _apply(
    graphdef: Any, params: Any, rest: Any, inputs: Array, train: bool, key: Array | None
) -> tuple[Array, Any]:
    """Logits, and the model's other state after them."""
    model = nnx.merge(graphdef, params, rest)
    logits = model(inputs, train=train, key=key)
    split: Any = nnx.split(model, nnx.Param, ...)
    return logits, nnx.to_pure_dict(split[2])


def _train_step(
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
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss_fn(params: Any, carry: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        """The mean loss, with the states after the batch and what else is measured."""
        rest, loss_state = carry
        for_model, for_loss = jax.random.split(key)
        logits, rest = _apply(graphdef, params, rest, batch["inputs"], True, for_model)
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
        logits, rest = _apply(graphdef, params, carry[0], batch["inputs"], True, key)
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


def _eval_step(
    graphdef: Any, objective: objectives.Objective, state: State, batch: Batch
) -> Metrics:
    params = state.params if state.ema is None else state.ema
    logits, _ = _apply(graphdef, params, state.model, batch["inputs"], False, None)
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
