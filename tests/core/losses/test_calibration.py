"""Losses of calibration against loops; calibrators against SciPy's minimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from papyrax import losses, metrics


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 5)) * 2, rng.integers(0, 5, 8)


def close(got, want, rtol=1e-11):
    np.testing.assert_allclose(np.asarray(got), want, rtol=rtol, atol=1e-13)


def test_correctness_aware_loss(data):
    z, y = data
    y = np.where(np.arange(8) < 3, z.argmax(-1), (z.argmax(-1) + 1) % 5)
    confidence, right = softmax(z, -1).max(-1), np.arange(8) < 3
    with jax.enable_x64(True):
        x = jnp.asarray(z)
        close(losses.correctness_aware_loss(x, y), (confidence - right) ** 2)
        # The released code: weights 1 - accuracy for the right, accuracy for the wrong ones.
        w = np.where(right, 5 / 8, 3 / 8)
        want = (w * (confidence - right) ** 2).sum() / w.sum()
        close(losses.correctness_aware_loss(x, y, balance=True).mean(), want)
        for one_kind in (z.argmax(-1), (z.argmax(-1) + 1) % 5):
            close(
                losses.correctness_aware_loss(x, one_kind, balance=True),
                losses.correctness_aware_loss(x, one_kind),
            )


def test_a_narrow_miss_gets_less_confidence_where_cross_entropy_gives_more():
    """Prediction 0 of 0.45, label 1 of 0.4, by the derivative in the inverse temperature."""
    z, y = jnp.log(jnp.array([[0.45, 0.4, 0.15]])), jnp.array([1])
    ours = jax.grad(lambda s: losses.correctness_aware_loss(s * z, y)[0])(1.0)
    theirs = jax.grad(lambda s: optax.softmax_cross_entropy_with_integer_labels(s * z, y)[0])(1.0)
    assert ours > 0 > theirs


def test_mixup_ranking_loss(data):
    z, _ = data
    rng = np.random.default_rng(1)
    mixed, differ = rng.normal(size=(8, 5)) * 2, np.arange(8) % 3 > 0
    hinge = np.maximum(mixed.max(-1) - z.max(-1) + 2, 0)
    with jax.enable_x64(True):
        args = jnp.asarray(z), jnp.asarray(mixed)
        close(losses.mixup_ranking_loss(*args), hinge)
        close(losses.mixup_ranking_loss(*args, where=differ), hinge * differ)
        # The released code multiplies [batch] by [batch, 1] and takes the mean.
        released = (differ * hinge[:, None]).mean()
        got = losses.mixup_ranking_loss(*args, where=differ, masking="batch")
        close(got.mean(), released)


def slow_ndcg(z, mixed, share):
    order = np.argsort(-share)
    gains = [softmax(z).max(), *(softmax(mixed[m]).max() for m in order)]
    ideal = [1.0, *share[order]]
    dcg = sum(g / np.log2(j + 2) for j, g in enumerate(gains))
    idcg = sum(g / np.log2(j + 2) for j, g in enumerate(ideal))
    return 1 - min(dcg / idcg, idcg / dcg)


def test_mixup_ndcg_loss(data):
    z, _ = data
    rng = np.random.default_rng(2)
    z = z * np.linspace(0.1, 20, 8)[:, None]  # so that some lists exceed the ideal
    mixed, share = rng.normal(size=(3, 8, 5)) * 9, rng.uniform(0.5, 0.7, (3, 8))
    want = [slow_ndcg(z[i], mixed[:, i], share[:, i]) for i in range(8)]
    with jax.enable_x64(True):
        args = jnp.asarray(z), jnp.asarray(mixed), jnp.asarray(share)
        got = losses.mixup_ndcg_loss(*args)
        close(got, want, 1e-10)
        turned = losses.mixup_ndcg_loss(args[0], args[1][::-1], args[2][::-1])
        close(turned, want, 1e-10)
    assert ((got >= 0) & (got < 1)).all()


@pytest.fixture(scope="module")
def held_out():
    """Scores that are three times too large, with factors and offsets that differ by class."""
    rng = np.random.default_rng(3)
    right = rng.normal(size=(400, 4)) * 1.5
    y = np.array([rng.choice(4, p=p) for p in softmax(right, -1)])
    return 3 * right, right / np.array([0.5, 1, 2, 1]) + np.array([1, 0, 0, -1]), y


def test_temperature_is_the_minimizer(held_out):
    z, _, y = held_out
    best = minimize(
        lambda s: -log_softmax(np.exp(s) * z, -1)[range(400), y].mean(), [0.0], tol=1e-12
    )
    with jax.enable_x64(True):
        fit = jax.jit(losses.fit_temperature)
        t = fit(jnp.asarray(z), y)
        np.testing.assert_allclose(t, np.exp(-best.x[0]), rtol=1e-5)
        assert 2 < t < 4
        p, q = (jax.nn.softmax(jnp.asarray(s), -1) for s in (z, z / t))
        errors = [metrics.expected_calibration_error(x, jnp.asarray(y)) for x in (p, q)]
        assert errors[1] < errors[0] / 2
        np.testing.assert_allclose(fit(jnp.asarray(z), z.argmax(-1)), 0.01, rtol=1e-6)
        np.testing.assert_allclose(fit(jnp.asarray(z), z.argmin(-1)), 100, rtol=1e-6)
        np.testing.assert_allclose(fit(jnp.asarray(1e4 * z), y), 100, rtol=1e-6)


def test_vector_scaling_is_the_minimizer(held_out):
    _, z, y = held_out

    def objective(x):
        out = x[:4] * z + x[4:]
        decay = 1e-4 * (((x[:4] - 1) ** 2).sum() + (x[4:] ** 2).sum())
        return -log_softmax(out, -1)[range(400), y].mean() + decay

    best = minimize(objective, np.r_[np.ones(4), np.zeros(4)], tol=1e-10)
    with jax.enable_x64(True):
        fit = jax.jit(losses.fit_vector_scaling)
        scale, bias = fit(jnp.asarray(z), y)
        np.testing.assert_allclose(np.r_[scale, bias], best.x, atol=1e-4)
        assert objective(np.r_[scale, bias]) <= best.fun + 1e-12
    low = fit(jnp.asarray(z, jnp.float32), y)
    np.testing.assert_allclose(np.r_[low.scale, low.bias], best.x, atol=2e-2)
    # Scores so large that softmax is exactly one or zero leave Newton's method no curvature.
    scale, bias = fit(jnp.asarray(1e4 * z, jnp.float32), y)
    got = -log_softmax(np.asarray(scale) * 1e4 * z + bias, -1)[range(400), y].mean()
    assert got <= best.fun + 1e-3


def test_what_is_masked_may_be_nan():
    raw, mixed = jnp.array([[3.0, jnp.nan], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [2.0, 0.0]])
    there = jnp.array([False, True])
    loss = lambda raw: losses.mixup_ranking_loss(raw, mixed, where=there)  # noqa: E731
    assert loss(raw).tolist() == [0.0, 3.0]
    assert jax.grad(lambda raw: loss(raw).sum())(raw).tolist() == [[0.0, 0.0], [-1.0, 0.0]]


def test_calibrators_of_wrong_data_are_nan():
    z = jnp.array([[2.0, 0.0], [1.0, 0.0]])
    for scores, labels in ((z, [0, -100]), (z, [0, -1]), (z.at[0, 1].set(jnp.nan), [0, 1])):
        labels = np.array(labels)
        assert np.isnan(losses.fit_temperature(scores, labels))
        assert np.isnan(losses.fit_vector_scaling(scores, labels, steps=1).scale).all()


def test_temperature_of_transforms(data):
    z, _ = data
    rng = np.random.default_rng(4)
    copies = rng.normal(size=(3, 8, 5))
    top = np.argsort(-z, -1)[:, :4]
    want = np.concatenate([np.take_along_axis(softmax(c, -1), top, -1) for c in copies], -1)
    with jax.enable_x64(True):
        features = losses.transform_features(jnp.asarray(z), jnp.asarray(copies))
        close(features, want)
    params = losses.transform_temperature_init(jax.random.key(0))
    w, b, v, c = (np.asarray(p, np.float64) for p in params)
    assert (np.abs(w) <= 12**-0.5).all()
    for bias in (c, 20.0, -20.0):
        t = losses.transform_temperature(params._replace(bias=jnp.asarray(bias)), features)
        wanted = np.clip(np.maximum(want @ w + b, 0) @ v + bias, 0.1, 10)
        np.testing.assert_allclose(t, wanted, rtol=1e-5)
