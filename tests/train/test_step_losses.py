"""Losses in the step: with a state, with an index, of either kind of labels."""

import functools

import engine
import jax
import numpy as np
import pytest
from engine import small
from steps import SGD, built, close, start, step

from papyrax.train import config as C
from papyrax.train.errors import UserError


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
    run = built(loss=C.Part("test_step_losses.make_prior", {"momentum": 0.5}), optimizer=SGD)
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
