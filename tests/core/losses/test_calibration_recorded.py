"""Losses of calibration against values and gradients of the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("calibration")


def test_fit_of_the_correctness_aware_calibrator():
    """The first gradient, and weights and temperatures after the authors' ten steps of Adam."""
    entry = ENTRIES["correctness_aware_loss"]
    with jax.enable_x64(True):
        logits, features, labels = (jnp.asarray(np.array(x)) for x in entry["arrays"].values())
        start = losses.TransformTemperature(**{k: jnp.array(v) for k, v in entry["start"].items()})
        tx = optax.adam(1e-4)

        def mean_loss(params):
            scores = logits / losses.transform_temperature(params, features)[:, None]
            return losses.correctness_aware_loss(scores, labels, balance=True).mean()

        def step(carry, _):
            gradient = jax.grad(mean_loss)(carry[0])
            updates, state = tx.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), state), gradient

        walk = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=10))
        (end, _), gradients = walk(start)
        for name, want in entry["first_gradient"].items():
            np.testing.assert_allclose(getattr(gradients, name)[0], want, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(getattr(end, name), entry["end"][name], rtol=1e-10)
        temperatures = losses.transform_temperature(end, features)
        np.testing.assert_allclose(temperatures, entry["temperatures"], rtol=1e-10)


def test_mixup_ranking():
    """With the mask as the released code spreads it over the batch."""
    entry = ENTRIES["mixup_ranking_loss"]

    def mean_loss(logits, mixed_logits, targets, labels):
        differ = jnp.max(targets, -1) < 1
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        ranking = losses.mixup_ranking_loss(logits, mixed_logits, where=differ, **entry["static"])
        return jnp.mean(loss + 0.1 * ranking)

    compare(entry, mean_loss)


def test_mixup_ndcg():
    def mean_loss(logits, mixed_logits, targets, labels):
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        ranking = losses.mixup_ndcg_loss(logits, mixed_logits, jnp.max(targets, -1))
        return jnp.mean(loss + 0.1 * ranking)

    compare(ENTRIES["mixup_ndcg_loss"], mean_loss)


@pytest.mark.parametrize("name", ["focal_loss", "brier_loss", "label_smoothing_cross_entropy"])
def test_losses_that_it_is_compared_with(name):
    entry, loss = ENTRIES[name], getattr(losses, name)
    compare(entry, lambda **arrays: jnp.mean(loss(**arrays, **entry["static"])))
