"""StableMax against a plain float64 transcription of the paper, and what sets it apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.losses import (
    log_stablemax,
    stablemax,
    stablemax_cross_entropy,
    stablemax_cross_entropy_with_targets,
)


def s(x):
    x = np.asarray(x, np.float64)
    return np.where(x < 0, 1 / (1 - np.minimum(x, 0)), x + 1)


def slow_loss(logits, labels, where=None):
    out = []
    for row, label, mask in zip(
        np.asarray(logits, np.float64), labels, where if where is not None else [None] * 10**6
    ):
        values = s(row) if mask is None else s(row) * mask
        out.append(-np.log(s(row[label]) / values.sum()))
    return np.array(out)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 5)) * 3, rng.integers(0, 5, 7)


def test_loss_is_the_papers_formula(data):
    logits, labels = data
    with jax.enable_x64(True):
        got = stablemax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
        np.testing.assert_allclose(got, slow_loss(logits, labels), rtol=1e-13)
        np.testing.assert_allclose(
            log_stablemax(jnp.asarray(logits)),
            np.log(s(logits) / s(logits).sum(-1, keepdims=True)),
            rtol=1e-13,
        )
    got = stablemax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(got, slow_loss(logits, labels), rtol=1e-5)


def test_the_function_behind_it():
    """s(0) = 1, s(x) s(-x) = 1, increasing, with one derivative from both sides of zero."""
    x = np.linspace(-50, 50, 1001)
    with jax.enable_x64(True):
        # Against a class of score zero, the odds of the other are s itself.
        pairs = jnp.stack([jnp.asarray(x), jnp.zeros(1001)], -1)
        p = stablemax(pairs)
        odds = np.asarray(p[:, 0] / p[:, 1])
        np.testing.assert_allclose(odds, s(x), rtol=1e-12)
        np.testing.assert_allclose(odds * odds[::-1], 1, rtol=1e-12)
        assert (np.diff(odds) > 0).all()
        slope = jax.vmap(jax.grad(lambda z: log_stablemax(jnp.array([z, 0.0]))[0]))
        at = slope(jnp.array([-1e-9, 0.0, 1e-9]))
        np.testing.assert_allclose(at, 0.5, atol=1e-8)


def test_scores_of_zero_have_the_gradient_of_softmax():
    """As a classifier has that starts from zeros: `s` and its derivative are both one there."""
    labels, scores = jnp.array([0, 2]), jnp.zeros((2, 4))
    got = jax.grad(lambda z: stablemax_cross_entropy(z, labels).sum())(scores)
    np.testing.assert_allclose(got, 0.25 - jax.nn.one_hot(labels, 4), rtol=1e-6)


def test_probabilities_sum_to_one_also_at_the_ends_of_float32():
    rng = np.random.default_rng(1)
    for scale in (1e-30, 1.0, 1e4, 1e30):
        logits = jnp.asarray(rng.normal(size=(20, 6)) * scale, jnp.float32)
        p = stablemax(logits)
        np.testing.assert_allclose(p.sum(-1), 1, atol=2e-5)
        assert jnp.isfinite(log_stablemax(logits)).all()
        assert jnp.isfinite(jax.grad(lambda z: log_stablemax(z).sum())(logits)).all()


def test_it_is_not_invariant_to_a_shift(data):
    logits, labels = data
    shifted = stablemax_cross_entropy(jnp.asarray(logits + 5), labels)
    assert jnp.abs(shifted - stablemax_cross_entropy(jnp.asarray(logits), labels)).min() > 1e-2


def test_large_correct_logits_leave_a_gradient_where_softmax_leaves_none():
    """The paper's softmax collapse: in float32 the loss and the gradient are exactly zero."""
    logits = 1e3 * jnp.array([[2.0, -1.0, 0.5], [0.1, 3.0, 0.2]])
    labels = jnp.array([0, 1])
    for loss, collapses in (
        (optax.softmax_cross_entropy_with_integer_labels, True),
        (stablemax_cross_entropy, False),
    ):
        value = loss(logits, labels)
        grad = jax.grad(lambda z, loss=loss: loss(z, labels).sum())(logits)
        if collapses:
            assert (value == 0).all()
            assert (grad == 0).all()
        else:
            assert (value > 0).all()
            assert (grad[jnp.arange(2), labels] < 0).all()


def test_float32_keeps_a_loss_that_rounds_away_in_the_quotient():
    """s_y / sum s is one in float32; the loss is about 1e-14 and right to seven digits."""
    logits = np.array([[1e9, -1e5, -2e5]])
    want = np.log1p((s(-1e5) + s(-2e5)) / s(1e9))
    got = stablemax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.array([0]))
    np.testing.assert_allclose(got, want, rtol=1e-4)
    with jax.enable_x64(True):
        exact = jax.grad(lambda z: stablemax_cross_entropy(z, jnp.array([0]))[0])(
            jnp.asarray(logits)
        )
        exact = np.asarray(exact)
    grad = jax.grad(lambda z: stablemax_cross_entropy(z, jnp.array([0]))[0])(
        jnp.asarray(logits, jnp.float32)
    )
    np.testing.assert_allclose(grad, exact, rtol=1e-4)


def test_masked_classes_take_no_part(data):
    logits, labels = data
    rng = np.random.default_rng(2)
    where = rng.uniform(size=logits.shape) < 0.6
    where[np.arange(7), labels] = True
    where[3, labels[3]] = False  # an example whose own label is absent
    got = stablemax_cross_entropy(jnp.asarray(logits), labels, where=jnp.asarray(where))
    want = slow_loss(logits, labels, where)
    want[3] = 0
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    p = stablemax(jnp.asarray(logits), where=jnp.asarray(where))
    assert (p[~where] == 0).all()
    np.testing.assert_allclose(p.sum(-1), where.any(-1), atol=1e-6)


def test_masked_examples_are_zero_and_silent(data):
    logits, labels = data
    where = jnp.arange(7) < 4

    def total(z):
        return stablemax_cross_entropy(z, labels, where=where).sum()

    plain = stablemax_cross_entropy(jnp.asarray(logits), labels)
    got = stablemax_cross_entropy(jnp.asarray(logits), labels, where=where)
    np.testing.assert_array_equal(got, jnp.where(where, plain, 0))
    grad = jax.grad(total)(jnp.asarray(logits))
    assert (grad[4:] == 0).all()
    assert (grad[:4] != 0).all()


def test_dense_targets(data):
    logits, labels = data
    onehot = jax.nn.one_hot(labels, 5)
    np.testing.assert_allclose(
        stablemax_cross_entropy_with_targets(jnp.asarray(logits), onehot),
        stablemax_cross_entropy(jnp.asarray(logits), labels),
        rtol=1e-5,
        atol=1e-6,
    )
    smooth = np.asarray(optax.smooth_labels(onehot, 0.1))
    log_p = np.log(s(logits) / s(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        stablemax_cross_entropy_with_targets(jnp.asarray(logits), smooth),
        -(smooth * log_p).sum(-1),
        rtol=1e-5,
    )
    nobody = stablemax_cross_entropy_with_targets(
        jnp.asarray(logits), onehot, where=jnp.zeros(7, bool)
    )
    assert (nobody == 0).all()


def test_one_class_and_another_axis(data):
    assert stablemax_cross_entropy(jnp.zeros((2, 1)), jnp.array([0, 0])).tolist() == [0, 0]
    logits = jnp.asarray(data[0])
    np.testing.assert_allclose(log_stablemax(logits, axis=0), log_stablemax(logits.T).T, rtol=1e-6)


def test_dense_targets_of_what_is_masked_may_be_nan():
    x = jnp.array([[1.0, 2.0, jnp.nan], [jnp.nan, 1.0, 2.0]])
    t = jnp.array([[0.5, 0.5, jnp.nan], [0.2, jnp.nan, 0.3]])
    where = jnp.array([[True, True, False], [False, False, False]])
    f = jax.jit(lambda x: stablemax_cross_entropy_with_targets(x, t, where=where))
    want = stablemax_cross_entropy_with_targets(x[:1, :2], t[:1, :2])
    np.testing.assert_allclose(f(x), [want[0], 0], rtol=1e-6)
    slope = jax.grad(lambda x: f(x).sum())(x)
    assert np.isfinite(slope).all()
    assert not np.any(slope[~where])
    p = jax.grad(lambda x: stablemax(x, where=where)[0, 0])(x)
    assert np.isfinite(p).all()
