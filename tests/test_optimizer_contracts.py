"""What every optax transformation of the library keeps, from its `OptimizerCase`."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from contracts import suite
from contracts.case import Bad, OptimizerCase

CASES = suite.optimizers()
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def params_like(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"bias": (4,), "kernel": (8, 4), "conv": (3, 3, 2, 8)}
    return {k: jnp.asarray(rng.normal(0, 0.5, s), dtype) for k, s in shapes.items()}


def batch():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)


def loss(params, batch):
    """A smooth loss that depends on every leaf and whose Hessian is not constant."""
    hidden = batch @ params["kernel"] + params["bias"]
    bowl = jnp.mean(jnp.sum(jnp.square(hidden - 1), -1))
    cosh = jnp.sum(jnp.logaddexp(params["conv"] - 0.3, 0.3 - params["conv"]))
    return (bowl + cosh).astype(jnp.float32)


def make(case: OptimizerCase, **change):
    return suite.resolve(case.name)(**{**case.static, **change})


def gradient(params):
    """The gradient of the loss, and zeros for leaves of integers."""
    grads = jax.grad(loss, allow_int=True)(params, batch())
    return {k: jnp.zeros_like(p) if p.dtype == jnp.int32 else grads[k] for k, p in params.items()}


def stepper(case, tx):
    def step(params, state, key):
        extra = case.extra(loss, params, batch(), key) if case.extra else {}
        updates, state = tx.update(gradient(params), state, params, **extra)
        return optax.apply_updates(params, updates), state, updates

    return jax.jit(step, donate_argnums=(0, 1))


def run(case, tx, params=None, steps=3, state=None, first=0):
    params = params_like() if params is None else params
    state = tx.init(params) if state is None else state
    step, updates = stepper(case, tx), None
    for i in range(first, first + steps):
        params, state, updates = step(params, state, jax.random.key(i))
    return params, state, updates


def assert_trees_close(got, want, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(np.asarray(g, np.float64), np.asarray(w, np.float64), rtol, atol)


@functools.cache
def plain(case_index):
    """Three plain steps, shared by the tests that compare with them."""
    case = CASES[case_index]
    return run(case, make(case))


def baseline(case):
    return plain(CASES.index(case))


@each_case
def test_descends_and_state_is_arrays(case):
    params, state, _ = baseline(case)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert all(jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(params))
    moved = [jnp.any(a != b) for a, b in zip(*map(jax.tree.leaves, (params, params_like())))]
    assert all(moved), "a parameter did not move"
    if case.descends:
        assert loss(params, batch()) < loss(params_like(), batch())


@each_case
def test_chain(case):
    tx = optax.chain(optax.clip_by_global_norm(1e9), make(case), optax.scale(1.0))
    assert_trees_close(run(case, tx)[0], baseline(case)[0])


@each_case
def test_masked_leaves_others_alone(case):
    mask = {"bias": False, "kernel": True, "conv": True}
    _, _, updates = run(case, optax.masked(make(case), mask))
    grads = jax.grad(loss)(params_like(), batch())
    assert jnp.shape(updates["bias"]) == jnp.shape(grads["bias"])
    # One step: the masked leaf passes its gradient through, the others are transformed.
    tx = optax.masked(make(case), mask)
    _, _, first = run(case, tx, steps=1)
    assert_trees_close(first["bias"], grads["bias"])
    assert not np.allclose(first["kernel"], grads["kernel"])


@each_case
def test_partition(case):
    labels = {"bias": "other", "kernel": "ours", "conv": "ours"}
    tx = optax.partition({"ours": make(case), "other": optax.sgd(0.1)}, labels)
    params, _, updates = run(case, tx, steps=1)
    grads = jax.grad(loss)(params_like(), batch())
    assert_trees_close(updates["bias"], -0.1 * grads["bias"])
    assert jnp.all(jnp.isfinite(params["kernel"]))


@each_case
def test_no_leaves_and_map_params(case):
    """A group that has no leaf, and optax's map over a state, which starts from no leaves."""
    params, ours = params_like(), make(case)
    tx = optax.partition({"ours": ours, "other": optax.sgd(0.1)}, lambda params: "other")
    extra = case.extra(loss, params, batch(), jax.random.key(0)) if case.extra else {}
    updates, _ = tx.update(params, tx.init(params), params, **extra)
    assert_trees_close(updates, jax.tree.map(lambda p: -0.1 * p, params))
    state = ours.init(params)
    assert_trees_close(optax.tree.map_params(ours, lambda x: x, state), state)


@each_case
def test_inject_hyperparams(case):
    if not case.numeric:
        return
    factory = suite.resolve(case.name)
    signature = inspect.signature(factory).parameters
    static = tuple(n for n in signature if n not in case.numeric)
    tx = optax.inject_hyperparams(factory, static_args=static)(**case.static)
    params, state, _ = run(case, tx)
    assert set(case.numeric) <= set(state.hyperparams)
    assert_trees_close(params, baseline(case)[0], rtol=1e-4)


@each_case
def test_multi_steps(case):
    """Two micro-steps with the same gradient are one step."""
    tx = optax.MultiSteps(make(case), every_k_schedule=2).gradient_transformation()
    params = params_like()
    state, step = tx.init(params), stepper(case, tx)
    waiting, state, updates = step(params, state, jax.random.key(0))
    assert all(not jnp.any(u) for u in jax.tree.leaves(updates))
    params, state, _ = step(waiting, state, jax.random.key(0))
    assert_trees_close(params, run(case, make(case), steps=1)[0], rtol=1e-4)


@each_case
def test_apply_if_finite(case):
    tx = optax.apply_if_finite(make(case), max_consecutive_errors=3)
    assert_trees_close(run(case, tx)[0], baseline(case)[0])


@each_case
def test_unknown_extra_arguments_are_ignored(case):
    tx = make(case)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    params = params_like()
    grads = jax.grad(loss)(params, batch())
    extra = case.extra(loss, params, batch(), jax.random.key(0)) if case.extra else {}
    tx.update(grads, tx.init(params), params, **extra, something_of_another_transformation=1)


@each_case
def test_sharded_equals_replicated(case):
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=auto)
    specs = {"bias": ("model",), "kernel": ("data", "model"), "conv": (None, None, None, "data")}
    shardings = {k: NamedSharding(mesh, PartitionSpec(*s)) for k, s in specs.items()}
    params = jax.device_put(params_like(), shardings)
    state = jax.jit(make(case).init)(params)
    params, _, _ = run(case, make(case), params, state=state)
    assert_trees_close(params, baseline(case)[0], rtol=1e-4, atol=1e-5)


@each_case
def test_orbax_round_trip_continues_identically(case, tmp_path):
    params, state, _ = run(case, make(case), steps=2)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", (params, state))
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, (params, state))
        params, state = checkpointer.restore(tmp_path / "state", abstract)
    resumed = run(case, make(case), params, steps=1, state=state, first=2)
    for got, want in zip(*map(jax.tree.leaves, (resumed[:2], baseline(case)[:2])), strict=True):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


@each_case
def test_bf16_integer_and_empty_parameters(case):
    table = jnp.array([[500, 1], [-400, 2], [3, 300]], jnp.int32)
    others = {"table": table, "empty": jnp.zeros((0, 2), jnp.bfloat16)}
    before = make(case).init({**params_like(jnp.bfloat16), **others})
    types = jax.tree.map(jax.typeof, before)
    new = jax.tree.map(jnp.copy, {**params_like(jnp.bfloat16), **others})
    params, state, updates = run(case, make(case), new, state=before)
    np.testing.assert_array_equal(params.pop("table"), table)
    for leaf, name in zip(jax.tree.leaves(params), sorted(params)):
        assert updates[name].dtype == jnp.bfloat16
        assert jnp.all(jnp.isfinite(leaf))
    assert types == jax.tree.map(jax.typeof, state), "the state's types change with an update"


@each_case
def test_zero_and_huge_gradients_stay_finite(case):
    tx, params = make(case), params_like()
    extra = case.extra(loss, params, batch(), jax.random.key(0)) if case.extra else {}
    update = jax.jit(lambda g: tx.update(g, tx.init(params), params, **extra)[0])
    for scale in (0.0, 1e4, -1e4):
        updates = update(jax.tree.map(lambda p, s=scale: jnp.full_like(p, s), params))
        assert all(jnp.all(jnp.isfinite(u)) for u in jax.tree.leaves(updates))


def bad_calls():
    return [
        pytest.param(case, bad, id=f"{case}-{bad.argument}-{i}")
        for case in CASES
        for i, bad in enumerate(case.bad)
    ]


@pytest.mark.parametrize(("case", "bad"), bad_calls())
def test_bad_arguments_are_named(case: OptimizerCase, bad: Bad):
    with pytest.raises(ValueError, match=re.escape(bad.argument)):
        make(case, **bad.change)
