"""Messages against NumPy's solver on random forests, and greedy blocks against a union-find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.optim import forest_block, gaussian_belief_propagation, is_forest

DIM = 24
solve = jax.jit(gaussian_belief_propagation, static_argnames=("sweeps",))
check = jax.jit(is_forest)
grow = jax.jit(forest_block)


def forest(rng, roots=0.2):
    """A positive definite matrix whose graph is a random forest, in a random order."""
    matrix = np.zeros((DIM, DIM))
    for i in range(1, DIM):
        if rng.uniform() > roots:
            j = rng.integers(i)
            matrix[i, j] = matrix[j, i] = rng.normal()
    matrix += np.diag(0.05 - min(np.linalg.eigvalsh(matrix)[0], 0) + rng.uniform(0, 1, DIM))
    order = rng.permutation(DIM)
    return matrix[np.ix_(order, order)]


@pytest.mark.parametrize("roots", [0.0, 0.2, 1.0])
def test_forests_are_solved(roots):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for _ in range(10):
            a, b = forest(rng, roots), rng.normal(size=DIM)
            assert check(jnp.asarray(a))
            want = np.linalg.solve(a, b)
            np.testing.assert_allclose(solve(a, b), want, rtol=1e-6, atol=1e-8)


def test_as_many_sweeps_as_the_diameter():
    """On a path the end hears of the other after dim - 1 sweeps, and not before."""
    with jax.enable_x64(True):
        a = 1.8 * np.eye(6) + np.eye(6, k=1) + np.eye(6, k=-1) + np.diag(np.arange(6.0))
        b = np.arange(6.0)
        want = np.linalg.solve(a, b)
        np.testing.assert_allclose(solve(a, b, sweeps=5), want, rtol=1e-12)
        assert np.max(np.abs(solve(a, b, sweeps=4) - want)) > 1e-6
        # In a star every node hears of every other in two.
        star = np.diag([9.0, 2, 3, 4, 5, 6])
        star[0, 1:] = star[1:, 0] = 1
        np.testing.assert_allclose(solve(star, b, sweeps=2), np.linalg.solve(star, b), rtol=1e-12)


def test_only_the_nodes_that_count():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(DIM, DIM)) * (rng.uniform(size=(DIM, DIM)) < 0.06)
    h = root @ root.T + np.eye(DIM)  # sparse, with cycles
    g = rng.normal(size=DIM)
    with jax.enable_x64(True):
        assert not check(jnp.asarray(h))
        block = grow(jnp.abs(g), jnp.asarray(h))
        assert check(jnp.asarray(h), block)
        step = np.asarray(solve(h, -g, block))
    b = np.flatnonzero(block)
    assert 3 < len(b) < DIM
    np.testing.assert_allclose(step[b], np.linalg.solve(h[np.ix_(b, b)], -g[b]), rtol=1e-6)
    assert np.all(step[~np.asarray(block)] == 0)
    assert not np.any(solve(h, -g, np.zeros(DIM, bool)))


def greedy(scores, edges, allowed):
    """The block by a union-find."""
    parent: dict[int, int] = {}

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i in np.argsort(-scores, kind="stable").tolist():
        near = [find(j) for j in parent if edges[i, j]]
        if allowed[i] and len(near) == len(set(near)):
            parent[i] = i
            for j in near:
                parent[j] = i
    return set(parent)


@pytest.mark.parametrize("density", [0.05, 0.15, 0.6])
def test_the_greedy_block(density):
    rng = np.random.default_rng(2)
    for _ in range(5):
        edges = np.triu(rng.uniform(size=(DIM, DIM)) < density, 1)
        edges = edges | edges.T
        scores, allowed = rng.uniform(size=DIM), rng.uniform(size=DIM) < 0.8
        h = jnp.asarray(edges + np.eye(DIM), jnp.float32)
        block = np.asarray(grow(jnp.asarray(scores, jnp.float32), h, allowed))
        assert set(np.flatnonzero(block).tolist()) == greedy(scores, edges, allowed)
        assert check(h, block)
        # No other can be added.
        for i in np.flatnonzero(allowed & ~block):
            more = block.copy()
            more[i] = True
            assert not check(h, more)


def test_a_lattice_falls_into_few_forests():
    """A grid of 5 x 5 needs two or three; a sweep over them lowers a quadratic every time."""
    side = 5
    line = np.eye(side, k=1) + np.eye(side, k=-1)
    edges = np.kron(line, np.eye(side)) + np.kron(np.eye(side), line)
    h = 5 * np.eye(side**2) - edges
    left, blocks = np.ones(side**2, bool), []
    find = functools.partial(jax.jit(forest_block), jnp.ones(side**2), jnp.asarray(h, jnp.float32))
    while left.any():
        blocks.append(np.asarray(find(left)))
        left &= ~blocks[-1]
    assert 2 <= len(blocks) <= 3
    assert np.all(np.sum(blocks, axis=0) == 1)
    b = np.random.default_rng(3).normal(size=side**2)
    x, values = np.zeros(side**2), []
    with jax.enable_x64(True):
        for block in 12 * blocks:
            x = x + np.asarray(solve(h, b - h @ x, block))
            values.append(x @ h @ x / 2 - b @ x)
    assert np.all(np.diff(values) < 0)
    np.testing.assert_allclose(x, np.linalg.solve(h, b), atol=1e-3)
