"""The training step of a config: its functions, its abstract state, and where the arrays live.

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
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from papyrax.train import feed, objectives, parts, sharding
from papyrax.train.config import Config, validate
from papyrax.train.data import Spec
from papyrax.train.errors import UserError
from papyrax.train.functions import Batch, Metrics, State, apply, eval_step, train_step


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

    >>> from papyrax.train.config import Data, Mesh
    >>> built = build(Config(data=Data("iris", batch_size=32), mesh=Mesh(data=1)))
    >>> built.state.params["head"]["kernel"].shape, built.batch["inputs"].shape
    ((128, 3), (32, 4))
    >>> state = built.init(jax.random.key(0))
    >>> batch = {"inputs": jnp.ones((32, 4)), "labels": jnp.zeros(32, jnp.int32)}
    >>> state, metrics = built.train_step(False)(state, batch)
    >>> int(state.step)
    1
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
    _check_model(config, graphdef, objective, state, batch, spec)
    where = sharding.shardings(state, mesh, config.mesh.rules)
    whole = sharding.replicated(mesh)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where
    )
    if refreshes:
        _check_curvature(config, state)
    step = functools.partial(train_step, config, graphdef, objective, update, extras, refreshes)

    @functools.cache
    def compiled(refresh: bool) -> Any:
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
        train_step=compiled,
        eval_step=jax.jit(
            functools.partial(eval_step, graphdef, objective),
            in_shardings=(where, sharding.batch_sharding(mesh)),
            out_shardings=whole,
        ),
    )


def _check_model(
    config: Config,
    graphdef: Any,
    objective: objectives.Objective,
    state: State,
    batch: Mapping[str, Any],
    spec: Spec,
) -> None:
    """Raises where model, attention and loss do not go together: traces one forward pass."""
    name = config.model.name
    with_ = (
        f" with attention {config.attention.name}"
        if "attention" in parts.parameters(parts.find("model", name))
        else ""
    )

    def forward(state: State, batch: Batch) -> Array:
        return apply(graphdef, state.params, state.model, batch["inputs"], True, None)[0]

    try:
        logits = jax.eval_shape(forward, state, batch)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(f"model: {name}{with_} cannot be run: {error}") from error
    expected = (*batch["labels"].shape, outputs(spec))
    if spec.task != "regression" and logits.shape != expected:
        raise UserError(f"model: {name} gives logits of shape {logits.shape}, takes {expected}")
    try:
        jax.eval_shape(objective.apply, state.loss, logits, batch, jax.random.key(0))
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"loss: {config.loss.name} cannot be computed: {error}") from error


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
