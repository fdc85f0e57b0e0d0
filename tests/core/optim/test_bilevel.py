"""Hypergradients against the closed form and against finite differences; BO-REP step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from papyrax import optim

RNG = np.random.default_rng(0)
MIX, TARGET = RNG.normal(size=(4, 3)), RNG.normal(size=4)
ROOT = RNG.normal(size=(4, 4))
CURVE = ROOT @ ROOT.T / 4 + 0.5 * np.eye(4)


def upper(x, y, *args):
    return jnp.sum((y["w"] - TARGET) ** 2) + jnp.sum(jnp.sin(x["a"]))


def lower(x, y, *args):
    """Quadratic in y; the minimizer is M x^2."""
    gap = y["w"] - MIX @ (x["a"] ** 2)
    return gap @ CURVE @ gap / 2


def closed_form(a):
    response = MIX @ a**2
    return np.cos(a) + 2 * a * (MIX.T @ (2 * (response - TARGET)))


@pytest.mark.parametrize(
    "options", [{"iterations": 6}, {"solver": "neumann", "iterations": 600, "step_size": 0.3}]
)
def test_hypergradient_of_a_quadratic(options):
    with jax.enable_x64(True):
        a = jnp.array([0.3, -1.2, 2.0])
        x, y = {"a": a, "n": jnp.arange(2)}, {"w": MIX @ a**2, "n": jnp.arange(3)}
        found = optim.hypergradient(upper, lower, x, y, **options)
        np.testing.assert_allclose(found["a"], closed_form(np.asarray(a)), rtol=1e-9)
        assert found["n"].tolist() == [0, 0]


def test_hypergradient_of_ridge_regression():
    """The lower problem is solved by SciPy, and the upper loss differentiated numerically."""
    inputs, targets = RNG.normal(size=(20, 3)), RNG.normal(size=20)
    valid, wanted = RNG.normal(size=(10, 3)), RNG.normal(size=10)

    def ridge(x, y):
        fit = jnp.mean(jnp.logaddexp(0.0, -targets * (inputs @ y)))
        return fit + jnp.exp(x) * jnp.sum(y**2)

    def error(x, y):
        return jnp.mean((valid @ y - wanted) ** 2)

    with jax.enable_x64(True):
        slope, curve = jax.jit(jax.grad(ridge, 1)), jax.jit(jax.hessian(ridge, 1))

        def solve(x):
            """Newton's method on the lower problem."""
            root = lambda y: np.asarray(slope(x, y))  # noqa: E731
            jac = lambda y: np.asarray(curve(x, y))  # noqa: E731
            return optimize.root(root, np.zeros(3), jac=jac, tol=1e-13).x

        value = lambda x: np.mean((valid @ solve(x) - wanted) ** 2)  # noqa: E731
        x, step = -1.0, 1e-5
        found = optim.hypergradient(error, ridge, jnp.asarray(x), jnp.asarray(solve(x)))
        want = (value(x + step) - value(x - step)) / (2 * step)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_values_that_are_not_finite_are_not_hidden():
    x = {"a": jnp.ones(3)}
    found = optim.hypergradient(upper, lower, x, {"w": jnp.full(4, jnp.inf)})
    assert not np.isfinite(found["a"]).any()


def solver(**options):
    rates = {"learning_rate": 0.05, "lower_learning_rate": 0.2, "adjoint_learning_rate": 0.3}
    return optim.bo_rep(upper, lower, **{**rates, **options})


def test_steps_follow_the_algorithm():
    """NumPy with the closed-form derivatives of the quadratic."""
    solve = solver(momentum=0.8, interval=3, lower_steps=2)
    with jax.enable_x64(True):
        a, w = np.array([0.3, -1.2, 2.0]), np.zeros(4)
        state = solve.init({"a": jnp.asarray(a)}, {"w": jnp.asarray(w)})
        step, z, m = jax.jit(solve.step), np.zeros(4), np.zeros(3)
        for t in range(7):
            state = step(state, jax.random.key(t))
            if t % 3 == 0:
                for _ in range(2):
                    w = w - 0.2 * CURVE @ (w - MIX @ a**2)
            z = z - 0.3 * (CURVE @ z - 2 * (w - TARGET))
            h = np.cos(a) + 2 * a * (MIX.T @ (CURVE @ z))
            m = 0.8 * m + 0.2 * h
            a = a - 0.05 * m / np.linalg.norm(m)
            for got, want in ((state.x["a"], a), (state.y["w"], w), (state.momentum["a"], m)):
                np.testing.assert_allclose(got, want, rtol=1e-10)
        np.testing.assert_allclose(state.adjoint["w"], z, rtol=1e-10)


def test_refinement_averages_epochs_of_falling_rate():
    solve = solver(lower_learning_rate=0.1)
    with jax.enable_x64(True):
        a, w = np.array([0.3, -1.2, 2.0]), np.ones(4)
        state = solve.init({"a": jnp.asarray(a)}, {"w": jnp.asarray(w)})
        found = jax.jit(lambda s: solve.refine(s, jax.random.key(0), epochs=2, steps=3))(state)
        for rate, steps in ((0.1, 3), (0.05, 6)):
            iterates = []
            for _ in range(steps):
                w = w - rate * CURVE @ (w - MIX @ a**2)
                iterates.append(w)
            w = np.mean(iterates, 0)
        np.testing.assert_allclose(found.y["w"], w, rtol=1e-10)


def test_bounds_of_the_steps():
    solve = solver(radius=0.01, lower_steps=5, learning_rate=lambda t: 0.1 / (1 + t))
    state = solve.init({"a": jnp.ones(3)}, {"w": jnp.zeros(4)})
    step = jax.jit(solve.step)
    for t in range(3):
        after = step(state, jax.random.key(t))
        moved = np.linalg.norm(after.x["a"] - state.x["a"])
        np.testing.assert_allclose(moved, 0.1 / (1 + t), rtol=1e-4)
        inner = np.linalg.norm(after.y["w"] - state.y["w"])
        np.testing.assert_allclose(inner, 0.01 if t % 2 == 0 else 0.0, rtol=1e-4)
        state = after
