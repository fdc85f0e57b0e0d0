"""Layers of random features against what they stand for at the start."""

import jax
import numpy as np
import pytest
from flax import nnx

from papyrax.layers import SNNKLinear

MANY = 100_000


def layer(kind, features=MANY, **options):
    return SNNKLinear(3, 2, features=features, kind=kind, rngs=nnx.Rngs(0), **options)


def test_only_the_weights_are_parameters():
    small = SNNKLinear(400, 2, features=5, rngs=nnx.Rngs(0))
    assert [p.size for p in jax.tree.leaves(nnx.state(small, nnx.Param))] == [10]
    x = np.random.default_rng(0).normal(size=(4, 400)).astype(np.float32)
    phi = np.maximum(x @ np.asarray(small.projections[...]).T, 0) / np.sqrt(5)
    np.testing.assert_allclose(small(x), phi @ np.asarray(small.weights[...]).T, rtol=1e-4)
    graph, params, rest = nnx.split(small, nnx.Param, ...)
    nothing = jax.grad(lambda rest: nnx.merge(graph, params, rest)(x).sum())(rest)
    assert [np.any(leaf) for leaf in jax.tree.leaves(nothing)] == [False]


def test_starts_as_an_arc_cosine_kernel():
    """Of weights W that opposite inputs tell: out(e_i) - out(-e_i) is W_i / 2 in the mean."""
    start = layer("relu")
    rng = np.random.default_rng(1)
    x = np.concatenate([np.eye(3), -np.eye(3), rng.normal(size=(5, 3))]).astype(np.float32)
    out = np.asarray(start(x), np.float64)
    w = 2 * (out[:3] - out[3:6]).T
    assert np.all(np.abs(w) < 1.1 / np.sqrt(3))
    assert np.abs(w).max() > 0.1
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=1)
    cosine = x @ w.T / norms
    angle = np.arccos(np.clip(cosine, -1, 1))
    kernel = norms * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    np.testing.assert_allclose(out, kernel, atol=0.02)


@pytest.mark.parametrize("options", [{}, {"damping": 0.1, "orthogonal": True}])
def test_starts_as_cosines_and_sines_of_one_affine_map(options):
    rng = np.random.default_rng(2)
    a, b = 0.5 * rng.normal(size=(2, 4, 3)).astype(np.float32)
    x = np.stack([a, b, a + b, 0 * a])
    cosine, sine = (np.asarray(layer(kind, **options)(x)) for kind in ("cosine", "sine"))
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=0.08)
    phase = np.arctan2(sine, cosine)
    np.testing.assert_allclose(phase[0] + phase[1], phase[2] + phase[3], atol=0.08)
    assert np.abs(phase[3]).max() < 1 / np.sqrt(3) + 0.02  # x = 0 leaves the bias
    assert np.abs(phase[0] - phase[3]).max() > 0.1
