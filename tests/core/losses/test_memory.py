"""The queue against a list, moved features against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from papyrax import losses
from papyrax.losses import KeyQueue, key_queue_push


def test_queue_is_a_ring():
    """Like a list that forgets its oldest, for batches that do not divide it."""
    push = jax.jit(key_queue_push)
    queue = losses.key_queue_init(jax.random.key(0), size=7, features=2)
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=1), 1, rtol=1e-6)
    kept = list(np.asarray(queue.keys))
    rng = np.random.default_rng(0)
    for _ in range(5):
        keys = rng.normal(size=(3, 2)).astype(np.float32)
        queue = push(queue, keys)
        kept = (kept + list(keys))[-7:]
        np.testing.assert_array_equal(np.roll(queue.keys, -int(queue.next), 0), kept)
    slope = jax.grad(lambda k: jnp.sum(key_queue_push(queue, k).keys))(jnp.ones((3, 2)))
    assert not np.any(slope)


def test_queue_on_devices():
    """One queue of the keys of all devices, or one of its own on each."""
    mesh, rows = Mesh(jax.devices()[:4], "d"), PartitionSpec("d")
    keys = jnp.arange(8.0)[:, None]
    queue = KeyQueue(jnp.zeros((8, 1)), jnp.int32(2))

    def run(axis, spec):
        queues = KeyQueue(spec, PartitionSpec())
        push = lambda q, k: key_queue_push(q, k, axis_name=axis)  # noqa: E731
        part = jax.shard_map(
            push, mesh=mesh, in_specs=(queues, rows), out_specs=queues, check_vma=False
        )
        return jax.jit(part)

    together = run("d", PartitionSpec())(queue, keys)
    np.testing.assert_array_equal(together.keys, key_queue_push(queue, keys).keys)
    apart = run(None, rows)(KeyQueue(queue.keys, jnp.int32(0)), keys)
    np.testing.assert_array_equal(apart.keys, keys)


def test_score_info_nce():
    rng = np.random.default_rng(1)
    near, far, t = rng.uniform(-1, 1, 5), rng.uniform(-1, 1, (5, 4)), rng.uniform(0.1, 1, 5)
    odds = np.exp((near[:, None] - 0.3) / t[:, None])
    want = -np.log(odds / (odds + np.exp(far / t[:, None]).sum(1, keepdims=True)))[:, 0]
    q, k, n = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(6, 3))

    @jax.jit
    def both(q, k, n):
        u = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (q, k, n)]
        scores = jnp.sum(u[0] * u[1], 1), u[0] @ u[2].T
        return losses.score_info_nce_loss(*scores), losses.info_nce_loss(q, k, n)

    with jax.enable_x64(True):
        loss = jax.jit(losses.score_info_nce_loss)
        np.testing.assert_allclose(loss(near, far, temperature=t, margin=0.3), want, rtol=1e-10)
        np.testing.assert_allclose(*both(q, k, n), rtol=1e-10)


def test_extrapolation():
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(2, 500, 4))
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    with jax.enable_x64(True):
        move = jax.jit(losses.positive_extrapolation)
        a, b = map(np.asarray, move(jax.random.key(0), q, k))
        np.testing.assert_allclose(a + b, q + k, rtol=1e-10)
        share = np.sum((a - k) * (q - k), 1) / np.sum((q - k) ** 2, 1)
        assert np.all((share > 1) & (share < 2))
        # Beta(2, 2): mean a half, variance a twentieth.
        assert abs(share.mean() - 1.5) < 0.03
        assert abs(share.var() - 0.05) < 0.01
        s = np.sum(q * k, 1)
        np.testing.assert_allclose(
            np.sum(a * b, 1), s - 2 * share * (share - 1) * (1 - s), rtol=1e-9, atol=1e-9
        )
        same, _ = move(jax.random.key(0), q, q)
        np.testing.assert_allclose(same, q, rtol=1e-10)


def test_interpolation():
    x = np.eye(300)
    mixed = np.asarray(jax.jit(losses.negative_interpolation)(jax.random.key(1), x))
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
    own = np.diagonal(mixed)
    # Each of two parts: its own by a share of Beta(1.6, 1.6), and one other, every one once.
    assert np.all((mixed > 0).sum(1) <= 2)
    assert np.all(((mixed - np.diag(own)) > 0).sum(0) <= 1)
    share = own[(mixed > 0).sum(1) == 2]
    assert abs(share.mean() - 0.5) < 0.05
    assert abs(share.var() - 1 / (4 * 4.2)) < 0.012
