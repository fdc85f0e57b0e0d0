"""Selection against every block, and steps against NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.optim import block_step, select_block

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
