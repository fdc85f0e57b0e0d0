"""Anchor attention against loops, and who sees whom."""

import jax
import numpy as np
import pytest

from papyrax.attention import anchor_attention


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 6, n, 3)) for n in (4, 2, 2))
    return q, k, v, np.array([[0, 4, 2], [5, 1, 3]])


def test_is_softmax_over_the_anchors():
    q, k, v, anchors = draw()
    mask = np.array([True, True, False])
    got = anchor_attention(q, k, v, mask=mask, anchors=anchors)
    for b, n in np.ndindex(2, 4):
        chosen = anchors[b][mask]
        logits = q[b, :, n] @ k[b, chosen, n // 2].T / np.sqrt(3)
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(got[b, :, n], weights @ v[b, chosen, n // 2], rtol=1e-10)


def test_hidden_anchors_may_be_anywhere():
    q, k, v, anchors = draw()
    mask = np.array([True, True, False])
    want = anchor_attention(q, k, v, mask=mask, anchors=anchors)
    for padding in (-1, 6, 99):
        padded = np.where(mask, anchors, padding)
        np.testing.assert_allclose(
            anchor_attention(q, k, v, mask=mask, anchors=padded), want, rtol=1e-12
        )
        assert np.isnan(anchor_attention(q, k, v, anchors=padded)).all()


def test_order_of_anchors_does_not_matter_and_other_points_are_not_read():
    q, k, v, anchors = draw()
    want = anchor_attention(q, k, v, anchors=anchors)
    np.testing.assert_allclose(
        anchor_attention(q, k, v, anchors=anchors[:, ::-1]), want, rtol=1e-12
    )
    slope = jax.grad(lambda v: anchor_attention(q, k, v, anchors=anchors).sum())(v)
    for b in range(2):
        read = np.abs(slope[b]).max((1, 2)) > 0
        assert set(np.flatnonzero(read)) == set(anchors[b])
