"""Heads of angles against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from authors_code import compare, recorded
from flax import nnx

from papyrax.layers import FixedCosineHead, GrassmannHead


def test_a_fixed_head_has_no_parameters_and_any_batch_axes():
    rng = np.random.default_rng(0)
    basis, x = rng.normal(size=(5, 4)), rng.normal(size=(2, 3, 4))
    head = FixedCosineHead(jnp.asarray(basis, jnp.float32), temperature=0.5)
    assert not jax.tree.leaves(nnx.state(head, nnx.Param))
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(head(x), unit(x) @ unit(basis).T / 0.5, rtol=1e-4, atol=1e-5)


def test_logits_of_subspaces():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 6))
    head = GrassmannHead(6, 3, rank=2, scale=10.0, rngs=nnx.Rngs(0))
    bases = np.asarray(head.subspaces[...], np.float64)
    np.testing.assert_allclose(
        np.swapaxes(bases, 1, 2) @ bases, np.eye(2)[None] + np.zeros((3, 1, 1)), atol=1e-6
    )
    # The length of the projection is that of the nearest point: sqrt(1 - distance^2).
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for k, basis in enumerate(bases):
        for row, got in zip(unit, np.asarray(head(x))[:, k]):
            residual = row - basis @ np.linalg.lstsq(basis, row, rcond=None)[0]
            np.testing.assert_allclose(got, 10 * np.sqrt(1 - residual @ residual), rtol=1e-5)
    # Any basis of the same subspaces gives the same logits.
    before = np.asarray(head(x))
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    head.subspaces[...] = jnp.asarray(bases @ turn, jnp.float32)
    np.testing.assert_allclose(head(3 * x), before, rtol=1e-5)
    # A subspace of all dimensions holds everything.
    full = GrassmannHead(6, 2, rank=6, scale=4.0, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(full(x), np.full((7, 2), 4.0), rtol=1e-5)


def test_authors_subspaces():
    entry = recorded("heads", "layers")["grassmann_head"]

    def logits(x, subspaces):
        like = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0), **entry["static"]}
        head = GrassmannHead(5, 3, rank=2, **like)
        head.subspaces[...] = subspaces
        return head(x)

    compare(entry, logits)
