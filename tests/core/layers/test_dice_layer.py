"""Dice with moving moments against NumPy."""

import numpy as np
from flax import nnx

from papyrax.layers import Dice


def brute(x, mean, variance, alpha):
    p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + 1e-8)))
    return p * x + (1 - p) * alpha * x


def test_trains_on_the_batch_and_evaluates_on_the_average():
    rng = np.random.default_rng(0)
    layer, alpha = Dice(3, momentum=0.9), rng.normal(size=3)
    layer.alpha[...] = alpha.astype(np.float32)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = rng.normal(1, 2, size=(5, 2, 3))
        now = x.mean((0, 1)), x.var((0, 1))
        np.testing.assert_allclose(layer(x), brute(x, *now, alpha), rtol=1e-4, atol=1e-5)
        mean, variance = 0.9 * mean + 0.1 * now[0], 0.9 * variance + 0.1 * now[1]
    layer.eval()
    for _ in range(2):  # evaluating changes nothing
        want = brute(x, mean, variance, alpha)
        np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-5)
    assert len(nnx.to_flat_state(nnx.state(layer, nnx.Param))) == 1
    one = layer(x[:1, :1], use_running_average=True)
    np.testing.assert_allclose(one, want[:1, :1], rtol=1e-4, atol=1e-5)
