"""The bank against loops, and whom its samples are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    return losses.pseudo_label_bank_init(x, np.arange(12) % 4, clusters=5)


def test_centroids(bank):
    x = np.asarray(bank.embeddings)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
    for k in range(4):
        np.testing.assert_allclose(bank.centroids[k], x[k::4].mean(0), rtol=1e-5, atol=1e-6)
    assert not np.any(bank.centroids[4])


def test_update_against_loops(bank):
    keys = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    index = np.array([7, 0, 5])
    new = losses.pseudo_label_bank_update(bank, keys, index, momentum=0.3)
    for i in range(12):
        want, label = np.asarray(bank.embeddings[i]), int(bank.labels[i])
        if i in index:
            key = keys[list(index).index(i)]
            want = 0.7 * want + 0.3 * key / np.linalg.norm(key)
            want = want / np.linalg.norm(want)
            label = int(np.argmin(np.linalg.norm(want - np.asarray(bank.centroids), axis=1)))
        np.testing.assert_allclose(new.embeddings[i], want, rtol=1e-5)
        assert new.labels[i] == label
    np.testing.assert_array_equal(new.centroids, bank.centroids)


def test_samples(bank):
    """Positives: the others of the cluster, each as often; negatives: the nearest of other ones."""
    queries, index = bank.embeddings[:4] + 0.1, jnp.arange(4)
    draw = jax.jit(
        jax.vmap(
            lambda key: losses.pseudo_label_samples(key, bank, queries, index, negatives=6, pool=5)
        )
    )
    positive, negative = map(np.asarray, draw(jax.random.split(jax.random.key(0), 300)))
    labels = np.asarray(bank.labels)
    for i in range(4):
        counts = np.bincount(positive[:, i], minlength=12)
        own = [j for j in range(12) if labels[j] == labels[i] and j != i]
        assert set(np.flatnonzero(counts)) == set(own)
        assert max(abs(counts[own] - 150)) < 40
        others = [j for j in range(12) if labels[j] != labels[i]]
        others.sort(key=lambda j, i=i: -float(queries[i] @ bank.embeddings[j]))
        counts = np.bincount(negative[:, i].ravel(), minlength=12)
        assert set(np.flatnonzero(counts)) == set(others[:5])
        assert max(abs(counts[others[:5]] - 360)) < 80


def test_alone_and_together(bank):
    """Alone in its cluster an example is its own positive; a pool larger than the others is cut."""
    alone = bank._replace(labels=jnp.array([0] + [1] * 8 + [2] * 3))
    draw = jax.jit(
        lambda bank, key: losses.pseudo_label_samples(
            key, bank, bank.embeddings, jnp.arange(12), negatives=40
        )
    )
    positive, negative = draw(alone, jax.random.key(1))
    assert positive[0] == 0
    labels = np.asarray(alone.labels)
    assert np.all(labels[negative] != labels[:, None])
    assert np.all(labels[positive] == labels)
    _, negative = draw(bank._replace(labels=jnp.zeros(12, int)), jax.random.key(1))
    assert np.all((np.asarray(negative) >= 0) & (np.asarray(negative) < 12))


def test_margin():
    rng = np.random.default_rng(2)
    q, k, n = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 5, 3))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    near = np.sum(unit(q) * unit(k), 1)
    far = np.einsum("bd,bnd->bn", unit(q), unit(n))
    loss = jax.jit(losses.info_nce_loss)
    with jax.enable_x64(True):
        for margin in (-0.5, 0.0, 0.35):
            odds = np.exp((far - near[:, None] + margin) / 0.2).sum(1)
            got = loss(q, k, n, temperature=0.2, margin=margin)
            np.testing.assert_allclose(got, np.log1p(odds), rtol=1e-10)
