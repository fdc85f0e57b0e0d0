"""Experts of many step sizes against their recurrences in NumPy and the authors' points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import recorded
from scipy.special import softmax

from papyrax.optim import entropic_mirror, euclidean_mirror, optimistic_omd_dynamic

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnames=("tx", "split"))
def play(tx, targets, start, split=True):
    """The points that are played on f_t(x) = |x - b_t|^2 / 2, as two leaves or one."""

    def tree(flat):
        return {"a": flat[:1, None], "b": flat[1:]} if split else flat

    def body(carry, target):
        params, state = carry
        flat = jnp.concatenate([params["a"][:, 0], params["b"]]) if split else params
        updates, state = tx.update(tree(flat - target), state, params)
        return (optax.apply_updates(params, updates), state), flat

    params = tree(start)
    return jax.lax.scan(body, (params, tx.init(params)), targets)[1]


def ball(z, g, r, radius=0.8):
    y = z - r * g
    return y * min(1, radius / np.linalg.norm(y))


def simplex(z, g, r):
    return softmax(np.log(z) - r * g)


def slow(targets, start, step, sizes, penalty, scale, bound):
    """Round by round and expert by expert, as the docstring has it."""
    n = len(sizes)
    z, q = [start] * n, np.full(n, 1 / n)
    hint, before, variation, points = np.zeros(len(start)), None, 1.0, []
    for target in targets:
        x = [step(z[i], hint, sizes[i]) for i in range(n)]
        before = before or x
        switch = [penalty * ((x[i] - before[i]) ** 2).sum() for i in range(n)]
        rate = min(bound, scale / np.sqrt(variation))
        m = np.array([hint @ x[i] + switch[i] for i in range(n)])
        p = q * np.exp(-rate * m)
        points.append(sum(w * y for w, y in zip(p / p.sum(), x)))
        g = points[-1] - target
        loss = np.array([g @ x[i] + switch[i] for i in range(n)])
        q = q * np.exp(-rate * loss)
        q /= q.sum()
        variation += np.abs(loss - m).max() ** 2
        z = [step(z[i], g, sizes[i]) for i in range(n)]
        hint, before = g, x
    return np.stack(points)


@pytest.mark.parametrize("geometry", ["ball", "simplex"])
def test_recurrences(geometry):
    targets, sizes = RNG.normal(size=(12, 4)), (0.1, 0.5, 2.0)
    mirror, step = (
        (euclidean_mirror(0.8), ball) if geometry == "ball" else (entropic_mirror(), simplex)
    )
    start = np.full(4, 0.25)
    with jax.enable_x64(True):
        tx = optimistic_omd_dynamic(
            1.6,
            2.0,
            0.5,
            12,
            step_sizes=sizes,
            switching_penalty=0.3,
            meta_scale=0.7,
            meta_bound=0.4,
            mirror=mirror,
        )
        got = play(tx, jnp.asarray(targets), jnp.asarray(start), split=geometry == "ball")
    want = slow(targets, start, step, sizes, 0.3, 0.7, 0.4)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_authors_points():
    entry = recorded("online", "optim")["sword_pp"]
    radius, bound, smoothness = (entry[k] for k in ("radius", "gradient_bound", "smoothness"))
    with jax.enable_x64(True):
        targets = jnp.asarray(np.asarray(entry["targets"]))
        tx = optimistic_omd_dynamic(
            2 * radius, bound, smoothness, len(targets), mirror=euclidean_mirror(radius)
        )
        got = play(tx, targets, jnp.zeros(4))
    np.testing.assert_allclose(got, entry["points"], rtol=1e-10, atol=1e-12)


def test_one_expert_is_one_step_size():
    targets = RNG.normal(size=(8, 4))
    with jax.enable_x64(True):
        tx = optimistic_omd_dynamic(2.0, 1.0, 1.0, 8, step_sizes=(0.3,))
        got = play(tx, jnp.asarray(targets), jnp.zeros(4))
        z, hint = np.zeros(4), np.zeros(4)
        for x, target in zip(np.asarray(got), targets):
            np.testing.assert_allclose(x, z - 0.3 * hint, rtol=1e-10, atol=1e-12)
            hint = x - target
            z = z - 0.3 * hint


ROUNDS, DIM = 2000, 5


def drifts(seed):
    """Centres and noisy targets [3, ROUNDS, DIM]: at rest, once round in 1,000 rounds, jumping."""
    rng = np.random.default_rng(seed)
    t = np.arange(ROUNDS)
    angle = np.stack([0 * t, 2 * np.pi * t / 1000, np.pi * (t // 100)])[..., None]
    across, up = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:2]
    centres = 0.8 * (np.cos(angle) * across + np.sin(angle) * up)
    return centres, centres + rng.normal(size=(3, ROUNDS, DIM)) / np.sqrt(DIM)


def regret(points, centres, targets):
    return (((points - targets) ** 2 - (centres - targets) ** 2).sum((-1, -2))) / 2


@pytest.mark.parametrize("seed", [100, 101])
def test_no_single_step_size_suits_every_comparator(seed):
    """Relative to the best step size for each, the experts together lose less than any alone."""
    centres, targets = drifts(seed)
    low = 2 / (2.5 * np.sqrt(ROUNDS))
    sizes = low * 2.0 ** np.arange(4)
    r = sizes[:, None, None]
    z, hint = np.zeros((4, 3, DIM)), np.zeros((4, 3, DIM))
    alone = []
    for target in np.moveaxis(targets, 1, 0):
        x = project(z - r * hint)
        alone.append(x)
        hint = x - target
        z = project(z - r * hint)
    single = regret(np.moveaxis(np.stack(alone), 0, 2), centres, targets)
    tx = optimistic_omd_dynamic(2.0, 2.5, 1.0, ROUNDS, mirror=euclidean_mirror(1.0))
    assert tx.init(jnp.zeros(DIM)).log_weights.shape == (4,)
    run = jax.vmap(lambda b: play(tx, b, jnp.zeros(DIM)))
    together = regret(np.asarray(run(jnp.asarray(targets, jnp.float32))), centres, targets)
    worst = (single / single.min(0)).max(1)
    assert np.max(together / single.min(0)) < 0.8 * worst.min()


def project(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1)
