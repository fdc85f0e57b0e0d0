"""Projected and proximal steps against SciPy's solver, optimality conditions and brute force."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from papyrax.optim import (
    active_set,
    proximal_block_step,
    select_proximal_block,
    two_metric_step,
)

RNG = np.random.default_rng(0)
ROWS, DIM = 40, 20
A = RNG.normal(size=(ROWS, DIM)) * RNG.uniform(0.3, 3, DIM)
B = A @ np.maximum(RNG.normal(size=DIM), 0) + RNG.normal(size=ROWS)
H = A.T @ A


@functools.partial(jax.jit, static_argnames=("size", "steps", "newton", "nonnegative"))
def descend(size, steps, newton, l1=0.0, nonnegative=True):
    """Parameters before every step of greedy blocks."""
    h = jnp.asarray(H)

    def step(x, _):
        g = h @ x - A.T @ B
        options = {"l1": l1, "nonnegative": nonnegative}
        block = select_proximal_block(x, g, jnp.diag(h), size=size, **options)
        if newton:
            d = two_metric_step(x, g, h, block)
        else:
            d = proximal_block_step(x, g, h, block, **options)
        return x + d, x

    return jax.lax.scan(step, jnp.ones(DIM), length=steps)[1]


def test_nonnegative_least_squares_ends_once_the_support_is_known():
    want = nnls(A, B)[0]
    assert 4 < np.sum(want > 0) < 16
    with jax.enable_x64(True):
        path = np.asarray(descend(16, 40, True))
        slow = np.asarray(descend(16, 40, False))
    assert np.all(path >= 0)
    values = np.sum((path @ A.T - B) ** 2, axis=1)
    assert np.all(np.diff(values) <= 1e-12 * values[0])
    errors = np.max(np.abs(path - want), axis=1)
    known = np.all((path > 0) == (want > 0), axis=1)
    first = np.flatnonzero(~known)[-1] + 1  # it stays known from here on
    assert 0 < first < 30
    # All that is positive fits in a block: once it is known, two steps are exact.
    assert np.all(errors[first + 2 :] < 1e-10)
    assert np.max(np.abs(slow[first + 2] - want)) > 1e-4


def test_two_metric_step_where_a_projected_newton_step_climbs():
    """Bertsekas' warning: a Newton step of all coordinates, projected, may go up at any length."""
    h, x, g = np.array([[1.0, 0.9], [0.9, 1.0]]), np.array([0.0, 1.0]), np.array([1.0, 0.1])
    for size in 0.5 ** np.arange(20):
        d = np.maximum(x - size * np.linalg.solve(h, g), 0) - x
        assert g @ d + d @ h @ d / 2 > 0
    with jax.enable_x64(True):
        d = jax.jit(two_metric_step)(*map(jnp.asarray, (x, g, h)), jnp.arange(2))
    np.testing.assert_allclose(d, [0, -0.1])


def test_search_on_the_objective():
    """A Newton step of log cosh diverges from far; halved until it descends it does not."""
    objective = lambda x: jnp.sum(jnp.log(jnp.cosh(x - 4)))  # noqa: E731
    with jax.enable_x64(True):

        @jax.jit
        def step(x):
            g, h = jax.grad(objective)(x), jax.hessian(objective)(x)
            return x + two_metric_step(x, g, h, jnp.arange(2), objective=objective)

        x = jnp.array([6.5, 4.5])
        values = [float(objective(x))]
        for _ in range(12):
            x = step(x)
            values.append(float(objective(x)))
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(x, 4, atol=1e-6)


def test_proximal_steps_find_the_lasso_and_its_active_set():
    l1 = 30.0
    with jax.enable_x64(True):
        path = descend(5, 3000, False, l1, False)
        x = path[-1]
        g = jnp.asarray(H) @ x - A.T @ B
        zero = np.asarray(active_set(x, g, l1=l1, tolerance=0.0))
    x, g, path = map(np.asarray, (x, g, path))
    # The optimality conditions of the lasso.
    assert np.max(np.abs(g[~zero] + l1 * np.sign(x[~zero]))) < 1e-6
    assert np.all(x[zero] == 0)
    assert np.all(np.abs(g[zero]) < l1)
    assert 3 < zero.sum() < 17
    # Found in finitely many steps, long before the end, and never left again.
    wrong = np.any((path == 0) != zero, axis=1)
    assert 0 < np.flatnonzero(wrong)[-1] < 1500


def test_the_best_of_all_blocks_by_its_proximal_step():
    grid = np.linspace(-4, 4, 80001)
    for l1, nonnegative in ((0.0, True), (0.7, True), (0.7, False), (0.0, False)):
        x, g, bound = RNG.normal(size=6), 2 * RNG.normal(size=6), RNG.uniform(0.5, 4, 6)
        x = np.abs(x) if nonnegative else x
        x[0] = 0
        change = []  # of each coordinate, the least over a grid of steps
        for i in range(6):
            z = np.maximum(grid, 0) if nonnegative else grid
            d = z - x[i]
            value = g[i] * d + bound[i] * d**2 / 2 + l1 * (np.abs(z) - np.abs(x[i]))
            change.append(value.min())
        best = min(itertools.combinations(range(6), 3), key=lambda b: sum(change[i] for i in b))
        with jax.enable_x64(True):
            options = {"size": 3, "l1": l1, "nonnegative": nonnegative}
            select = jax.jit(functools.partial(select_proximal_block, **options))
            got = select(*map(jnp.asarray, (x, g, bound)))
        assert set(np.asarray(got).tolist()) == set(best)


def test_active_set():
    x, g = jnp.array([0.0, 0.0, 5e-5, 1e-3]), jnp.array([0.5, -0.5, 0.5, 0.5])
    assert active_set(x, g, nonnegative=True).tolist() == [True, False, True, False]
    assert active_set(x, g, nonnegative=True, l1=1.0).tolist() == [True, True, True, False]
    assert active_set(x, g, l1=0.4).tolist() == [False] * 4
    assert active_set(x, g, l1=0.6, tolerance=0.0).tolist() == [True, True, False, False]
