"""SAM, SAF and MESA against their definitions, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import optim

PARAMS = {"a": np.array([1.0, -2.0, 0.5]), "b": np.array([[0.3, -0.7]])}
CURVES = {"a": np.array([1.0, 3.0, 0.2]), "b": np.array([[2.0, 5.0]])}


def loss(p):
    """A quadratic and a quartic, whose gradient NumPy can write too."""
    return sum(jnp.sum(CURVES[k] * p[k] ** 2 / 2 + p[k] ** 4 / 4) for k in p)


def gradient(p):
    return {k: CURVES[k] * p[k] + p[k] ** 3 for k in p}


@pytest.mark.parametrize("eta", [None, 0.0, 0.01])
def test_sam_is_the_gradient_of_the_worst_point(eta):
    g, rho = gradient(PARAMS), 0.1
    t = {k: np.ones_like(v) if eta is None else np.abs(v) + eta for k, v in PARAMS.items()}
    norm = np.sqrt(sum(np.sum((t[k] * g[k]) ** 2) for k in g))
    want = gradient({k: PARAMS[k] + rho * t[k] ** 2 * g[k] / norm for k in g})
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS)
        tx = optim.scale_by_sam(rho, adaptive=eta is not None, eta=eta or 0.0)
        grads = jax.grad(loss)(params)
        got, _ = tx.update(grads, tx.init(params), params, obj_fn=loss)
    for k in want:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-12)


def test_which_leaves_are_adaptive():
    """A prefix of the tree, a function of it, and a leaf's own flag say the same."""
    params = {"layer": {"w": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}, "gain": jnp.ones(1)}
    fun = lambda p: sum(jnp.sum(x**4) for x in jax.tree.leaves(p))  # noqa: E731
    grads = jax.grad(fun)(params)
    by_hand = {"layer": {"w": True, "b": True}, "gain": False}
    ways = (by_hand, {"layer": True, "gain": False}, lambda p: {"layer": True, "gain": False})
    first, *others = [
        optim.scale_by_sam(0.1, adaptive=way).update(grads, None, params, obj_fn=fun)[0]
        for way in ways
    ]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    with pytest.raises(ValueError, match="adaptive"):
        optim.scale_by_sam(adaptive="layer").update(grads, None, params, obj_fn=fun)


def test_sam_without_a_radius_or_a_gradient_changes_nothing():
    params = jax.tree.map(jnp.float32, PARAMS)
    grads = jax.grad(loss)(params)
    plain, zero = optim.scale_by_sam(0.0), jax.tree.map(jnp.zeros_like, grads)
    for rho, g in ((0.0, grads), (0.1, zero)):
        plain = optim.scale_by_sam(rho)
        got, _ = plain.update(g, plain.init(params), params, obj_fn=loss)
        for k in grads:
            np.testing.assert_allclose(got[k], grads[k], rtol=1e-6)


def test_sam_and_optax_agree():
    params = jax.tree.map(jnp.float32, PARAMS)
    ours = optim.sam(0.1, 0.05, 0.9)
    ascend = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.sgd(0.1, 0.9), ascend, opaque_mode=True)
    states, points = [ours.init(params), theirs.init(params)], [params, params]
    for _ in range(3):
        extras = {"obj_fn": loss}, {"grad_fn": lambda p, _: jax.grad(loss)(p)}
        for i, (tx, extra) in enumerate(zip((ours, theirs), extras)):
            grads = jax.grad(loss)(points[i])
            updates, states[i] = tx.update(grads, states[i], points[i], **extra)
            points[i] = optax.apply_updates(points[i], updates)
    for k in params:
        np.testing.assert_allclose(points[0][k], points[1][k], rtol=1e-5)


def test_sam_needs_a_loss():
    tx = optim.scale_by_sam()
    with pytest.raises(ValueError, match="oracle"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))


def test_trajectory_gradient_and_limit():
    rng = np.random.default_rng(0)
    now, past = rng.normal(size=(2, 3, 5))
    with jax.enable_x64(True):
        total = lambda z, w, tau: jnp.sum(optim.trajectory_loss(z, w, temperature=tau))  # noqa: E731
        grads = jax.grad(total, (0, 1))(jnp.asarray(now), jnp.asarray(past), 2.0)
        far = optim.trajectory_loss(jnp.asarray(now), jnp.asarray(past), temperature=1e4)
    p, q = (np.exp(z / 2) / np.exp(z / 2).sum(-1, keepdims=True) for z in (now, past))
    np.testing.assert_allclose(grads[0], 2 * (p - q), atol=1e-12)
    assert not np.any(grads[1])
    # At a high temperature logits are matched.
    d = now - past
    want = np.sum(np.square(d - d.mean(-1, keepdims=True)), -1) / (2 * 5)
    np.testing.assert_allclose(far, want, rtol=1e-3)


def test_saf_looks_back_exactly_lag_epochs():
    rng, lag, examples = np.random.default_rng(1), 2, 6
    state = optim.saf_init(examples, 3, lag=lag)
    history = rng.normal(size=(8, examples, 3)).astype(np.float32)
    step = jax.jit(lambda s, z, i, e: optim.saf_loss(s, z, i, e, start_epoch=3, weight=0.7))
    for epoch, logits in enumerate(history):
        order = rng.permutation(examples)
        for index in (order[:4], order[2:]):  # two of them twice, as samplers may
            values, state = step(state, logits[index], index, epoch)
            past = history[epoch - lag][index]
            want = 0.7 * optim.trajectory_loss(logits[index], past) if epoch > 3 else 0.0
            np.testing.assert_allclose(values, want, atol=1e-5)


def test_a_group_without_leaves():
    params, rest = {"w": jnp.array([3.0, 4.0])}, optax.sgd(0.1)
    tx = optax.partition({"sam": optim.scale_by_sam(0.1), "rest": rest}, lambda p: "rest")
    oracle = optim.local_oracle(lambda p: jnp.sum(p["w"] ** 2) / 2, params)
    updates, _ = tx.update(params, tx.init(params), params, oracle=oracle)
    np.testing.assert_allclose(updates["w"], [-0.3, -0.4], rtol=1e-6)
