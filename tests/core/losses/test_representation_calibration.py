"""Local outlier factors against scikit-learn; Gaussians against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)) + 4 * RNG.integers(0, 2, (30, 1))
Y = np.repeat(np.arange(3, dtype=np.int32), 10)


@pytest.mark.parametrize("neighbours", [3, 50])
def test_outlier_factor_equals_scikit_learns(neighbours):
    from sklearn.neighbors import LocalOutlierFactor

    with jax.enable_x64(True):
        factor = jax.jit(lambda x: losses.local_outlier_factor(x, neighbours=neighbours))
        model = LocalOutlierFactor(n_neighbors=min(neighbours, 29)).fit(X)
        np.testing.assert_allclose(factor(X), -model.negative_outlier_factor_, rtol=1e-6)
        turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
        np.testing.assert_allclose(factor(1e3 * (X @ turn) + 7), factor(X), rtol=1e-6)


def test_outliers_are_of_their_own_class():
    each = jax.jit(lambda x, y: losses.local_outlier_factor(x, y, neighbours=4))
    got = each(X.astype(np.float32), Y)
    for k in range(3):
        alone = each(X[k == Y].astype(np.float32), np.zeros(10, np.int32))
        np.testing.assert_allclose(got[k == Y], alone, rtol=1e-4)
    alone = np.arange(30, dtype=np.int32)
    assert each(X.astype(np.float32), alone).tolist() == [1.0] * 30


def test_wrong_labels_stand_out():
    x = RNG.normal(size=(60, 8)).astype(np.float32)
    x[:5] += 6  # of another class
    factor = jax.jit(losses.local_outlier_factor)(x)
    assert set(np.argsort(factor)[-5:].tolist()) == set(range(5))


def test_gaussians_of_what_is_kept():
    where = RNG.random(30) < 0.8
    where[20:] = False
    where[20] = True  # one alone
    fit = jax.jit(lambda x, y, where: losses.class_gaussians(x, y, classes=4, where=where))
    g = fit(X.astype(np.float32), Y, where)
    assert g.counts.tolist() == [where[:10].sum(), where[10:20].sum(), 1, 0]
    for k in range(2):
        rows = X[(k == Y) & where]
        np.testing.assert_allclose(g.means[k], rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(g.covariances[k], np.cov(rows.T), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(g.means[2], X[20], rtol=1e-6)
    assert not np.asarray(g.covariances[2:]).any()


def gaussians():
    root = RNG.normal(size=(5, 3, 3))
    return losses.ClassGaussians(
        jnp.array([50.0, 80.0, 60.0, 4.0, 2.0]),
        jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32),
        jnp.asarray(root @ root.transpose(0, 2, 1), jnp.float32),
    )


def test_tail_classes_borrow_from_the_nearest_head_classes():
    g, head = gaussians(), np.array([True, True, True, False, False])
    calibrate = jax.jit(
        lambda g, head: losses.calibrate_gaussians(
            g, head, neighbours=2, strength=0.3, dispersion=0.1
        )
    )
    found = calibrate(g, head)
    n, means, covariances = (np.asarray(a, float) for a in g)
    for k in (3, 4):
        distance = np.linalg.norm(means[:3] - means[k], axis=1)
        near = np.argsort(distance)[:2]
        w = n[near] * np.exp(-distance[near])
        w /= w.sum()
        want = 0.3 * w @ means[near] + 0.7 * means[k]
        np.testing.assert_allclose(found.means[k], want, rtol=1e-5)
        want = 0.3 * np.einsum("q,qde->de", w, covariances[near]) + 0.7 * covariances[k] + 0.1
        np.testing.assert_allclose(found.covariances[k], want, rtol=1e-5, atol=1e-6)
    for a, b in zip(found, g):
        np.testing.assert_allclose(a[:3], b[:3], rtol=1e-6)
    nobody = calibrate(g, np.zeros(5, bool))
    np.testing.assert_allclose(nobody.means, g.means, rtol=1e-6)


def test_samples_have_the_means_and_covariances():
    g = gaussians()
    g = g._replace(covariances=g.covariances.at[1, 2].set(0).at[1, :, 2].set(0))
    labels = jnp.repeat(jnp.arange(2), 40_000)
    z = np.asarray(jax.jit(losses.sample_gaussians)(jax.random.key(0), g, labels))
    for k, rows in enumerate(np.split(z, 2)):
        np.testing.assert_allclose(rows.mean(0), g.means[k], atol=0.05)
        scale = float(jnp.max(g.covariances[k]))
        np.testing.assert_allclose(np.cov(rows.T), g.covariances[k], atol=0.05 * scale)
    np.testing.assert_allclose(z[40_000:, 2], g.means[1, 2], atol=2e-3)


def test_distance_pulls_back_to_the_anchors():
    z, z0 = (jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32) for _ in range(2))
    loss = lambda z, a: losses.individual_calibration_regularizer(z, a, weight=3.0)  # noqa: E731
    np.testing.assert_allclose(loss(z, z0), 3 * np.square(np.asarray(z - z0)).sum(1), rtol=1e-5)
    pull, still = jax.grad(lambda z, a: loss(z, a).sum(), (0, 1))(z, z0)
    np.testing.assert_allclose(pull, 6 * (z - z0), rtol=1e-5)
    assert not still.any()
