"""Sophia against its recurrences in NumPy, optax's own, and the wrappers it lives in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
import pytest

from papyrax.curvature import Curvature, gnb, value_grad_and_diag
from papyrax.optim import scale_by_sophia, sophia_g, sophia_h, wants_curvature

SHAPES = {"bias": (3,), "kernel": (4, 3), "conv": (3, 2, 4, 3)}
EVERY = 3


def sequence(steps, negative):
    rng = np.random.default_rng(0)
    draw = lambda: {n: rng.normal(size=s) for n, s in SHAPES.items()}  # noqa: E731
    params, grads, diags = draw(), [draw() for _ in range(steps)], [draw() for _ in range(steps)]
    if not negative:
        diags = [jax.tree.map(np.square, d) for d in diags]
    return params, grads, [d if t % EVERY == 0 else None for t, d in enumerate(diags)]


def expected_steps(params, grads, diags, form, *, lr, b1, b2, eps, gamma, weight_decay):
    """Algorithm 3, and the two forms of the codes, each as its source writes it."""
    p = {n: np.array(x) for n, x in params.items()}
    m = {n: np.zeros_like(x) for n, x in p.items()}
    h = {n: np.zeros_like(x) for n, x in p.items()}
    out = []
    for t, (g, d) in enumerate(zip(grads, diags), 1):
        for n in p:
            if form == "paper":
                m[n] = b1 * m[n] + (1 - b1) * g[n]
                if d is not None:
                    h[n] = b2 * h[n] + (1 - b2) * d[n]
                p[n] = p[n] - lr * weight_decay * p[n]
                p[n] = p[n] - lr * np.clip(m[n] / np.maximum(gamma * h[n], eps), -1, 1)
            elif form == "levanter":
                m[n] = b1 * m[n] + (1 - b1) * g[n]
                m_hat = m[n] / (1 - b1**t)
                u = np.clip(m_hat / np.maximum(gamma * h[n], eps), -1, 1)
                p[n] = p[n] - lr * (u + weight_decay * p[n])
                if d is not None:
                    h[n] = b2 * h[n] + (1 - b2) * d[n]
            else:
                if d is not None:  # there at the end of the last step, at the same parameters
                    h[n] = h[n] * b2 + d[n] * (1 - b2)
                p[n] = p[n] * (1 - lr * weight_decay)
                m[n] = m[n] * b1 + g[n] * (1 - b1)
                ratio = np.minimum(np.abs(m[n]) / (gamma * h[n] + eps), 1)
                p[n] = p[n] - lr * np.sign(m[n]) * ratio
        out.append({n: x.copy() for n, x in p.items()})
    return out


@pytest.mark.parametrize("form", ["paper", "levanter", "official"])
@pytest.mark.parametrize("factory", [sophia_h, sophia_g])
def test_trajectory_is_that_of_the_source(factory, form):
    params, grads, diags = sequence(8, negative=form != "official")
    numbers = {"b1": 0.9, "b2": 0.8, "eps": 1e-12, "gamma": 2.0, "weight_decay": 0.1}
    want = expected_steps(params, grads, diags, form, lr=0.05, **numbers)
    with jax.enable_x64(True):
        tx = factory(0.05, form=form, **numbers)
        p = jax.tree.map(jnp.asarray, params)
        state, update = tx.init(p), jax.jit(tx.update)
        clipped = 0
        for g, d, w in zip(grads, diags, want):
            extra = {} if d is None else {"curvature": Curvature(jax.tree.map(jnp.asarray, d))}
            before = p
            updates, state = update(jax.tree.map(jnp.asarray, g), state, p, **extra)
            p = optax.apply_updates(p, updates)
            for n in SHAPES:
                np.testing.assert_allclose(p[n], w[n], rtol=1e-10, atol=1e-12, err_msg=n)
            moved = np.abs(p["conv"] - before["conv"] * (1 - 0.005)) / 0.05
            clipped += np.mean(moved > 1 - 1e-6) / len(grads)
        assert 0.2 < clipped < 0.95, "clipped and free entries should both be there"
        assert int(state[0].refreshes) == 3


def test_levanter_form_is_optax_sophia():
    """Given the same estimates, by an objective whose Hessian is diagonal, so that probes agree."""
    obj_fn = lambda p: jnp.sum(jnp.cosh(p) * jnp.array([1.0, 5.0, 0.2]))  # noqa: E731
    ours = sophia_h(0.02, form="levanter", eps=1e-8, b1=0.965, gamma=0.5, weight_decay=1e-4)
    theirs = optax.contrib.sophia(0.02, gamma=0.5)
    got = want = jnp.array([0.5, -1.0, 2.0])
    a, b = ours.init(got), theirs.init(want)

    @jax.jit
    def step(p, a, q, b):
        u, a = ours.update(jax.grad(obj_fn)(p), a, p, obj_fn=obj_fn)
        v, b = theirs.update(jax.grad(obj_fn)(q), b, q, obj_fn=obj_fn)
        return optax.apply_updates(p, u), a, optax.apply_updates(q, v), b

    for _ in range(25):
        got, a, want, b = step(got, a, want, b)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert int(a[0].refreshes) == 3


def test_unknown_and_negative_curvature_gives_the_sign():
    g = jnp.array([3.0, -1e-3, 2.0])
    for form in ("paper", "levanter", "official"):
        tx = scale_by_sophia(form=form)
        updates, state = tx.update(g, tx.init(g))
        np.testing.assert_array_equal(updates, jnp.sign(g))
        negative = Curvature(-jnp.ones(3))
        for _ in range(2):
            updates, state = tx.update(g, state, curvature=negative)
        np.testing.assert_array_equal(updates, jnp.sign(g))


def test_without_a_threshold_it_is_newton():
    h = jnp.array([0.5, 4.0])
    tx = scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0, clip_threshold=None)
    updates, _ = tx.update(jnp.ones(2), tx.init(h), curvature=Curvature(h))
    np.testing.assert_allclose(updates, 1 / h, rtol=1e-6)


PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.full((2, 2), 0.5)}


def loss(p):
    return jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 4)


ORACLE = value_grad_and_diag(loss)


def train(tx, steps=8, refresh=lambda i: i % EVERY == 0):
    @functools.partial(jax.jit, static_argnames="refresh", donate_argnums=(0, 1))
    def step(p, s, key, refresh):
        _, grads, curvature = ORACLE(p, key=key, refresh=refresh)
        updates, s = tx.update(grads, s, p, curvature=curvature)
        return optax.apply_updates(p, updates), s

    p = jax.tree.map(jnp.copy, PARAMS)
    s = tx.init(p)
    for i in range(steps):
        p, s = step(p, s, jax.random.key(i), refresh(i))
    return p, s


def assert_same(got, want, rtol=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=1e-7)


def test_static_and_traced_refresh_give_the_same_trajectory():
    tx = sophia_h(0.1)
    static, state = train(tx)

    @jax.jit
    def step(p, s, i):
        _, grads, curvature = ORACLE(p, key=jax.random.key(i), refresh=s[0].count % EVERY == 0)
        updates, s = tx.update(grads, s, p, curvature=curvature)
        return optax.apply_updates(p, updates), s

    p, s = PARAMS, tx.init(PARAMS)
    for i in range(8):
        p, s = step(p, s, i)
    assert_same((p, s), (static, state))


def test_masked_partition_and_multi_steps():
    want, _ = train(sophia_h(0.1))
    masked = optax.chain(
        optax.masked(sophia_h(0.1), {"a": True, "b": False}),
        optax.masked(optax.scale(-0.1), {"a": False, "b": True}),
    )
    got, state = train(masked)
    assert_same(got["a"], want["a"])
    assert wants_curvature(state)
    txs = {"second order": sophia_h(0.1), "first order": optax.sgd(0.1)}
    split, state = train(optax.partition(txs, {"a": "second order", "b": "first order"}))
    assert_same(split, got)
    assert wants_curvature(state)
    every_second = optax.MultiSteps(sophia_h(0.1), 2)
    twice, state = train(every_second, steps=16, refresh=lambda i: i % (2 * EVERY) == 1)
    assert_same(twice, want)
    assert int(state.inner_opt_state[0].refreshes) == 3


def test_inject_hyperparams():
    schedule = optax.linear_schedule(0.1, 0.01, 8)
    plain, _ = train(sophia_h(schedule))
    injected, state = train(optax.inject_hyperparams(sophia_h)(learning_rate=schedule))
    assert_same(injected, plain, rtol=1e-5)
    assert {"b1", "b2", "eps", "gamma", "weight_decay"} <= set(state.hyperparams)


def test_orbax_round_trip_continues_bit_for_bit(tmp_path):
    tx = sophia_h(0.1)
    p, s = train(tx, steps=3)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", (p, s))
        checkpointer.wait_until_finished()
        q, r = checkpointer.restore(
            tmp_path / "c", jax.tree.map(ocp.utils.to_shape_dtype_struct, (p, s))
        )
    step = jax.jit(lambda p, s: tx.update(jax.grad(loss)(p), s, p, obj_fn=loss))
    for a, b in zip(*map(jax.tree.leaves, (step(p, s), step(q, r))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sophia_g_learns_from_sampled_labels():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(128, 8)) * np.geomspace(0.05, 5, 8), jnp.float32)
    y = jnp.argmax(x @ rng.normal(size=(8, 4)), -1)

    def nll(f, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()

    f = value_grad_and_diag(lambda w, x, y: x @ w, estimator=gnb(nll, clip_norm=1.0))
    tx = sophia_g(0.05, form="official", eps=1e-15, b1=0.965, weight_decay=0.0)

    @functools.partial(jax.jit, static_argnames="refresh")
    def step(w, state, key, refresh):
        value, grads, curvature = f(w, x, y, key=key, refresh=refresh)
        updates, state = tx.update(grads, state, w, curvature=curvature)
        return optax.apply_updates(w, updates), state, value

    w = jnp.zeros((8, 4))
    state = tx.init(w)
    for i in range(100):
        w, state, value = step(w, state, jax.random.key(i), i % 10 == 9)
    assert value < 0.5 * np.log(4)
    assert int(state[0].refreshes) == 10
    assert jnp.all(state[0].nu >= 0)


def test_wrong_arguments_are_named():
    for bad in ({"gamma": 0.0}, {"eps": 0.0}, {"form": "optax"}, {"clip_threshold": -1.0}):
        (name,) = bad
        with pytest.raises(ValueError, match=f"{name}: got"):
            scale_by_sophia(**bad)
