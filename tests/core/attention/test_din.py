"""The activation unit and Dice against loops, and what the paper says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.attention import dice, din_attention


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0):
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=s), rng.normal(size=s[1])) for s in ((12, 6), (6, 4), (4, 1))]
    return rng.normal(size=(2, 3)), rng.normal(size=(2, 5, 3)), layers


def brute(q, k, layers, mask, normalize):
    out = np.zeros_like(q)
    for b in range(len(q)):
        weights = []
        for t in range(k.shape[1]):
            h = np.concatenate([q[b], k[b, t], q[b] - k[b, t], q[b] * k[b, t]])
            for i, (matrix, bias) in enumerate(layers):
                h = h @ matrix + bias
                h = h if i == len(layers) - 1 else 1 / (1 + np.exp(-h))
            weights.append(h[0] if mask[b, t] else (-np.inf if normalize else 0))
        weights = np.array(weights)
        if normalize:
            weights = np.exp(weights / np.sqrt(q.shape[1]))
            weights = weights / weights.sum()
        out[b] = weights @ k[b]
    return out


@pytest.mark.parametrize("normalize", [False, True])
def test_is_the_formula_over_the_items_that_exist(normalize):
    q, k, layers = draw()
    mask = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 0, 1]], bool)
    want = brute(q, k, layers, mask, normalize)
    np.testing.assert_allclose(din_attention(q, k, layers, mask, normalize=normalize), want)
    k[~mask] = 1e3
    np.testing.assert_allclose(din_attention(q, k, layers, mask, normalize=normalize), want)
    order = np.array([4, 2, 0, 1, 3])
    got = din_attention(q, k[:, order], layers, mask[:, order], normalize=normalize)
    np.testing.assert_allclose(got, want)
    empty = din_attention(q, k, layers, np.zeros((2, 5), bool), normalize=normalize)
    assert not np.any(empty)


def test_weights_keep_the_strength_of_an_interest():
    """Ten times the same item counts ten times, but for softmax once."""
    q, k, layers = draw()
    once, many = k[:, :1], np.repeat(k[:, :1], 10, axis=1)
    np.testing.assert_allclose(
        din_attention(q, many, layers), 10 * din_attention(q, once, layers), rtol=1e-12
    )
    np.testing.assert_allclose(
        din_attention(q, many, layers, normalize=True),
        din_attention(q, once, layers, normalize=True),
    )


def test_dice_is_the_formula():
    rng = np.random.default_rng(1)
    x, alpha = rng.normal(size=(7, 2, 3)), rng.normal(size=3)
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + 1e-8)))
    want = p * x + (1 - p) * alpha * x
    np.testing.assert_allclose(dice(x, alpha), want, rtol=1e-10)
    np.testing.assert_allclose(dice(x, alpha, mean, variance), want, rtol=1e-10)
    np.testing.assert_allclose(dice(x, jnp.ones(3)), x, rtol=1e-12)
