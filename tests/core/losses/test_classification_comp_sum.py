"""Comp-sum losses against the quotient they are defined by, and the bounds against sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from papyrax.losses import (
    comp_sum_loss,
    comp_sum_regret_bound,
    generalized_cross_entropy,
    smooth_adversarial_comp_sum_loss,
)

ORDERS = (0.0, 0.3, 1.0, 1.7, 2.0, 3.0)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 5)) * 2, rng.integers(0, 5, 8)


def slow(logits, labels, order):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = p[np.arange(len(p)), labels]
    return -np.log(p) if order == 1 else (1 - p ** (order - 1)) / (order - 1)


@pytest.mark.parametrize("order", ORDERS)
def test_definition_and_shift(data, order):
    logits, labels = data
    with jax.enable_x64(True):
        got = comp_sum_loss(jnp.asarray(logits), labels, order=order)
        np.testing.assert_allclose(got, slow(logits, labels, order), rtol=1e-12)
        shifted = comp_sum_loss(jnp.asarray(logits + 7.5), labels, order=order)
        np.testing.assert_allclose(shifted, got, rtol=1e-12)


def test_named_members(data):
    logits, labels = map(jnp.asarray, data)
    p = jax.nn.softmax(logits)[jnp.arange(8), labels]
    close = {"rtol": 1e-5, "atol": 1e-6}
    xent = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(comp_sum_loss(logits, labels), xent, **close)
    np.testing.assert_allclose(comp_sum_loss(logits, labels, order=2.0), 1 - p, **close)
    s = jnp.exp(logits - logits[jnp.arange(8), labels][:, None]).sum(-1) - 1
    np.testing.assert_allclose(comp_sum_loss(logits, labels, order=0.0), s, rtol=1e-4)
    gce = generalized_cross_entropy(logits, labels)
    np.testing.assert_allclose(gce, (1 - p**0.7) / 0.7, **close)
    ends = [generalized_cross_entropy(logits, labels, exponent=q) for q in (0.0, 1.0)]
    np.testing.assert_allclose(ends, [xent, 1 - p], **close)


def test_it_tends_to_cross_entropy_linearly_in_the_order(data):
    logits, labels = data
    with jax.enable_x64(True):
        logits = jnp.asarray(logits)
        errors = [
            jnp.abs(
                comp_sum_loss(logits, labels, order=1 + e) - comp_sum_loss(logits, labels)
            ).max()
            for e in (1e-3, 1e-5, 1e-9)
        ]
        assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)
        assert errors[2] < 1e-7


def test_order_may_be_traced(data):
    logits, labels = data
    run = jax.jit(lambda order: comp_sum_loss(jnp.asarray(logits), labels, order=order))
    for order in (0.0, 1.0, 2.0):
        np.testing.assert_allclose(run(order), slow(logits, labels, order), rtol=2e-4, atol=1e-6)


def test_small_losses_keep_their_digits():
    """A probability of 1 - 1e-12 has a float32 loss of 1e-12, not of zero."""
    logits = jnp.array([[0.0, np.log(1e-12)]])
    for order in (0.0, 1.0, 2.0):
        loss = comp_sum_loss(logits, jnp.array([0]), order=order)
        np.testing.assert_allclose(loss, 1e-12, rtol=1e-5)


def test_tail_beyond_the_dtype_is_convex_and_finite():
    gaps = jnp.linspace(0, 1e4, 201)
    logits = jnp.stack([jnp.zeros(201), gaps], -1)
    f = jax.vmap(jax.value_and_grad(lambda z: comp_sum_loss(z, jnp.array(0), order=0.0)))
    value, grad = f(logits)
    assert jnp.isfinite(value).all()
    assert (jnp.diff(value) > 0).all()
    assert (jnp.diff(grad[:, 1]) >= 0).all()
    np.testing.assert_allclose(value[1], np.exp(50), rtol=1e-4)


def test_smooth_adversarial_loss(data):
    logits, labels = data
    moved = logits + np.random.default_rng(1).normal(size=logits.shape)
    kwargs = {"order": 1.5, "margin": 0.7, "smoothness": 0.3}
    with jax.enable_x64(True):
        got = smooth_adversarial_comp_sum_loss(
            jnp.asarray(logits), jnp.asarray(moved), labels, **kwargs
        )
    want = slow(logits / 0.7, labels, 1.5)
    for i, y in enumerate(labels):
        others = [j for j in range(5) if j != y]
        margins, attacked = (z[i, y] - z[i, others] for z in (logits, moved))
        want[i] += 0.3 * np.linalg.norm(attacked - margins)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_without_an_attack_it_is_the_loss_at_a_temperature(data):
    logits, labels = map(jnp.asarray, data)
    f = lambda z: smooth_adversarial_comp_sum_loss(logits, z, labels, margin=2.0)  # noqa: E731
    np.testing.assert_allclose(f(logits), comp_sum_loss(logits / 2, labels), rtol=1e-5)
    # Ascent by the attacked scores sees the second term alone, and is safe where it is zero.
    assert (jax.grad(lambda z: f(z).sum())(logits) == 0).all()
    a_shift = jnp.abs(f(logits + 3.0) - f(logits))
    assert a_shift.max() < 1e-5


def conditional_risk(scores, p, order):
    """Expected loss of one example whose label is drawn from p, for every row."""
    losses = jnp.stack(
        [comp_sum_loss(scores, jnp.full(len(scores), k), order=order) for k in range(p.shape[-1])],
        -1,
    )
    return (p * losses).sum(-1)


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
def test_bound_holds_for_random_conditional_distributions(order):
    rng = np.random.default_rng(int(order * 10))
    with jax.enable_x64(True):
        for n in (2, 4):
            p = rng.dirichlet(np.full(n, 0.5), 2000)
            scores = rng.normal(size=(2000, n)) * 2
            if order < 2:
                best = p ** (1 / (2 - order))
                best = jnp.log(best / best.sum(-1, keepdims=True) + 1e-300)
            else:
                best = 50.0 * jnp.asarray(np.eye(n)[p.argmax(-1)])
            regret = conditional_risk(scores, p, order) - conditional_risk(best, p, order)
            assert regret.min() > -1e-9
            error = p.max(-1) - p[np.arange(2000), scores.argmax(-1)]
            bound = comp_sum_regret_bound(regret, order=order, classes=n)
            assert (error <= np.asarray(bound) + 1e-9).all()


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0])
def test_bound_is_attained_by_a_fair_coin_almost(order):
    """Two classes, p = (1/2 + e, 1/2 - e), equal scores that choose the worse: tight as e -> 0."""
    e = 1e-3
    with jax.enable_x64(True):
        p = np.array([[0.5 + e, 0.5 - e]])
        fair = conditional_risk(jnp.zeros((1, 2)), p, order)[0]
        if order < 2:
            f = lambda z: float(conditional_risk(jnp.array([[z[0], 0.0]]), p, order)[0])  # noqa: E731
            best = minimize(f, [0.01], tol=1e-14, method="Nelder-Mead").fun
        else:
            best = 0.5 - e
        bound = comp_sum_regret_bound(fair - best, order=order, classes=2)
        assert 2 * e / float(bound) == pytest.approx(1, abs=5e-3)
