"""Random features of layers against complex arithmetic in NumPy and against what they estimate."""

import jax
import numpy as np
import pytest

from papyrax.attention import random_projections, snnk_features, snnk_relu_features, snnk_weights


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def brute(z, g, xi, damping):
    """The formula, in complex numbers."""
    a = np.sqrt(2j * np.pi * xi)
    s = np.sqrt(1 + 4 * damping)
    exponent = a * s * (z @ g.T) - a**2 * (z**2).sum(-1, keepdims=True) / 2
    exponent = exponent - damping * (g**2).sum(-1)
    return (1 + 4 * damping) ** (g.shape[1] / 4) / np.sqrt(len(g)) * np.exp(exponent)


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_features_are_the_complex_ones(damping):
    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=(7, 4))
    xi, amplitude, phase = rng.normal(size=(3, 7))
    bias = rng.normal(size=2)
    phi = brute(x, g, xi, damping)
    psi = brute(w, g, xi, damping) * amplitude
    psi = psi * np.exp(1j * (phase + 2 * np.pi * xi * bias[:, None]))
    got = snnk_features(x, g, xi, damping=damping)
    np.testing.assert_allclose(got, np.concatenate([phi.real, phi.imag], -1), rtol=1e-10)
    got_w = snnk_weights(w, g, xi, amplitude, phase, bias, damping=damping)
    np.testing.assert_allclose(got @ got_w.T, (phi @ psi.T).real, rtol=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cos", "sin", "gaussian"])
def test_products_estimate_the_layer(damping, name):
    """Within five standard errors of the mean over the features."""
    rng = np.random.default_rng(1)
    m, d = 100_000, 4
    x, w = (v / np.linalg.norm(v) for v in rng.normal(size=(2, d)))
    bias, g = np.array([0.3]), rng.normal(size=(m, d))
    function = {"cos": np.cos, "sin": np.sin, "gaussian": lambda u: np.exp(-(u**2) / 2)}[name]
    one = np.ones(m)
    # exp(-u^2 / 2) is its own transform: 2 pi xi is standard normal.
    xi = rng.normal(size=m) / (2 * np.pi) if name == "gaussian" else one / (2 * np.pi)
    phase = (-np.pi / 2 if name == "sin" else 0) * one
    phi = np.asarray(snnk_features(x[None], g, xi, damping=damping))[0]
    psi = np.asarray(snnk_weights(w[None], g, xi, one, phase, bias, damping=damping))[0]
    terms = m * (phi * psi).reshape(2, m).sum(0)
    error = terms.mean() - function(w @ x + bias[0])
    assert abs(error) < 5 * terms.std() / np.sqrt(m)
    assert 5 * terms.std() / np.sqrt(m) < 0.06


def test_relu_products_estimate_the_arc_cosine_kernel():
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(2, 5))
    g = rng.normal(size=(200_000, 5))
    got = snnk_relu_features(x, g) @ snnk_relu_features(w, g)
    size = np.linalg.norm(x) * np.linalg.norm(w)
    t = np.arccos(x @ w / size)
    want = size * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)
    np.testing.assert_allclose(got, want, rtol=0.02)
    np.testing.assert_allclose(
        snnk_relu_features(x, g[:9], floor=-0.5), np.maximum(g[:9] @ x, -0.5) / 3, rtol=1e-12
    )


def test_orthogonal_projections_are_orthogonal_in_blocks_and_gaussian():
    g = np.asarray(random_projections(jax.random.key(0), 7, 3, orthogonal=True))
    assert g.shape == (7, 3)
    for block in (g[:3], g[3:6]):
        gram = block @ block.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    many = np.asarray(random_projections(jax.random.key(1), 30_000, 3, orthogonal=True))
    np.testing.assert_allclose(many.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(many.T @ many / len(many), np.eye(3), atol=0.04)
    np.testing.assert_allclose((many**4).mean(), 3, atol=0.15)


def test_far_inputs_stay_finite():
    g = np.random.default_rng(3).normal(size=(5, 2))
    assert np.all(np.isfinite(snnk_features(np.full((1, 2), 1e4), g, np.ones(5))))
