"""Contextual attention against loops over patches."""

import jax
import numpy as np
import pytest

from papyrax import attention

contextual_attention = jax.jit(
    attention.contextual_attention, static_argnames=("patch_size", "similarity", "complete_only")
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0, H=7, W=6):
    rng = np.random.default_rng(seed)
    mask = np.ones((H, W), bool)
    mask[3:5, 1:3] = False
    return rng.normal(size=(H, W, 2)), mask, rng.normal(size=(H, W, 2))


def brute(x, mask, front, k, scale, similarity, complete_only):
    H, W, C = x.shape
    r = k // 2
    known = x * mask[..., None]
    patches = []
    for i in range(H - k + 1):
        for j in range(W - k + 1):
            if not complete_only or mask[i : i + k, j : j + k].all():
                patches.append(known[i : i + k, j : j + k].ravel())
    b = np.stack(patches)
    wide = np.pad(front, ((r, r), (r, r), (0, 0)))
    canvas = np.zeros_like(wide)
    for i, j in np.ndindex(H, W):
        f = wide[i : i + k, j : j + k].ravel()
        if similarity == "cosine":
            s = b @ f / np.linalg.norm(b, axis=1) / np.linalg.norm(f)
        else:
            d = ((f - b) ** 2).sum(1)
            s = -np.tanh((d - d.mean()) / d.std())
        w = np.exp(scale * s - (scale * s).max())
        canvas[i : i + k, j : j + k] += (w / w.sum() @ b).reshape(k, k, C)
    filled = canvas[r : r + H, r : r + W] / k**2
    return np.where(mask[..., None], x, filled)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("complete_only", [True, False])
def test_is_the_formula(similarity, complete_only):
    x, mask, front = draw()
    got = contextual_attention(
        x[None],
        mask[None],
        front[None],
        scale=7.0,
        similarity=similarity,
        complete_only=complete_only,
    )
    want = brute(x, mask, front, 3, 7.0, similarity, complete_only)
    np.testing.assert_allclose(got[0], want, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(got[0][mask], x[mask])


def test_euclidean_weights_know_no_unit():
    x, mask, front = draw(1)
    want = contextual_attention(x[None], mask[None], front[None])
    got = contextual_attention(100 * x[None], mask[None], 100 * front[None])
    np.testing.assert_allclose(got, 100 * want, rtol=1e-10)


def test_a_periodic_image_is_completed_from_its_copies():
    x = np.tile(np.random.default_rng(2).normal(size=(4, 4, 1)), (4, 4, 1))[None]
    mask = np.ones((1, 16, 16), bool)
    mask[:, 6:9, 6:9] = False
    got = contextual_attention(x, mask, scale=1e4, complete_only=True)
    np.testing.assert_allclose(got, x, atol=1e-8)


def test_nothing_known_gives_zeros():
    x, mask, _ = draw()
    for complete_only in (True, False):
        got = contextual_attention(x[None], 0 * mask[None] > 0, complete_only=complete_only)
        assert not np.any(got)
