"""Selection against every block, and steps against NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.optim import block_step, select_block, select_block_quadratic

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(4, 6))
H = ROOT.T @ ROOT  # of rank 4
G = H @ RNG.normal(size=6)


@functools.partial(jax.jit, static_argnames=("rule",))
def step(g, h, block, rule="hessian"):
    return block_step(g, h, block, rule=rule)


def test_the_best_of_all_blocks():
    for d in (np.ones(6), np.diag(H), np.abs(H).sum(1)):
        best = max(
            itertools.combinations(range(6), 3), key=lambda b: sum(G[i] ** 2 / d[i] for i in b)
        )
        got = select_block(jnp.asarray(G, jnp.float32), jnp.asarray(d, jnp.float32), size=3)
        assert set(np.asarray(got).tolist()) == set(best)


def test_steps():
    with jax.enable_x64(True):
        g, h = jnp.asarray(G), jnp.asarray(H)
        for block in ([3, 0, 5], [0, 1, 2, 3, 4, 5]):
            b = np.array(block)
            sub = H[np.ix_(b, b)]
            want = np.zeros((2, 6))
            want[0, b] = -np.linalg.pinv(sub) @ G[b]
            want[1, b] = -G[b] / np.linalg.eigvalsh(sub)[-1]
            got = [step(g, h, jnp.asarray(b), rule=r) for r in ("hessian", "lipschitz")]
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(G + H @ np.asarray(got[0]), 0, atol=1e-9)  # solved in one
        assert not np.any(step(g, 0 * h, jnp.arange(6)))


def promise(g, h, block):
    return g[block] @ np.linalg.solve(h[np.ix_(block, block)], g[block])


def test_the_quadratic_rule_promises_at_least_what_the_others_do():
    """And near to what the best of all blocks does, where the Hessian couples coordinates."""
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(60, 15, 8)) + 2 * rng.normal(size=(60, 15, 1))
    h = np.einsum("kij,kil->kjl", roots, roots)
    g = np.einsum("kij,ki->kj", roots, rng.normal(size=(60, 15)))
    with jax.enable_x64(True):
        find = jax.jit(jax.vmap(functools.partial(select_block_quadratic, size=3)))
        found = np.asarray(find(jnp.asarray(g), jnp.asarray(h)))
    ratios = []
    for k in range(60):
        got = promise(g[k], h[k], found[k])
        for d in (np.ones(8), np.diag(h[k])):
            other = np.argsort(-np.abs(g[k]) / np.sqrt(d))[:3]
            assert got >= promise(g[k], h[k], other) * (1 - 1e-10)
        best = max(promise(g[k], h[k], list(b)) for b in itertools.combinations(range(8), 3))
        plain = promise(g[k], h[k], np.argsort(-np.abs(g[k]))[:3])
        assert got <= best * (1 + 1e-10)
        ratios.append((got / best, plain / best))
    found_share, plain_share = np.mean(ratios, axis=0)
    assert found_share > max(0.8, plain_share + 0.2)


def test_the_quadratic_rule_on_a_diagonal_is_exact():
    g, d = RNG.normal(size=6), RNG.uniform(0.1, 5, 6)
    find = jax.jit(functools.partial(select_block_quadratic, size=2))
    got = find(jnp.asarray(g, jnp.float32), jnp.asarray(np.diag(d), jnp.float32))
    assert set(np.asarray(got).tolist()) == set(np.argsort(-(g**2) / d)[:2].tolist())
