"""Polarized self-attention: gates of channels and of pixels, each with the other axis collapsed."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..kernels.two_pass_softmax.reference import softmax
from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_rank,
    check_shape,
    restore,
    upcast,
)

Order = Literal["paper", "released_parallel", "released_sequential"]
ORDERS = ("paper", "released_parallel", "released_sequential")


def _over_pixels(
    logits: Float[Array, "*B P"], mask: Bool[Array, "*B P"] | None
) -> Float[Array, "*B P"]:
    return softmax(logits if mask is None else jnp.where(mask, logits, -jnp.inf), log=False)


def _check_mask(mask: Array | None, shape: tuple[int, ...]) -> None:
    if mask is not None:
        check_boolean(mask=mask)
        check_shape("mask", mask, shape, "[..., pixels]")


def polarized_channel_context(
    query: Float[Array, "*B P"],
    value: Float[Array, "*B P D"],
    mask: Bool[Array, "*B P"] | None = None,
) -> Float[Array, "*B D"]:
    """What the channel-only branch reads: one attention over all pixels, for all channels.

        context = sum_p a_p v_p,   a = softmax over pixels of q

    A projection to all channels, a normalization and a sigmoid make the gate of the channels of it
    (`papyrax.layers.PolarizedSelfAttention`).

    Args:
      query: one logit a pixel [..., pixels].
      value: [..., pixels, dim]; half of the channels in the paper.
      mask: booleans [..., pixels]; False hides a pixel. Without any pixel the context is zero.

    Returns:
      [..., dim] in the inputs' dtype.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Polarized Self-Attention, arXiv 2107.00782, equation 1; agrees with `spatial_pool` of
    DeLightCMU/PSA `semantic-segmentation/network/PSA.py`.

    >>> polarized_channel_context(jnp.zeros((2, 6)), jnp.ones((2, 6, 4))).shape
    (2, 4)
    """
    check_floating(query=query, value=value)
    check_rank("query", query, 1, at_least=True)
    check_shape("value", value, (*np.shape(query), None), "[..., pixels, dim], as query")
    _check_mask(mask, np.shape(query))
    q, v = upcast(query, value)
    context = jnp.einsum("...p,...pd->...d", _over_pixels(q, mask), v)
    return restore(context, query, value)


def polarized_spatial_gate(
    query: Float[Array, "*B P D"],
    value: Float[Array, "*B P D"],
    mask: Bool[Array, "*B P"] | None = None,
    *,
    order: Order = "paper",
) -> Float[Array, "*B P"]:
    """The gate of the spatial-only branch: one number between 0 and 1 a pixel.

        g = mean over pixels of q
        paper:                 gate_p = sigmoid(<softmax over channels of g, v_p>)
        released, parallel:    gate   = sigmoid(softmax over pixels of <g, v_p>)
        released, sequential:  gate_p = sigmoid(<g, (softmax over pixels of v)_p>)

    Args:
      query: [..., pixels, dim]; half of the channels in the paper.
      value: [..., pixels, dim].
      mask: booleans [..., pixels]; a hidden pixel counts nowhere and has gate zero.
      order: where softmax stands: "paper", or "released_parallel" or "released_sequential" as in
        the authors' modules of that layout. In "released_parallel" all gates are between 0.5 and
        0.74, since the sigmoid is of probabilities.

    Returns:
      [..., pixels] in the inputs' dtype.

    Raises:
      ValueError: for a wrong shape, dtype or order.

    Source: Polarized Self-Attention, arXiv 2107.00782, equation 2; compared with `channel_pool` of
    DeLightCMU/PSA `semantic-segmentation/network/PSA.py` (`PSA_p`, `PSA_s`), which differ from the
    paper and from each other as said above.

    >>> polarized_spatial_gate(jnp.zeros((2, 6, 4)), jnp.zeros((2, 6, 4)))[0].tolist()
    [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    check_floating(query=query, value=value)
    check_rank("query", query, 2, at_least=True)
    check_shape("value", value, np.shape(query), "[..., pixels, dim], as query")
    check(order in ORDERS, "order", f"got {order!r}, takes one of {', '.join(ORDERS)}")
    _check_mask(mask, np.shape(query)[:-1])
    q, v = upcast(query, value)
    shown = jnp.ones(q.shape[:-1], bool) if mask is None else mask
    pixels = jnp.maximum(jnp.sum(shown, axis=-1, keepdims=True), 1)
    g = jnp.sum(jnp.where(shown[..., None], q, 0), axis=-2) / pixels
    if order == "paper":
        g = softmax(g, log=False)
    if order == "released_sequential":
        hidden = None if mask is None else mask[..., None, :]
        v = jnp.swapaxes(_over_pixels(jnp.swapaxes(v, -1, -2), hidden), -1, -2)
    logits = jnp.einsum("...d,...pd->...p", g, v)
    if order == "released_parallel":
        logits = _over_pixels(logits, mask)
    return restore(jnp.where(shown, jax.nn.sigmoid(logits), 0), query, value)


def polarized_self_attention(
    x: Float[Array, "*B P C"],
    channel_gate: Callable[[Float[Array, "*B P C"]], Float[Array, "*B C"]],
    spatial_gate: Callable[[Float[Array, "*B P C"]], Float[Array, "*B P"]],
    *,
    layout: Literal["parallel", "sequential"] = "parallel",
) -> Float[Array, "*B P C"]:
    """Features gated by channel and by pixel, side by side or one after the other.

        parallel:    y = A_ch(x) x + A_sp(x) x
        sequential:  y = A_sp(z) z,   z = A_ch(x) x

    Args:
      x: features [..., pixels, channels].
      channel_gate: from features [..., pixels, channels] to gates [..., channels].
      spatial_gate: from features [..., pixels, channels] to gates [..., pixels].
      layout: "parallel" (a sum) or "sequential".

    Returns:
      [..., pixels, channels] in the dtype of x.

    Raises:
      ValueError: for a wrong shape, dtype or layout, of the gates too.

    Source: Polarized Self-Attention, arXiv 2107.00782, equations 3 and 4; agrees with `forward` of
    `PSA_p` and `PSA_s` of DeLightCMU/PSA `semantic-segmentation/network/PSA.py`.

    >>> half = lambda x: jnp.full(x.shape[:-1], 0.5)
    >>> gates = lambda x: jnp.full((*x.shape[:-2], x.shape[-1]), 0.5)
    >>> polarized_self_attention(jnp.ones((1, 2, 3)), gates, half, layout="sequential").tolist()
    [[[0.25, 0.25, 0.25], [0.25, 0.25, 0.25]]]
    """
    check_floating(x=x)
    check_rank("x", x, 2, at_least=True)
    check(
        layout in ("parallel", "sequential"),
        "layout",
        f'got {layout!r}, takes "parallel" or "sequential"',
    )
    *batch, pixels, channels = np.shape(x)

    def by_channel(features: Array) -> Array:
        gate = channel_gate(features)
        check_shape("channel_gate", gate, (*batch, channels), "[..., channels]")
        return upcast(features) * upcast(gate)[..., None, :]

    def by_pixel(features: Array) -> Array:
        gate = spatial_gate(features)
        check_shape("spatial_gate", gate, (*batch, pixels), "[..., pixels]")
        return upcast(features) * upcast(gate)[..., None]

    if layout == "parallel":
        return restore(by_channel(x) + by_pixel(x), x)
    return restore(by_pixel(restore(by_channel(x), x)), x)
