"""The band and the attention in it, against loops."""

import jax
import numpy as np
import pytest

from papyrax.attention import epipolar_attention, epipolar_mask


@pytest.mark.parametrize("field", [None, (2, 3), (3, 4), (1, 1)])
def test_mask_is_the_authors_loop(field):
    V, W = 3, 14
    kv, kw = field or (2 * V, 11)
    want = np.zeros((V, W, V, W), bool)
    for i, j in np.ndindex(V, W):
        rows = slice(max(0, i - kv // 2), min(V, i + kv - kv // 2))
        columns = slice(max(0, j - kw // 2), min(W, j + kw - kw // 2))
        want[i, j, rows, columns] = True
    got = epipolar_mask(V, W, field=field)
    np.testing.assert_array_equal(got, want.reshape(V * W, V * W))


def test_default_band_has_all_views_and_five_positions_to_both_sides():
    mask = np.asarray(epipolar_mask(3, 14)).reshape(3, 14, 3, 14)
    apart = np.abs(np.arange(14)[:, None] - np.arange(14))
    np.testing.assert_array_equal(mask, np.broadcast_to((apart <= 5)[None, :, None], mask.shape))


def test_attention_is_softmax_in_the_band_of_each_image():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        q, k, v = (rng.normal(size=(3, 2, 5, h, 4)) for h in (2, 1, 1))
        got = epipolar_attention(q, k, v, field=(4, 3))
        mask = np.asarray(epipolar_mask(2, 5, field=(4, 3)))
        for m, n in np.ndindex(3, 2):
            logits = q[m, :, :, n].reshape(10, 4) @ k[m, :, :, 0].reshape(10, 4).T / 2
            weights = np.where(mask, np.exp(logits), 0)
            want = weights / weights.sum(1, keepdims=True) @ v[m, :, :, 0].reshape(10, 4)
            np.testing.assert_allclose(got[m, :, :, n].reshape(10, 4), want, rtol=1e-10)
