"""Optimistic online Newton steps against their definition, minimized by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from papyrax.optim import optimistic_online_newton

RNG = np.random.default_rng(0)
DIAMETER, BOUND, ALPHA, RADIUS = 2.0, 6.0, 0.4, 1.0
BETA = min(1 / (4 * BOUND * DIAMETER), ALPHA) / 2


def play(rounds, radius, seed=0):
    """Points played on f_t(x) = (a_t x - b_t)^2 / 2, and the losses' coefficients."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rounds, 4))
    b = a @ [0.4, -0.2, 0.1, 0.6] + rng.normal(size=rounds)
    tx = optimistic_online_newton(DIAMETER, BOUND, ALPHA, radius=radius)

    def body(carry, loss):
        params, state = carry
        x = jnp.concatenate([params["u"].ravel(), params["v"]])
        g = (loss[0] @ x - loss[1]) * loss[0]
        updates, state = tx.update({"u": g[:2].reshape(2, 1), "v": g[2:]}, state, params)
        return (optax.apply_updates(params, updates), state), x

    params = {"u": jnp.zeros((2, 1)), "v": jnp.zeros(2)}
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        scan = jax.jit(lambda a, b: jax.lax.scan(body, (params, tx.init(params)), (a, b))[1])
        return np.asarray(scan(a, b)), a, b


@pytest.mark.parametrize("radius", [None, RADIUS])
def test_definition(radius):
    points, a, b = play(12, radius)
    z, gram, hint = np.zeros(4), np.zeros((4, 4)), np.zeros(4)
    touched = 0

    def step(z, h, g):
        inside = z - np.linalg.solve(h, g)
        if radius is None or np.linalg.norm(inside) <= radius:
            return inside
        found = minimize(
            lambda x: g @ x + (x - z) @ h @ (x - z) / 2,
            0.9 * inside / np.linalg.norm(inside),
            jac=lambda x: g + h @ (x - z),
            constraints={
                "type": "ineq",
                "fun": lambda x: radius**2 - x @ x,
                "jac": lambda x: -2 * x,
            },
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        return found.x

    for t, point in enumerate(points):
        h = (1 + BETA / 2 * BOUND**2) * np.eye(4) + BETA / 2 * gram
        np.testing.assert_allclose(point, step(z, h, hint), atol=2e-6)
        hint = (a[t] @ point - b[t]) * a[t]
        z = step(z, h, hint)
        gram += np.outer(hint, hint)
        touched += radius is not None and np.linalg.norm(point) > radius - 1e-6
    assert radius is None or touched >= 3


def test_regret_grows_as_a_logarithm():
    points, a, b = play(6400, RADIUS, seed=1)
    losses = (np.sum(a * points, 1) - b) ** 2 / 2
    regret = []
    for rounds in (400, 1600, 6400):
        best = np.linalg.lstsq(a[:rounds], b[:rounds], rcond=None)[0]  # an unbounded rival: harder
        regret.append(np.sum(losses[:rounds] - (a[:rounds] @ best - b[:rounds]) ** 2 / 2))
    assert np.linalg.norm(points, axis=1).max() < RADIUS + 1e-9
    # Over four times as many rounds sqrt(T) would add twice as much again, log(T) as much again.
    first, second = np.diff(regret)
    assert 0 < second < 1.5 * first


def test_a_hint_that_is_right_makes_the_next_step():
    tx = optimistic_online_newton(DIAMETER, BOUND, ALPHA)
    params = jnp.ones(2)
    with_hint, _ = tx.update(jnp.ones(2), tx.init(params), params, hint=jnp.zeros(2))
    state = tx.update(jnp.ones(2), tx.init(params), params)[1]
    np.testing.assert_allclose(params + with_hint, state.point, rtol=1e-6)
