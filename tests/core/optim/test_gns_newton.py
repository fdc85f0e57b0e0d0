"""Gradient-regularized Newton against the authors' algorithm in NumPy, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import curvature, optim

RNG = np.random.default_rng(0)
ROWS, SIZE = 30, 6
A = RNG.normal(size=(ROWS, SIZE)) * 2.0 ** np.arange(SIZE)
SIGNS = np.where(RNG.uniform(size=ROWS) < 0.5, -1.0, 1.0)


def logistic(x, a, signs):
    return jnp.mean(jnp.logaddexp(0.0, -signs * (a @ x))) + 5e-3 * jnp.sum(x**2)


def gauss_newton(x, v, a, signs):
    p = jax.nn.sigmoid(-signs * (a @ x))
    return a.T @ (p * (a @ v)) / len(a) + 1e-2 * v


def nothing(x, v, a, signs):
    return jnp.zeros_like(v)


def run(steps, product, fun=logistic, start=None, args=(A, SIGNS), gamma=1.0):
    """Values, step lengths, lengths allowed and trials of each step, in float64."""
    with jax.enable_x64(True):
        args = tuple(map(jnp.asarray, args))
        tx = optim.gns_newton(gamma=gamma, order=SIZE)

        def step(carry, _):
            x, state = carry
            value, grads = jax.value_and_grad(fun)(x, *args)
            oracle = optim.local_oracle(fun, x, *args, product=product)
            updates, state = tx.update(grads, state, x, oracle=oracle)
            new = optax.apply_updates(x, updates)
            return (new, state), (new, value, jnp.linalg.norm(updates), state[0])

        x = jnp.zeros(SIZE) if start is None else jnp.asarray(start)
        loop = jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), length=steps)[1])
        return jax.tree.map(np.asarray, loop(x))


def transcription(steps, hessian):
    """The authors' algorithm with dense solves."""

    def f(x):
        return np.mean(np.logaddexp(0, -SIGNS * (A @ x))) + 5e-3 * x @ x

    def grad(x):
        p = 1 / (1 + np.exp(SIGNS * (A @ x)))
        return -A.T @ (SIGNS * p) / ROWS + 1e-2 * x

    x, gamma, path = np.zeros(SIZE), 1.0, []
    for _ in range(steps):
        g, h = grad(x), hessian(x)
        for _ in range(40):
            ridge = np.linalg.norm(g) / (gamma + 1e-8)
            new = x - np.linalg.solve(h + ridge * np.eye(SIZE), g)
            if f(x) - f(new) >= grad(new) @ grad(new) / (8 * ridge):
                gamma = max(2 * gamma, 1e-9)
                break
            gamma /= 2
        x = new
        path.append((x, gamma))
    return np.stack([p for p, _ in path]), np.array([gamma for _, gamma in path])


def weights(x, exact):
    p = 1 / (1 + np.exp(SIGNS * (A @ x)))
    return p * (1 - p) if exact else p


@pytest.mark.parametrize("product", [None, gauss_newton, nothing])
def test_equals_the_authors_algorithm(product):
    def hessian(x):
        if product is nothing:
            return np.zeros((SIZE, SIZE))
        return A.T @ (weights(x, product is None)[:, None] * A) / ROWS + 1e-2 * np.eye(SIZE)

    path, gamma = transcription(5, hessian)
    x, values, lengths, state = run(5, product)
    np.testing.assert_allclose(x, path, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(state.gamma, gamma, rtol=1e-12)
    assert np.all(np.diff(values) < 0)
    # No step is longer than the length it was accepted with, half of the next one.
    assert np.all(lengths <= state.gamma / 2 + 1e-7)


def test_a_quadratic_doubles_the_length_and_converges_superlinearly():
    def quadratic(x, a, signs):
        return 0.5 * jnp.mean(jnp.square(a @ x - signs))

    _, values, _, state = run(12, None, quadratic)
    np.testing.assert_array_equal(state.trials[:4], 1)
    np.testing.assert_allclose(state.gamma[:4], [2, 4, 8, 16])
    best = np.mean((A @ np.linalg.lstsq(A, SIGNS, rcond=None)[0] - SIGNS) ** 2) / 2
    gaps = values - best
    assert gaps[4] < 1e-8 * gaps[0]
    assert gaps[3] / gaps[2] < gaps[2] / gaps[1] / 10
    # Where nothing but rounding is left, the length stays one.
    assert state.gamma.min() > 0.1


def test_negative_curvature_is_no_obstacle():
    def saddle(x, a, signs):
        return jnp.sum(x**4) / 4 - jnp.sum(x**2) / 2

    start = np.linspace(0.01, 0.3, SIZE)
    x, values, _, _ = run(30, None, saddle, start)
    assert np.all(np.diff(values) <= 1e-14)  # the last steps move nothing but rounding
    np.testing.assert_allclose(np.abs(x[-1]), 1, rtol=1e-6)


def test_a_masked_leaf_stands_still_in_the_oracle():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}

    def loss(p):
        return jnp.sum(p["a"] ** 2) * p["b"]

    tx = optax.masked(optim.gns_newton(gamma=1e6), {"a": True, "b": False})
    grads = jax.grad(loss)(params)
    oracle = optim.local_oracle(loss, params)
    updates, _ = tx.update(grads, tx.init(params), params, oracle=oracle)
    np.testing.assert_allclose(params["a"] + updates["a"], 0, atol=1e-3)
    with pytest.raises(ValueError, match="oracle"):
        tx.update(grads, tx.init(params), params, obj_fn=loss)


def test_fisher_is_the_hessian_of_softmax_regression():
    x = jnp.asarray(A[:, :3], jnp.float32)
    y = jnp.asarray(SIGNS > 0, jnp.int32)
    logits = lambda w, x, y: x @ w  # noqa: E731

    def loss(w, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(logits(w, x, y), y).mean()

    w, v = jnp.full((3, 2), 0.1), jnp.arange(6.0).reshape(3, 2)
    fisher = optim.local_oracle(loss, w, x, y, product=curvature.fisher_vp(logits)).product(v)
    exact = optim.local_oracle(loss, w, x, y).product(v)
    np.testing.assert_allclose(fisher, exact, rtol=1e-4)


def test_what_is_not_finite_moves_nothing_and_leaves_gamma():
    params, tx = jnp.ones(3), optim.scale_by_gns_newton(gamma=0.5)
    for loss in (lambda p: jnp.sum(p**2) * jnp.nan, lambda p: jnp.inf + jnp.sum(p**2)):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, tx.init(params), params, obj_fn=loss)
        assert updates.tolist() == [0, 0, 0]
        assert float(state.gamma) == 0.5


def test_leaves_that_are_not_numbers_and_no_leaves():
    params = {"w": jnp.array([3.0, -2.0]), "flag": jnp.array([True]), "table": jnp.arange(2)}
    loss = lambda p: jnp.sum(p["w"] ** 2)  # noqa: E731
    grads = jax.tree.map(jnp.zeros_like, params) | {"w": 2 * params["w"]}
    updates, _ = (tx := optim.scale_by_gns_newton(gamma=1e6)).update(
        grads, tx.init(params), params, obj_fn=loss
    )
    np.testing.assert_allclose(updates["w"], params["w"], rtol=1e-4)
    assert updates["flag"].dtype == bool
    assert not updates["table"].any()
    group = optax.partition({"newton": tx, "rest": optax.sgd(0.1)}, lambda p: "rest")
    oracle = optim.local_oracle(loss, params)
    updates, _ = group.update(grads, group.init(params), params, oracle=oracle)
    np.testing.assert_allclose(updates["w"], -0.2 * params["w"], rtol=1e-6)
