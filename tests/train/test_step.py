"""The step: accumulation, curvature, losses with a state, averages, precision, steps gone wrong."""

import dataclasses
import functools

import engine
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from engine import small
from flax import nnx

from papyrax.train import build, parts, sharding
from papyrax.train import config as C
from papyrax.train.errors import UserError

SGD = C.Optimizer("sgd", 0.1)


@functools.cache
def _built(text):
    import json

    config = C.from_json(json.loads(text))
    return build(config, spec=engine.digits())


def built(**changes):
    return _built(str(small(**changes)))


def start(run, seed=0):
    return run.init(jax.random.key(seed))


def step(run, state, batch, refresh=False):
    """One step; the state that was given stays usable."""
    kept = jax.tree.map(jnp.copy, state)
    return run.train_step(refresh)(kept, sharding.put(batch, run.mesh))


def close(a, b, rtol=1e-5, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


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


@pytest.mark.parametrize("curvature", ["hutchinson", "exact_diagonal"])
def test_microbatches_give_the_curvature_of_the_whole_batch(curvature):
    changes = {
        "model": C.Part("mlp", {"widths": [2]}),
        "optimizer": C.Optimizer("engine.root_newton", 0.1),
        "curvature": C.Curvature(curvature),
    }
    whole, parts_ = (built(**changes, accumulate=n) for n in (1, 4))
    state, batch = start(whole), engine.batch()
    (a, m), (b, n) = (step(run, state, batch, True) for run in (whole, parts_))
    assert float(optax.tree.norm(a.optimizer)) > 0
    close(a.optimizer, b.optimizer, rtol=1e-3, atol=1e-5)
    close(a.params, b.params, rtol=1e-3, atol=1e-5)
    close(m, n, rtol=1e-4)


def test_the_exact_curvature_is_the_diagonal_of_the_hessian():
    run = built(
        model=C.Part("mlp", {"widths": []}),
        optimizer=C.Optimizer("engine.root_newton", 0.1),
        curvature=C.Curvature("exact_diagonal"),
    )
    state, batch = start(run), engine.batch()
    new, _ = step(run, state, batch, True)
    # Of a linear classifier: mean over examples of x_i^2 p_c (1 - p_c).
    x = batch["inputs"].reshape(32, -1)
    head = state.params["head"]
    p = jax.nn.softmax(x @ head["kernel"] + head["bias"])
    expected = jnp.einsum("bi,bc->ic", x**2, p * (1 - p)) / 32
    np.testing.assert_allclose(new.optimizer[0]["head"]["kernel"], expected, rtol=1e-3, atol=1e-6)


def test_without_a_refresh_the_curvature_stays_and_costs_nothing():
    run = built(optimizer=C.Optimizer("engine.root_newton", 0.1))
    state, batch = start(run), engine.batch()
    first, _ = step(run, state, batch, True)
    second, _ = step(run, first, batch, False)
    third, _ = step(run, second, batch, True)
    close(first.optimizer[0], second.optimizer[0], rtol=0, atol=0)
    assert differs(second.optimizer[0], third.optimizer[0])
    assert differs(first.params, second.params)
    flops = [
        run.train_step(refresh).lower(run.state, run.batch).compile().cost_analysis()["flops"]
        for refresh in (False, True)
    ]
    plain = built(optimizer=SGD)
    base = plain.train_step(False).lower(plain.state, plain.batch).compile().cost_analysis()
    assert flops[0] < 1.1 * base["flops"]
    assert flops[1] > 1.5 * flops[0]


def test_a_part_of_the_batch_can_serve_for_curvature():
    changes = {"optimizer": C.Optimizer("engine.root_newton", 0.1, options={"eps": 1e9})}
    whole = built(**changes)
    part = built(**changes, curvature=C.Curvature(fraction=0.25))
    state, batch = start(whole), engine.batch()
    (a, m), (b, n) = (step(run, state, batch, True) for run in (whole, part))
    close(a.params, b.params)  # eps hides the curvature: the gradients are the same
    close(m, n, rtol=1e-4)
    assert differs(a.optimizer, b.optimizer)


def test_gnb_is_told_the_loss_and_gives_a_positive_diagonal():
    run = built(
        optimizer=C.Optimizer("engine.root_newton", 0.1),
        curvature=C.Curvature("gnb"),
        accumulate=2,
    )
    plain = built(optimizer=SGD)
    state, batch = start(run), engine.batch()
    new, metrics = step(run, state, batch, True)
    _, expected = step(plain, start(plain), batch)
    for name in ("loss", "accuracy", "grad_norm"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    assert all((x >= 0).all() and (x > 0).any() for x in jax.tree.leaves(new.optimizer))


@pytest.mark.parametrize(
    ("make", "reads"),
    [
        (lambda: optax.adamw(1e-3), False),
        (lambda: optax.lbfgs(), False),
        (lambda: optax.contrib.sophia(1e-3), False),
        (lambda: engine.root_newton(0.1), True),
        (lambda: optax.chain(optax.clip(1.0), engine.root_newton(0.1)), True),
        (lambda: optax.inject_hyperparams(engine.root_newton)(learning_rate=0.1), True),
        (lambda: optax.apply_if_finite(engine.root_newton(0.1), 3), True),
        (lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), False),
    ],
)
def test_an_optimizer_that_reads_curvature_is_found_through_its_wrappers(make, reads):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    assert parts.reads(optax.with_extra_args_support(make()), params)[1] is reads


def test_optimizers_of_the_house_that_read_curvature_are_found():
    from papyrax import optim

    params = {"w": jnp.ones((2, 3))}
    found = {}
    for name in optim.__all__:
        factory = getattr(optim, name)
        if name not in parts.available("optimizer") or parts.required(factory) > 1:
            continue
        transform = optax.with_extra_args_support(factory(learning_rate=0.1))
        if name == "tram":  # asks for a distance that only the user's own step can measure
            with pytest.raises(ValueError, match="radius"):
                parts.reads(transform, params)
            continue
        found[name] = parts.reads(transform, params)[1]
        assert found[name] is optim.wants_curvature(transform.init(params)), name
    assert found["adahessian"]
    assert not found["perpgrad"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fedavg", "there is no optimizer 'fedavg'"),
        ("papyrax.optim.fedavg", "is no optax transformation: it makes FederatedOptimizer"),
        ("papyrax.optim.fused_adahessian", "is no optax transformation: it makes FusedOptimizer"),
    ],
)
def test_what_is_no_transformation_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        parts.optimizer(C.Config(optimizer=C.Optimizer(name)))


def test_curvature_is_estimated_as_the_authors_of_the_optimizer_do():
    from papyrax.optim import curvature_plan

    for name in ("adahessian", "sophia_g"):
        config = C.Config(optimizer=C.Optimizer(name))
        assert parts.curvature_plan(config) == tuple(curvature_plan(name))
    config = C.Config(optimizer=C.Optimizer("sophia_g"), curvature=C.Curvature("hutchinson", 3))
    assert parts.curvature_plan(config) == ("hutchinson", 3)
    assert parts.curvature_plan(C.Config()) == ("hutchinson", 1)


def test_adahessian_steps_as_it_does_by_hand():
    from papyrax.optim import adahessian

    optimizer = C.Optimizer("adahessian", 0.1, options={"weight_decay": 0.1})
    run = built(
        model=C.Part("mlp", {"widths": []}),
        optimizer=optimizer,
        curvature=C.Curvature("exact_diagonal"),
    )
    state, batch = start(run), engine.batch()
    new, _ = step(run, state, batch, True)
    x = batch["inputs"].reshape(32, -1)

    def loss(params):
        logits = x @ params["head"]["kernel"] + params["head"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

    head = state.params["head"]
    p = jax.nn.softmax(x @ head["kernel"] + head["bias"])
    curved = {
        "kernel": jnp.einsum("bi,bc->ic", x**2, p * (1 - p)) / 32,
        "bias": jnp.mean(p * (1 - p), 0),
    }
    from papyrax.curvature import Curvature

    mask = {"head": {"kernel": True, "bias": False}}
    tx = adahessian(0.1, weight_decay=0.1, mask=mask)
    updates, _ = tx.update(
        jax.grad(loss)(state.params),
        tx.init(state.params),
        state.params,
        curvature=Curvature({"head": curved}),
    )
    close(new.params, optax.apply_updates(state.params, updates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "lbfgs", "sophia", "sam"])
def test_optimizers_that_ask_for_the_loss_are_given_it(name):
    options = {"lbfgs": {"memory_size": 3}}.get(name, {})
    if name == "sam":
        config = C.Optimizer("test_step.sam_sgd", 0.1)
    else:
        config = C.Optimizer(name, 0.1, options=options)
    run = built(optimizer=config)
    state, batch = start(run), engine.batch()
    losses = []
    for _ in range(8):
        state, metrics = step(run, state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.1


def sam_sgd(learning_rate):
    return optax.contrib.sam(
        optax.sgd(learning_rate), optax.contrib.normalize(), opaque_mode=True, reset_state=False
    )


def test_a_loss_keeps_its_state():
    run = built(loss=C.Part("engine.moving_prior", {"momentum": 0.5}), optimizer=SGD, accumulate=2)
    state, batch = start(run), engine.batch()
    assert state.loss["prior"].shape == (10,)
    new, _ = step(run, state, batch)
    assert int(new.loss["count"]) == 2  # once a microbatch
    # 1/2 (1/2 p_0 + p_1) with p_i the microbatches' mean predictions, of the same parameters.
    h = batch["inputs"].reshape(32, -1)
    hidden, head = state.params["hidden"][0], state.params["head"]
    logits = jax.nn.relu(h @ hidden["kernel"] + hidden["bias"]) @ head["kernel"] + head["bias"]
    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(
        new.loss["prior"], 0.25 * p[::2].mean(0) + 0.5 * p[1::2].mean(0), rtol=1e-4
    )


def test_a_loss_that_remembers_every_example_is_told_which_they_are():
    from papyrax import losses

    options = {"temperature": 0.5, "adaptivity": 3.0}
    run = built(loss=C.Part("aldr_kl", options), optimizer=SGD)
    assert run.batch["index"].shape == (32,)
    state, batch = start(run), engine.batch()
    assert state.loss.temperatures.shape == (1438,)
    index = np.random.default_rng(0).permutation(1438)[:32].astype(np.int32)
    new, metrics = step(run, state, {**batch, "index": index})
    h = batch["inputs"].reshape(32, -1)
    hidden, head = state.params["hidden"][0], state.params["head"]
    logits = jax.nn.relu(h @ hidden["kernel"] + hidden["bias"]) @ head["kernel"] + head["bias"]
    remembered = losses.aldr_kl_init(1438, temperature=0.5)
    values, remembered = losses.aldr_kl(remembered, logits, batch["labels"], index, **options)
    np.testing.assert_allclose(metrics["loss"], values.mean(), rtol=1e-5)
    np.testing.assert_allclose(new.loss.temperatures, remembered.temperatures, rtol=1e-5)
    moved = np.flatnonzero(np.asarray(new.loss.temperatures) != 0.5)
    np.testing.assert_array_equal(moved, np.sort(index))


def test_the_index_of_an_example_is_its_number_in_the_split():
    from papyrax.train import feed

    plain = feed.open_split(small(data=C.Data("digits", 359)))
    numbered = feed.open_split(small(data=C.Data("digits", 359), loss=C.Part("aldr_kl")))
    assert numbered.spec.features["index"].shape == ()
    assert "index" not in next(plain)
    everything = feed.open_split(small(data=C.Data("digits", 1438)), split="train")
    rows = next(everything)["inputs"]
    for _ in range(2):
        batch = next(numbered)
        np.testing.assert_array_equal(batch["inputs"], rows[batch["index"]])


def test_a_factory_of_init_and_apply_is_a_loss_too():
    run = built(loss=C.Part("test_step.make_prior", {"momentum": 0.5}), optimizer=SGD)
    same = built(loss=C.Part("engine.moving_prior", {"momentum": 0.5}), optimizer=SGD)
    state, batch = start(run), engine.batch()
    close(step(run, state, batch), step(same, state, batch), rtol=0, atol=0)


def make_prior(momentum=0.9):
    apply = functools.partial(engine.moving_prior.apply, momentum=momentum)
    return engine.Pair(engine.moving_prior.init, apply)


def test_a_loss_with_a_state_and_cut_curvature_is_refused():
    with pytest.raises(UserError, match="moving_prior keeps a state"):
        built(
            loss=C.Part("engine.moving_prior"),
            optimizer=C.Optimizer("engine.root_newton"),
            accumulate=2,
        )


def test_dense_and_integer_labels_are_told_apart():
    """Also where the batch is as large as the number of classes."""
    state, batch = None, engine.batch(10)
    losses = []
    for name in ("softmax_cross_entropy_with_integer_labels", "softmax_cross_entropy"):
        run = built(loss=C.Part(f"optax.losses.{name}"), data=C.Data("digits", 10), optimizer=SGD)
        state = start(run)
        new, metrics = step(run, state, batch)
        losses.append((metrics, new.params))
    close(losses[0], losses[1])


@pytest.mark.parametrize("name", ["stablemax_cross_entropy", "squared_error", "kl_divergence"])
def test_losses_of_either_kind_of_labels_train(name):
    run = built(loss=C.Part(name), optimizer=C.Optimizer("adam", 1e-2))
    state, batch = start(run), engine.batch()
    losses = []
    for _ in range(5):
        state, metrics = step(run, state, batch)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (C.Part("triplet_margin_loss"), "loss: triplet_margin_loss does not take logits"),
        (C.Part("sofmax_cross_entropy"), "did you mean 'softmax_cross_entropy'"),
        (C.Part("sigmoid_focal_loss", {"gama": 2}), "did you mean 'gamma'?"),
        (C.Part("engine.moving_prior", {"moment": 2}), "did you mean 'momentum'?"),
    ],
)
def test_a_loss_that_does_not_fit_is_named(loss, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        built(loss=loss)


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


def test_weight_decay_leaves_biases_alone():
    for decayed, moves in ((r"kernel$", False), (r"", True)):
        run = built(
            optimizer=C.Optimizer("adamw", 0.1, decayed=decayed, options={"weight_decay": 1.0})
        )
        plain = built(optimizer=C.Optimizer("adamw", 0.1, options={"weight_decay": 0.0}))
        # A bias of one, so that its decay shows.
        state = start(run)
        bias = jax.tree.map(jnp.ones_like, state.params["head"]["bias"])
        head = {**state.params["head"], "bias": bias}
        state = dataclasses.replace(state, params={**state.params, "head": head})
        a, b = (step(r, state, engine.batch())[0].params["head"] for r in (run, plain))
        assert differs(a["kernel"], b["kernel"])
        assert differs(a["bias"], b["bias"]) is moves


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


def strict(query, key, value):
    raise ValueError(f"query: got {query.shape[2]} heads, takes none")


def test_a_step_is_compiled_for_a_machine_that_is_only_described():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:
        pytest.skip(f"no TPU compiler: {error}")
    config = small(mesh=C.Mesh(data=2, model=2), model=engine.VIT)
    mesh = sharding.make_mesh(config.mesh, described.devices)
    run = build(config, mesh, engine.digits())
    compiled = run.train_step(False).lower(run.state, run.batch).compile()
    assert compiled.memory_analysis().argument_size_in_bytes > 0
    assert "all-reduce" in compiled.as_text()
