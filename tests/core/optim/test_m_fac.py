"""M-FAC against dense inverses and the authors' recursions, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from papyrax import curvature, optim

WINDOW, DAMPING = 8, 1e-3


def gradients(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{"w": rng.normal(size=(4, 6)), "b": rng.normal(size=5)} for _ in range(count)]


def flat(tree):
    return np.concatenate([np.ravel(tree[k]) for k in sorted(tree)])


def dense(rows, damping, window):
    """The Fisher matrix of the rows [gradients, size] and zeros up to the window."""
    return damping * np.eye(rows.shape[1]) + rows.T @ rows / window


def trajectory(grads, dtype=np.float64, **options):
    tx = optim.scale_by_m_fac(DAMPING, window=WINDOW, **options)
    state = tx.init(jax.tree.map(lambda g: jnp.asarray(g, dtype), grads[0]))
    update, out = jax.jit(tx.update), []
    for g in grads:
        updates, state = update(jax.tree.map(lambda x: jnp.asarray(x, dtype), g), state)
        out.append(jax.tree.map(lambda u: np.asarray(u, np.float64), updates))
    return out, state


def test_equals_the_dense_inverse_at_every_step():
    grads = gradients(3 * WINDOW // 2)
    with jax.enable_x64(True):
        got, state = trajectory(grads)
        fresh, _ = trajectory(grads[-WINDOW:])
    rows = np.stack([flat(g) for g in grads])
    for t in range(len(grads)):
        fisher = dense(rows[max(0, t + 1 - WINDOW) : t + 1], DAMPING, WINDOW)
        want = np.linalg.solve(fisher, rows[t])
        np.testing.assert_allclose(flat(got[t]), want, rtol=0, atol=1e-10 * np.abs(want).max())
    # What left the window is forgotten.
    np.testing.assert_allclose(flat(got[-1]), flat(fresh[-1]), rtol=1e-10)
    last = np.stack([np.ravel(x) for x in np.asarray(state.buffer["b"])])
    assert sorted(last[:, 0]) == sorted(g["b"][0] for g in grads[-WINDOW:])


def test_blocks_are_leaves():
    grads = gradients(WINDOW)
    with jax.enable_x64(True):
        got, _ = trajectory(grads, blocks="leaf")
    for name in ("w", "b"):
        rows = np.stack([np.ravel(g[name]) for g in grads])
        want = np.linalg.solve(dense(rows, DAMPING, WINDOW), rows[-1])
        np.testing.assert_allclose(np.ravel(got[-1][name]), want, rtol=1e-9)


def test_float32_keeps_its_digits_at_the_default_damping():
    """The form with a subtraction of 1 / damping has lost all of them."""
    grads = gradients(WINDOW)
    tx = optim.scale_by_m_fac(1e-5, window=WINDOW)
    state, update = tx.init(jax.tree.map(jnp.float32, grads[0])), jax.jit(tx.update)
    for g in grads:
        updates, state = update(jax.tree.map(jnp.float32, g), state)
    rows = np.stack([flat(g) for g in grads])
    want = np.linalg.solve(dense(rows, 1e-5, WINDOW), rows[-1])
    np.testing.assert_allclose(flat(updates), want, atol=2e-5 * np.abs(want).max())


def test_buffer_in_half_precision():
    grads = gradients(WINDOW)
    got, state = trajectory(grads, np.float32, buffer_dtype=jnp.bfloat16)
    assert state.buffer["w"].dtype == jnp.bfloat16
    assert state.gram.dtype == jnp.float32
    rows = np.stack([flat(g) for g in grads]).astype(jnp.bfloat16).astype(np.float64)
    want = np.linalg.solve(dense(rows, DAMPING, WINDOW), rows[-1])
    np.testing.assert_allclose(flat(got[-1]), want, atol=1e-4 * np.abs(want).max())


def test_equals_the_authors_recursion_and_momentum():
    """Their optimizer: weight decay, product by rank-one updates, average, step; zeros count."""
    grads, lr, decay, mu = gradients(5), 0.1, 0.01, 0.9
    with jax.enable_x64(True):
        tx = optim.m_fac(lr, DAMPING, mu, window=4, weight_decay=decay)
        params = jax.tree.map(lambda g: jnp.ones_like(jnp.asarray(g)), grads[0])
        state, update = tx.init(params), jax.jit(tx.update)
        for g in grads:
            updates, state = update(jax.tree.map(jnp.asarray, g), state, params)
            params = optax.apply_updates(params, updates)
        got = flat(params)
    w, v, window = np.ones(29), 0.0, []
    for g in grads:
        x = flat(g) + decay * w
        window = [*window, x][-4:]
        product = functools.partial(rank_one_product, window, 4)
        v = mu * v + (1 - mu) * product(x)
        w = w - lr * v
    np.testing.assert_allclose(got, w, rtol=1e-9)


def rank_one_product(rows, m, x):
    """F^-1 x by one Sherman-Morrison update a gradient (their static recursion)."""
    vectors, denominators = [], []

    def product(x):
        y = x / DAMPING
        for v, q in zip(vectors, denominators):
            y = y - v * (v @ x) / q
        return y

    for g in rows:
        v = product(g)
        vectors.append(v)
        denominators.append(m + g @ v)
    return product(x)


def test_shards_of_the_buffer_stay_where_they_are():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    params = jax.device_put(jnp.zeros((8, 4)), NamedSharding(mesh, PartitionSpec("data", "model")))
    tx = optim.scale_by_m_fac(0.1, window=4)
    state = tx.init(params)
    want = NamedSharding(mesh, PartitionSpec(None, "data", "model"))
    assert state.buffer.sharding.is_equivalent_to(want, 3)
    step = jax.jit(tx.update, donate_argnums=1).lower(params, state).compile()
    assert "all-gather" not in step.as_text()
    _, state = step(params, state)
    assert state.buffer.sharding.is_equivalent_to(want, 3)


@pytest.mark.parametrize("block_size", [None, 4])
def test_static_products_and_diagonal(block_size):
    rng = np.random.default_rng(1)
    g, x = rng.normal(size=(6, 10)), rng.normal(size=10)
    fisher = dense(g, 1e-5, 6)
    if block_size:
        index = np.arange(10) // block_size
        fisher = np.where(index[:, None] == index, fisher, 0)
    inverse = np.linalg.inv(fisher)
    with jax.enable_x64(True):
        made = curvature.inverse_fisher(jnp.asarray(g), damping=1e-5, block_size=block_size)
        product = np.asarray(curvature.inverse_fisher_vp(made, jnp.asarray(x)))
        diagonal = np.asarray(curvature.inverse_fisher_diagonal(made))
    scale = np.abs(inverse).max()
    np.testing.assert_allclose(product, inverse @ x, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(diagonal, np.diag(inverse), rtol=0, atol=1e-10 * scale)


def test_brain_surgeon_is_optimal_for_one_weight():
    """The update minimizes d'Fd under w_i + d_i = 0, and the statistic is half the minimum."""
    rng = np.random.default_rng(2)
    g, w, i = rng.normal(size=(12, 5)), rng.normal(size=5), 3
    fisher = dense(g, 0.1, 12)
    rest = np.arange(5) != i
    best = np.zeros(5)
    best[i] = -w[i]
    best[rest] = np.linalg.solve(fisher[rest][:, rest], fisher[rest, i] * w[i])
    with jax.enable_x64(True):
        made = curvature.inverse_fisher(jnp.asarray(g), damping=0.1)
        got = curvature.obs_update(made, jnp.asarray(w), jnp.asarray(~rest))
        diagonal = curvature.inverse_fisher_diagonal(made)
        saliency = np.asarray(curvature.obs_saliency(jnp.asarray(w), diagonal))
    np.testing.assert_allclose(np.asarray(got), w + best, atol=1e-10)
    np.testing.assert_allclose(saliency[i], best @ fisher @ best / 2, rtol=1e-9)


def test_without_decay_no_parameters_are_asked_for():
    tx, grads = optim.m_fac(0.3, damping=1.0, window=2), jnp.array([2.0, 0.0])
    np.testing.assert_allclose(tx.update(grads, tx.init(grads))[0], [-0.2, 0], rtol=1e-6)
    tx = optim.m_fac(0.3, window=2, weight_decay=0.1)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(grads, tx.init(grads))
