"""perpGrad against a float64 transcription of the authors' formula, and where float32 is hard."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import papyrax
from papyrax.optim import perpgrad, scale_by_perpgrad


def slow(g, w, rescale, eps=1e-30):
    g, w = (np.asarray(x, np.float64).ravel() for x in (g, w))
    perp = g - (w @ g) / (w @ w + eps) * w
    if rescale:
        perp = perp * (np.linalg.norm(g) / (np.linalg.norm(perp) + eps))
    return perp


@jax.jit
def project(g, w):
    return scale_by_perpgrad().update(g, optax.EmptyState(), w)[0]


@jax.jit
def project_plainly(g, w):
    return scale_by_perpgrad(rescale=False).update(g, optax.EmptyState(), w)[0]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def norm(x):
    return np.linalg.norm(np.asarray(x, np.float64))


@pytest.mark.parametrize("rescale", [True, False])
def test_formula_tensor_by_tensor(rescale):
    w = {"kernel": draw(6, 5), "bias": draw(5, seed=1)}
    g = {"kernel": draw(6, 5, seed=2), "bias": draw(5, seed=3)}
    run = project if rescale else project_plainly
    with jax.enable_x64(True):
        got = run(jax.tree.map(jnp.asarray, g), jax.tree.map(jnp.asarray, w))
        for key in w:
            want = slow(g[key], w[key], rescale).reshape(w[key].shape)
            np.testing.assert_allclose(got[key], want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4])
def test_orthogonal_and_of_the_same_norm_in_float32(share):
    """Also where all but `share` of the gradient lies along the weights, as late in training."""
    w = draw(200, 50)
    g = -w + share * draw(200, 50, seed=1)
    w32, g32 = jnp.asarray(w, jnp.float32), jnp.asarray(g, jnp.float32)
    got = np.asarray(project(g32, w32), np.float64)
    exact_w = np.asarray(w32, np.float64)
    assert abs((got * exact_w).sum()) <= 1e-6 * norm(w) * norm(g)
    np.testing.assert_allclose(norm(got), norm(g), rtol=1e-5)
    cos = (got.ravel() @ slow(g32, w32, True)) / norm(got) / norm(g)
    assert cos > 1 - 1e-5


@pytest.mark.parametrize("scale_w", [1e-12, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("scale_g", [1e-30, 1.0, 1e30])
def test_norms_neither_overflow_nor_vanish(scale_w, scale_g):
    w, g = draw(30), draw(30, seed=1)
    got = project(jnp.asarray(g * scale_g, jnp.float32), jnp.asarray(w * scale_w, jnp.float32))
    np.testing.assert_allclose(np.asarray(got, float) / scale_g, slow(g, w, True), rtol=1e-3)


def test_zero_weights_leave_the_gradient_as_it_is():
    g = jnp.asarray(draw(4, 3), jnp.float32)
    for run in (project, project_plainly):
        for w in (jnp.zeros((4, 3)), jnp.full((4, 3), 1e-20)):
            np.testing.assert_allclose(run(g, w), g, rtol=1e-6)


def test_zero_gradients_and_gradients_along_the_weights_give_zero():
    w = jnp.asarray(draw(8, 7), jnp.float32)
    for factor in (0.0, 1.0, -3.7, 1e-20, 1e20):
        assert (project(factor * w, w) == 0).all()
        leftover = project_plainly(factor * w, w)
        assert norm(leftover) <= 1e-6 * abs(factor) * norm(w)
    # A single number has only its own direction.
    assert project(jnp.array(3.0), jnp.array(2.0)) == 0


def test_bf16_goes_in_and_comes_out_and_is_projected_in_float32():
    w, g = jnp.asarray(draw(64, 8), jnp.bfloat16), jnp.asarray(draw(64, 8, seed=1), jnp.bfloat16)
    got = project(g, w)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(got, np.float64).ravel(), slow(g, w, True), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("rescale", [True, False])
def test_gradient_descent_never_shortens_the_weights(rescale):
    """Pythagoras: |w_{t+1}|^2 = |w_t|^2 + lr^2 |g'|^2, with |g'| = |g| where rescaled."""
    target = draw(12, seed=5)
    tx = optax.chain(scale_by_perpgrad(rescale=rescale), optax.sgd(0.1))
    with jax.enable_x64(True):
        w = jnp.asarray(draw(12))
        for _ in range(10):
            g = w - target
            updates, _ = tx.update(g, tx.init(w), w)
            new = w + updates
            length = norm(g if rescale else slow(g, w, False))
            np.testing.assert_allclose(norm(new) ** 2, norm(w) ** 2 + 0.01 * length**2, rtol=1e-12)
            w = new


def test_perpgrad_is_the_projection_before_adamw():
    w = jnp.asarray(draw(5, 4), jnp.float32)
    ours = perpgrad(0.01, 0.8, 0.95, 1e-6, weight_decay=0.1)
    theirs = optax.adamw(0.01, 0.8, 0.95, 1e-6, weight_decay=0.1)
    s, t, a, b = ours.init(w), theirs.init(w), w, w
    for i in range(4):
        g = jnp.asarray(draw(5, 4, seed=i), jnp.float32)
        u, s = ours.update(g, s, a)
        v, t = theirs.update(project(g, b), t, b)
        a, b = a + u, b + v
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_masks():
    params = {"gain": jnp.array(1.0), "kernel": jnp.asarray(draw(3, 2), jnp.float32)}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = perpgrad(0.1, projection_mask={"gain": False, "kernel": True})
    assert tx.update(grads, tx.init(params), params)[0]["gain"] < -0.09
    bare = perpgrad(0.1)
    assert bare.update(grads, bare.init(params), params)[0]["gain"] == 0
    # Weight decay follows `mask` alone.
    tx = perpgrad(0.1, weight_decay=0.5, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    assert updates["gain"] == 0
    np.testing.assert_allclose(updates["kernel"], -0.05 * params["kernel"], rtol=1e-6)


def test_missing_parameters_are_named():
    with pytest.raises(ValueError, match="params: got None"):
        scale_by_perpgrad().update(jnp.ones(3), optax.EmptyState())


def test_alignment_vanishes_after_the_projection():
    w = {"a": jnp.asarray(draw(5, 4), jnp.float32)}
    g = {"a": -w["a"] + jnp.asarray(draw(5, 4, seed=1), jnp.float32)}
    assert papyrax.metrics.nlm_alignment(w, g)["a"] > 0.5
    assert abs(papyrax.metrics.nlm_alignment(w, project(g, w))["a"]) < 1e-6


def test_program_does_not_grow_with_the_size_of_a_tensor():
    def size(n):
        x = jnp.ones((n, n))
        return len(jax.make_jaxpr(project)(x, x).jaxpr.eqns[0].params["jaxpr"].jaxpr.eqns)

    assert size(2) == size(64)
