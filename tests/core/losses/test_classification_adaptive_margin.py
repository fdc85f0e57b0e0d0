"""MadaCos against a transcription and the properties its scale and margin are chosen for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.losses import madacos, madacos_parameters


def draw(seed, n=6, classes=5, good=0.8):
    rng = np.random.default_rng(seed)
    cos, y = rng.uniform(-0.4, 0.4, (n, classes)), rng.integers(0, classes, n)
    cos[np.arange(n), y] = good + rng.uniform(-0.1, 0.1, n)
    return cos, y


def slow(cos, y, a, others):
    n = len(y)
    target = cos[np.arange(n), y]
    middle = np.argsort(target)[(n - 1) // 2]
    scale = max(32.0, np.log(9999999 * (1 - a) / a) / (1 - target[middle]))
    b = (np.exp(scale * cos) * (np.arange(cos.shape[1]) != y[:, None])).sum(-1)
    chosen = {"example": b[middle], "mean": b.mean(), "median": np.sort(b)[(n - 1) // 2]}[others]
    margin = max(0.0, target[middle] - np.log(chosen * a / (1 - a)) / scale)
    logits = scale * cos
    logits[np.arange(n), y] -= scale * margin
    return scale, margin, np.log(np.exp(logits).sum(-1)) - logits[np.arange(n), y]


@pytest.mark.parametrize("others", ["example", "median", "mean"])
@pytest.mark.parametrize(("n", "good"), [(6, 0.8), (7, 0.1)])
def test_transcription(others, n, good):
    cos, y = draw(0, n, good=good)
    with jax.enable_x64(True):
        kwargs = {"median_probability": 0.1, "others": others}
        scale, margin = madacos_parameters(jnp.asarray(cos), y, **kwargs)
        loss = madacos(jnp.asarray(cos), y, **kwargs)
    want = slow(cos, y, 0.1, others)
    np.testing.assert_allclose(scale, want[0], rtol=1e-12)
    np.testing.assert_allclose(margin, want[1], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(loss, want[2], rtol=1e-10, atol=1e-13)


def test_median_example_has_the_probability_asked_for():
    cos, y = draw(1, n=9)
    loss = np.asarray(madacos(jnp.asarray(cos), y, median_probability=0.05))
    middle = np.argsort(cos[np.arange(9), y])[4]
    assert np.exp(-loss[middle]) == pytest.approx(0.05, rel=1e-3)


def test_a_perfect_cosine_against_the_medians_rivals_is_certain_up_to_the_constant():
    cos, y = draw(2, n=9)
    middle = np.argsort(cos[np.arange(9), y])[4]
    with jax.enable_x64(True):
        scale, margin = madacos_parameters(jnp.asarray(cos), y)
        row = cos[middle].copy()
        row[y[middle]] = 1.0
        logits = scale * (row - margin * (np.arange(5) == y[middle]))
        rest = jax.nn.softmax(logits)
        others = float(1 - rest[y[middle]])
    assert others == pytest.approx(1 / 1e7, rel=1e-4)


def test_floor_without_margin_is_a_scaled_softmax():
    cos, y = draw(3, good=-0.5)
    scale, margin = madacos_parameters(jnp.asarray(cos), y)
    assert scale == 32
    assert margin == 0
    want = optax.softmax_cross_entropy_with_integer_labels(32 * jnp.asarray(cos), y)
    np.testing.assert_allclose(madacos(jnp.asarray(cos), y), want, rtol=1e-4)


def test_scale_grows_with_the_median_and_is_capped():
    scales = [
        float(madacos_parameters(jnp.asarray(draw(4, good=g)[0]), draw(4)[1])[0])
        for g in (0.3, 0.6, 0.85)
    ]
    assert scales == sorted(scales)
    perfect = jnp.eye(3)
    scale, margin = madacos_parameters(perfect, jnp.arange(3))
    assert scale == 1e4
    assert jnp.isfinite(madacos(perfect, jnp.arange(3))).all()
    assert margin > 0.9


def test_gradient_is_that_of_softmax_at_a_fixed_scale_and_margin():
    cos, y = map(jnp.asarray, draw(5))
    scale, margin = madacos_parameters(cos, y)
    onehot = jax.nn.one_hot(y, 5)
    p = jax.nn.softmax(scale * (cos - margin * onehot))
    got = jax.grad(lambda c: madacos(c, y).sum())(cos)
    np.testing.assert_allclose(got, scale * (p - onehot), rtol=1e-3, atol=1e-3)
