"""Learning from noisy labels against the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("noisy_labels")


def close(got, want, rtol=1e-10):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-13)


def test_elr_over_four_batches():
    """The sum of their losses, with examples that come again and probabilities that are clipped."""
    entry = ENTRIES["elr_loss"]

    def run(logits, labels, indices):
        state = losses.ElrState(jnp.zeros((5, 4)))
        total = 0.0
        for batch in zip(logits, labels, indices):
            loss, state = losses.elr_loss(state, *batch, **entry["static"])
            total += jnp.mean(loss)
        return total, state

    compare(entry, lambda **arrays: run(**arrays)[0])
    with jax.enable_x64(True):
        _, state = jax.jit(run)(**{k: np.array(v) for k, v in entry["arrays"].items()})
        close(state.targets, entry["targets"])


def test_elr_plus():
    """Cross-entropy to mixed labels and the term that holds targets of the other network."""
    entry = ENTRIES["elr_regularizer"]

    def mean_loss(logits, labels, targets):
        loss = optax.softmax_cross_entropy(logits, labels)
        loss += entry["static"]["strength"] * losses.elr_regularizer(logits, targets)
        return loss.mean()

    compare(entry, mean_loss)


def test_distribution_of_nested_dropout(monkeypatch):
    entry, seen = ENTRIES["nested_dropout"], []
    monkeypatch.setattr(jax.random, "categorical", lambda key, logits: seen.append(logits) or 2)
    kept = losses.nested_dropout(jax.random.key(0), jnp.ones(8), **entry["static"])
    np.testing.assert_allclose(jax.nn.softmax(seen[0]), entry["probabilities"], rtol=1e-5)
    np.testing.assert_array_equal(kept, np.arange(8) < 3)


def test_width_after_nested_dropout():
    entry = ENTRIES["select_nested_width"]
    with jax.enable_x64(True):
        arrays = {k: jnp.asarray(np.array(v)) for k, v in entry["arrays"].items()}
        width, accuracy = losses.select_nested_width(**arrays)
        close(accuracy, entry["accuracy"])
        assert width == entry["index"] + 1


def test_selection_of_co_teaching():
    entry = ENTRIES["small_loss_mask"]
    logits, labels = (jnp.asarray(np.array(entry[k])) for k in ("logits", "labels"))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    chosen = losses.small_loss_mask(loss, **entry["static"])
    assert np.flatnonzero(chosen).tolist() == entry["chosen"]


def test_epoch_of_correction():
    """The fitted curves, up to the tolerance of the authors' search, and when they have slowed."""
    entry = ENTRIES["learning_slowdown"]
    with jax.enable_x64(True):
        values = jnp.asarray(np.array(entry["values"]))
        curves = np.stack(jax.jit(jax.vmap(losses.fit_learning_curve))(values), -1)
        np.testing.assert_allclose(curves, entry["curves"], rtol=1e-4)
        slowdown = jax.jit(jax.vmap(losses.learning_slowdown))(values)
        # The authors look at epochs 1 to 15 and say 16 where none has slowed down enough.
        epochs = np.sum(slowdown[:, :15] <= 0.9, 1) + 1
        assert epochs.tolist() == entry["epochs"]


def test_corrected_labels():
    entry = ENTRIES["correct_labels"]
    labels, p = np.array(entry["labels"], np.int32), np.array(entry["probabilities"])
    correct, changed = jax.jit(losses.correct_labels), 0
    for case in entry["cases"]:
        ended = np.isin(np.arange(4), case["ended"])
        limits = {k: case[k] for k in ("threshold", "background_threshold")}
        got = correct(labels, p, ended, **limits)
        np.testing.assert_array_equal(got, case["labels"])
        changed += (got != labels).sum()
    assert changed > 10


@pytest.mark.parametrize("name", [n for n in ENTRIES if n.startswith("multiscale")])
def test_consistency_of_scales(name):
    """Of three images one is sure; another is by a single pixel, where 255 marks no padding."""
    entry = ENTRIES[name]

    def mean_loss(logits, scores, labels=None):
        there = None if labels is None else labels < 255
        return losses.multiscale_consistency_loss(
            logits, scores, where=there, **entry["static"]
        ).mean()

    compare(entry, mean_loss)


def test_soft_labels_of_fkd():
    """The method that FerKD starts from: nothing is replaced and nothing left out."""

    def mean_loss(logits, teacher):
        labels = jnp.zeros(len(logits), int)
        targets, keep = losses.ferkd_labels(teacher, labels, calibrate_below=0.0)
        return jnp.mean(keep * optax.softmax_cross_entropy(logits, targets))

    compare(ENTRIES["ferkd_labels"], mean_loss)
