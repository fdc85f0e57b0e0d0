"""The step: accumulation, averages, precision, steps gone wrong, what does not fit."""

import dataclasses

import engine
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from engine import small
from flax import nnx
from steps import SGD, built, close, differs, start, step

from papyrax.train import build, sharding
from papyrax.train import config as C
from papyrax.train.errors import UserError


def test_the_step_is_the_gradient_step_of_the_mean_loss():
    run = built(optimizer=SGD)
    state, batch = start(run), engine.batch()
    new, metrics = step(run, state, batch)

    def loss(params):
        h = batch["inputs"].reshape(32, -1)
        h = jax.nn.relu(h @ params["hidden"][0]["kernel"] + params["hidden"][0]["bias"])
        logits = h @ params["head"]["kernel"] + params["head"]["bias"]
        log_p = jax.nn.log_softmax(logits)
        right = jnp.argmax(logits, -1) == batch["labels"]
        return -jnp.mean(log_p[jnp.arange(32), batch["labels"]]), right.mean()

    (value, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], accuracy)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], 0.1, rtol=1e-6)
    close(new.params, jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads))
    assert int(new.step) == 1


@pytest.mark.parametrize("model", [engine.MLP, engine.VIT], ids=["mlp", "vit"])
def test_microbatches_give_the_step_of_the_whole_batch(model):
    whole, parts_ = (
        built(model=model, optimizer=dataclasses.replace(SGD, clip_norm=0.5), accumulate=n)
        for n in (1, 4)
    )
    state, batch = start(whole), engine.batch()
    (a, m), (b, n) = step(whole, state, batch), step(parts_, state, batch)
    close(a.params, b.params, rtol=1e-4, atol=1e-6)
    close(m, n, rtol=1e-4)


def test_the_average_follows_the_parameters():
    run = built(optimizer=SGD, ema=0.9)
    state = start(run)
    close(state.ema, state.params, rtol=0, atol=0)
    average = state.params
    for i in range(3):
        state, _ = step(run, state, engine.batch(seed=i))
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, state.params)
    close(state.ema, average)
    # The evaluation is of the average.
    batch = {**engine.batch(), "mask": np.ones(32, bool)}
    arrays = sharding.put(batch, run.mesh)
    sums = run.eval_step(state, arrays)
    averaged = run.eval_step(dataclasses.replace(state, params=state.ema, ema=state.ema), arrays)
    last = run.eval_step(dataclasses.replace(state, ema=state.params), arrays)
    assert float(sums["loss"]) == float(averaged["loss"]) != float(last["loss"])


def test_filling_is_not_counted_in_an_evaluation():
    run = built()
    state, batch = start(run), engine.batch()
    mask = np.arange(32) < 20
    sums = run.eval_step(state, sharding.put({**batch, "mask": mask}, run.mesh))
    garbage = batch["inputs"].copy()
    garbage[20:] = 1e6
    same = run.eval_step(state, sharding.put({**batch, "inputs": garbage, "mask": mask}, run.mesh))
    close(sums, same, rtol=0, atol=0)
    assert int(sums["examples"]) == 20


def test_bfloat16_keeps_parameters_and_moments_in_float32():
    whole, half = (built(precision=p) for p in ("float32", "bfloat16"))
    assert {x.dtype for x in jax.tree.leaves(half.state.params)} == {jnp.dtype("float32")}
    state, batch = start(whole), engine.batch()
    (a, m), (b, n) = step(whole, state, batch), step(half, state, batch)
    assert m["loss"].dtype == n["loss"].dtype == jnp.float32
    assert float(m["loss"]) != float(n["loss"])
    np.testing.assert_allclose(m["loss"], n["loss"], rtol=2e-2)
    close(a.params, b.params, atol=5e-3)


@pytest.mark.parametrize("wrong", ["inputs", "update"])
def test_a_step_that_is_not_finite_changes_nothing_ever_after(wrong):
    optimizer = SGD if wrong == "inputs" else C.Optimizer("sgd", 1e39)
    run = built(optimizer=optimizer, ema=0.9, loss=C.Part("engine.moving_prior"))
    state, batch = start(run), engine.batch()
    bad = {**batch, "inputs": batch["inputs"].copy()}
    if wrong == "inputs":
        state, _ = step(run, state, batch)
        bad["inputs"][3, 0, 0, 0] = np.nan
    after, metrics = step(run, state, bad)
    assert not metrics["ok"]
    later, metrics = step(run, after, batch)
    assert not metrics["ok"]
    for frozen in (after, later):
        close(dataclasses.replace(frozen, ok=state.ok), state, rtol=0, atol=0)


def test_the_draws_of_a_step_depend_on_seed_and_step_alone():
    run = built(model=C.Part("mlp", {"widths": [16], "dropout": 0.5}))
    state, batch = start(run), engine.batch()
    (a, _), (b, _) = step(run, state, batch), step(run, state, batch)
    close(a.params, b.params, rtol=0, atol=0)
    other = dataclasses.replace(state, step=state.step + 1)
    assert differs(a.params, step(run, other, batch)[0].params)
    assert differs(state.params, start(run, 1).params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": C.Data("digits", 30), "mesh": C.Mesh(data=4)}, "takes a multiple of 4 "),
        ({"data": C.Data("digits", 32), "mesh": C.Mesh(data=8), "accumulate": 8}, "multiple of 64"),
        ({"model": C.Part("vit", {"patch": 3})}, "model: vit does not take these options: patch: "),
        ({"model": C.Part("vit", {"pach": 3})}, "did you mean 'patch'?"),
        ({"model": C.Part("vit"), "attention": C.Part("mala", {"x": 1})}, "mala has no option 'x'"),
        ({"optimizer": C.Optimizer("adam", options={"b1": "x"})}, "optimizer: adam does not take"),
        ({"model": C.Part("test_step.Wide")}, "gives logits of shape (32, 11), takes (32, 10)"),
        (
            {"model": C.Part("vit", {"patch": 4}), "attention": C.Part("test_step.strict")},
            "model: vit with attention test_step.strict cannot be run: query: got 4 heads",
        ),
        ({"curvature": C.Curvature("hutch")}, None),
        (
            {"curvature": C.Curvature("hutch"), "optimizer": C.Optimizer("engine.root_newton")},
            "curvature.name: there is no curvature 'hutch'; did you mean 'hutchinson'",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(changes, message):
    if message is None:  # the name is not looked up for an optimizer that reads none
        built(**changes)
        return
    with pytest.raises(UserError) as error:
        built(**changes)
    assert message in " ".join(str(error.value).split())


class Wide(nnx.Module):
    """A model with a class too many."""

    def __init__(self, shape, classes, *, dtype, rngs):
        self.head = nnx.Linear(64, classes + 1, rngs=rngs)

    def __call__(self, inputs, *, train=False, key=None):
        return self.head(inputs.reshape(inputs.shape[0], -1))


def strict(query, key, value, *, mask=None, is_causal=False):
    raise ValueError(f"query: got {query.shape[2]} heads, takes none")


def test_a_step_is_compiled_for_a_machine_that_is_only_described(topology):
    config = small(mesh=C.Mesh(data=2, model=2), model=engine.VIT)
    mesh = sharding.make_mesh(config.mesh, topology("v5e:2x2").devices)
    run = build(config, mesh, engine.digits())
    compiled = run.train_step(False).lower(run.state, run.batch).compile()
    assert compiled.memory_analysis().argument_size_in_bytes > 0
    assert "all-reduce" in compiled.as_text()
