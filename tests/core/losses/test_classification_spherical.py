"""The spherical family against its formulas and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import ortho_group

from papyrax.losses import spherical_softmax_cross_entropy, taylor_softmax_cross_entropy, z_loss


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 7)) * 2, rng.integers(0, 7, 6)


def slow_z(o, y, a, b):
    z = (o[np.arange(len(o)), y] - o.mean(-1)) / o.std(-1)
    return np.log1p(np.exp(a * (b - z))) / a


def test_formulas(data):
    o, y = data
    with jax.enable_x64(True):
        x = jnp.asarray(o)
        got = z_loss(x, y, sharpness=0.3, threshold=4.0)
        np.testing.assert_allclose(got, slow_z(o, y, 0.3, 4.0), rtol=1e-10)
        t = 1 + o + o**2 / 2
        want = -np.log(t[np.arange(6), y] / t.sum(-1))
        np.testing.assert_allclose(taylor_softmax_cross_entropy(x, y), want, rtol=1e-12)
        t = o**2 + 0.01
        want = -np.log(t[np.arange(6), y] / t.sum(-1))
        got = spherical_softmax_cross_entropy(x, y, eps=0.01)
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e3, 1e30])
def test_z_loss_ignores_shift_and_scale(data, scale):
    o, y = data
    want = slow_z(o, y, 1.0, 0.0)
    got = z_loss(jnp.asarray(scale * (o + 3), jnp.float32), y)
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_euler_identities_of_the_two_invariances(data):
    o, y = data
    with jax.enable_x64(True):
        g = jax.grad(lambda o: z_loss(o, y, sharpness=0.7).sum())(jnp.asarray(o))
        np.testing.assert_allclose(g.sum(-1), 0, atol=1e-11)
        np.testing.assert_allclose((g * o).sum(-1), 0, atol=1e-11)


def test_only_sum_squares_and_the_labels_logit_matter(data):
    """A rotation that keeps the vector of ones and the label's axis changes no member."""
    o, _ = data
    y = np.full(6, 2)
    fixed = np.stack([np.ones(7), np.eye(7)[2]])
    free = null_space(fixed)
    turn = free @ ortho_group.rvs(5, random_state=0) @ free.T + np.eye(7) - free @ free.T
    with jax.enable_x64(True):
        a, b = jnp.asarray(o), jnp.asarray(o @ turn.T)
        assert jnp.abs(a - b).max() > 0.1
        for loss in (z_loss, taylor_softmax_cross_entropy, spherical_softmax_cross_entropy):
            np.testing.assert_allclose(loss(a, y), loss(b, y), rtol=1e-10)


def test_z_loss_is_bounded_below_and_tends_to_the_hinge(data):
    o, y = data
    best = 100.0 * np.eye(7)[y]
    lowest = np.log1p(np.exp(0.5 * (3 - np.sqrt(6)))) / 0.5
    got = z_loss(jnp.asarray(best), y, sharpness=0.5, threshold=3.0)
    np.testing.assert_allclose(got, lowest, rtol=1e-5)
    z = (o[np.arange(6), y] - o.mean(-1)) / o.std(-1)
    hinge = z_loss(jnp.asarray(o), y, sharpness=1e4, threshold=1.0)
    np.testing.assert_allclose(hinge, np.maximum(1 - z, 0), atol=1e-3)


def test_equal_logits_and_absent_classes(data):
    o, y = data
    flat = jnp.full((6, 7), 0.1)
    np.testing.assert_allclose(z_loss(flat, y), np.log(2), rtol=1e-6)
    assert (jax.grad(lambda o: z_loss(o, y).sum())(flat) == 0).all()
    where = np.ones((6, 7), bool)
    gone = (y + 1) % 7
    where[np.arange(6), gone] = False
    for i in range(6):
        keep = np.delete(np.arange(7), gone[i])
        label = np.array([list(keep).index(y[i])])
        for loss in (z_loss, taylor_softmax_cross_entropy):
            got = loss(jnp.asarray(o), y, where=jnp.asarray(where))[i]
            np.testing.assert_allclose(got, loss(jnp.asarray(o[i : i + 1, keep]), label)[0], 1e-5)
