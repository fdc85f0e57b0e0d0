"""Optimizers in the step: what they read, curvature above all."""

import dataclasses

import engine
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from steps import SGD, built, close, differs, start, step

from papyrax.train import config as C
from papyrax.train import parts
from papyrax.train.errors import UserError


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
        config = C.Optimizer("test_step_optimizers.sam_sgd", 0.1)
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
