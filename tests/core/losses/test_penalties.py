"""Penalties on parameters against loops."""

import jax
import numpy as np

from papyrax.losses import mini_batch_aware_l2, slow_feedback_loss


def test_embeddings_of_the_batch_are_held_back_once():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        table, counts = rng.normal(size=(20, 3)), rng.integers(1, 9, 20)
        ids, shown = rng.integers(0, 12, (4, 7)), rng.random((4, 7)) < 0.7
        present = sorted({int(i) for i, s in zip(ids.ravel(), shown.ravel()) if s})
        want = sum(table[j] @ table[j] / counts[j] for j in present) / 2
        loss = lambda w: mini_batch_aware_l2(w, ids, counts, where=shown).sum()  # noqa: E731
        value, grad = jax.value_and_grad(loss)(table)
        np.testing.assert_allclose(value, want, rtol=1e-12)
        expected = np.zeros_like(table)
        expected[present] = table[present] / counts[present, None]
        np.testing.assert_allclose(grad, expected, rtol=1e-12)
        assert len(present) < 12  # some are absent, and some come twice
        assert shown.sum() > len(present)


def test_a_penalty_over_an_epoch_is_that_of_the_table():
    """Where every batch is one example of one id, the sum over the data is |W|^2 / 2."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        table, data = rng.normal(size=(5, 2)), np.repeat(np.arange(5), [1, 4, 2, 3, 6])
        counts = np.bincount(data)
        total = sum(mini_batch_aware_l2(table, data[i : i + 1], counts)[0] for i in range(16))
        np.testing.assert_allclose(total, (table**2).sum() / 2, rtol=1e-12)


def test_kernels_that_drift_apart():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        kernels = [rng.normal(size=(3, 4, c)) for c in (2, 2, 6)]
        want = np.zeros(3)
        for i in range(3):
            for j in range(i):
                tiled = np.concatenate([kernels[j]] * (kernels[i].shape[2] // 2), axis=2)
                want[i] += ((tiled - kernels[i]) ** 2).mean()
        np.testing.assert_allclose(slow_feedback_loss(kernels), want, rtol=1e-12)
        same = [kernels[0], kernels[0], np.tile(kernels[0], 3)]
        assert not np.any(slow_feedback_loss(same))
