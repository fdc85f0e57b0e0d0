"""Preference losses against the authors' code, closed forms and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded
from scipy.special import expit

import papyrax.losses as losses

AUTHORS = recorded("preference")
DPO = jax.jit(losses.dpo_loss)


@pytest.mark.parametrize("name", ["dpo_loss", "ipo_loss"])
def test_authors(name):
    compare(AUTHORS[name], lambda **a: getattr(losses, name)(**a).mean())


def test_authors_kto():
    """Each half takes the mean gain of the other as its baseline, without a gradient through it."""
    entry = AUTHORS["kto_loss"]
    a = {k: np.asarray(v) for k, v in entry["arrays"].items()}
    with jax.enable_x64(True):

        def each(chosen, rejected, reference_chosen, reference_rejected):
            good, bad = chosen - reference_chosen, rejected - reference_rejected
            yes = jnp.ones(5, bool)
            return jnp.concatenate(
                [
                    losses.kto_loss(chosen, reference_chosen, yes, bad.mean()),
                    losses.kto_loss(rejected, reference_rejected, ~yes, good.mean()),
                ]
            ).mean()

        np.testing.assert_allclose(jax.jit(each)(**a), entry["value"], rtol=1e-12)


def test_authors_mapo():
    def mean_loss(chosen_prediction, rejected_prediction, target):
        w, l = target[:3], target[3:]
        errors = (
            jnp.square(p - t).mean(-1)
            for p, t in zip((chosen_prediction, rejected_prediction), (w, l))
        )
        return losses.mapo_loss(*errors, timesteps=10).mean()

    compare(AUTHORS["mapo_loss"], mean_loss)


def logp(seed, n=5):
    return -np.random.default_rng(seed).uniform(0.2, 5, n)


def test_dpo():
    w, l, rw, rl = (logp(s) for s in range(4))
    h = (w - l) - (rw - rl)
    with jax.enable_x64(True):
        np.testing.assert_allclose(DPO(w, l, rw, rl), -np.log(expit(0.1 * h)), rtol=1e-12)
        np.testing.assert_allclose(DPO(w, l, w, l), np.log(2), rtol=1e-12)
        smooth = -0.8 * np.log(expit(0.1 * h)) - 0.2 * np.log(expit(-0.1 * h))
        np.testing.assert_allclose(DPO(w, l, rw, rl, label_smoothing=0.2), smooth, rtol=1e-12)
        # The pair the other way round swaps the smoothing, lengths included.
        n = np.array([3, -7, 0, 2, 5])
        a = DPO(w, l, rw, rl, label_smoothing=0.2, length_difference=n)
        b = DPO(l, w, rl, rw, label_smoothing=0.2, length_difference=-n)
        both = DPO(w, l, rw, rl, length_difference=n) + DPO(l, w, rl, rw, length_difference=-n)
        np.testing.assert_allclose(a + b, both, rtol=1e-12)
        same = DPO(w, l, rw, rl, length_difference=n * 0)
        np.testing.assert_allclose(same, DPO(w, l, rw, rl), rtol=1e-12)
        assert (DPO(w, l, w, l, length_difference=abs(n) + 1) < np.log(2)).all()


def test_kto_baseline_is_not_negative_and_carries_no_gradient():
    p, q = map(jnp.asarray, (logp(4), logp(5)))
    good = jnp.array([True, False, True, False, True])
    kto = jax.jit(losses.kto_loss)
    np.testing.assert_allclose(kto(p, q, good, -1.0), kto(p, q, good, 0.0), rtol=1e-6)
    slope = jax.jit(jax.grad(lambda z: losses.kto_loss(p, q, good, z).sum()))
    assert slope(0.7) == 0
    want = np.where(good, 1 - expit(0.1 * (p - q - 0.7)), 1 - expit(0.1 * (0.7 - (p - q))))
    np.testing.assert_allclose(kto(p, q, good, 0.7), want, rtol=1e-5)


def test_orpo_and_simpo():
    w, l = logp(6), logp(7)
    odds = [np.exp(x) / (1 - np.exp(x)) for x in (w, l)]
    with jax.enable_x64(True):
        want = -w - 0.25 * np.log(expit(np.log(odds[0] / odds[1])))
        np.testing.assert_allclose(jax.jit(losses.orpo_loss)(w, l, beta=0.25), want, rtol=1e-10)
        want = -np.log(expit(2 * (w - l) - 1))
        np.testing.assert_allclose(jax.jit(losses.simpo_loss)(w, l), want, rtol=1e-10)


def test_mapo_proxy():
    """`s(m)` at small errors, where the plain formula has no digits, and its derivative there."""
    m = np.array([0.0, 1e-12, 1e-6, 0.05, 0.199, 0.2, 0.201, 1.0, 30.0, 1400.0])
    mapo = jax.jit(lambda w, l: losses.mapo_loss(w, l, beta=1.0, timesteps=1))
    with jax.enable_x64(True):
        x = np.maximum(m, 1e-300) * 0.5
        s = np.where(x < 1e-5, 1 - x / 2, x / np.expm1(np.maximum(x, 1e-5)))
        want = m + np.log1p(np.exp(-(s - 1)))
        np.testing.assert_allclose(mapo(m, 0 * m), want, rtol=1e-10)
        slope = jax.jit(jax.grad(lambda w: mapo(w, 0 * w).sum()))(m[:3])
        np.testing.assert_allclose(slope, 1 + 0.25 / 2, rtol=1e-5)


def test_sequence_log_probability():
    rng = np.random.default_rng(8)
    z, y, where = rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4)), rng.random((3, 4)) < 0.6
    where[2] = False
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    each = np.log(np.take_along_axis(p, y[..., None], -1)[..., 0]) * where
    f = jax.jit(losses.sequence_log_probability, static_argnames="average")
    np.testing.assert_allclose(f(z, y, where=where), each.sum(-1), rtol=1e-4, atol=1e-6)
    mean = each.sum(-1) / np.maximum(where.sum(-1), 1)
    np.testing.assert_allclose(f(z, y, where=where, average=True), mean, rtol=1e-4, atol=1e-6)


def test_best_worst_pairs_follow_the_order_of_the_judge():
    rewards = np.random.default_rng(9).normal(size=(20, 4))
    rewards[3] = 0.5
    pairs = losses.best_worst_pairs(rewards)
    warped = losses.best_worst_pairs(np.exp(rewards))
    np.testing.assert_array_equal(pairs.chosen, rewards.argmax(-1))
    np.testing.assert_array_equal(pairs.rejected, rewards.argmin(-1))
    np.testing.assert_array_equal(pairs.keep, np.arange(20) != 3)
    for a, b in zip(pairs, warped):
        np.testing.assert_array_equal(a, b)
