"""Dense attention with any function of the logits in the place of softmax."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..kernels.two_pass_softmax import reference, two_pass_softmax
from ..numerics import check, check_broadcastable, check_floating, restore, upcast
from ..numerics.stablemax import log_s
from .arguments import check_attention, visible

Normalizer = Callable[..., Float[Array, "*B S"]]


def _softmax(logits: Float[Array, "*B S"], *, where: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    return reference.softmax(jnp.where(where, logits, -jnp.inf), log=False)


def _stablemax(logits: Float[Array, "*B S"], *, where: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    s = jnp.where(where, jnp.exp(log_s(logits)), 0)
    total = jnp.sum(s, axis=-1, keepdims=True)
    return s / jnp.where(total > 0, total, 1)


NORMALIZERS: dict[str, Normalizer] = {
    "softmax": _softmax,
    "stablemax": _stablemax,
    "two_pass_softmax": two_pass_softmax,
}


def normalized_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: Float[Array, "*#BNTS"] | None = None,
    mask: Bool[Array, "*#BNTS"] | None = None,
    *,
    normalizer: Literal["softmax", "stablemax", "two_pass_softmax"] | Normalizer = "softmax",
    scale: float | Float[Array, ""] | None = None,
    is_causal: bool = False,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B T N E"]:
    """Attention whose weights are any function of each row of logits.

        out_i = sum_j P_ij v_j,   P_i = normalizer(S_i),   S_ij = scale q_i . k_j + bias_ij

    All weights are in memory; for softmax on long sequences there is `dot_product_attention`.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      bias: added to the logits; broadcasts to [batch, heads, queries, keys].
      mask: boolean, True shows; broadcasts to [batch, heads, queries, keys]. A query with no key
        yields zeros.
      normalizer: "softmax"; "two_pass_softmax", the same numbers from
        `papyrax.kernels.two_pass_softmax`; "stablemax", whose weights are in proportion to
        x + 1 for logits x >= 0 and 1 / (1 - x) below; or a function
        `f(logits [..., keys], where=booleans [..., keys])` to weights [..., keys], such as
        `jax.nn.softmax`. Hidden keys get weight zero whatever it returns.
      scale: factor of the logits; dim^(-1/2) for None.
      is_causal: query i sees the keys 0 to i.
      precision: of the matrix products, as in `jax.lax.dot_general`.

    Returns:
      [batch, queries, heads, value_dim] in the inputs' dtype; computed in float32 or better.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: The Two-Pass Softmax Algorithm, arXiv 2001.04438, and Grokking at the Edge of Numerical
    Stability, arXiv 2501.04697 (StableMax), as normalizers of attention; neither paper trains so.

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> normalized_attention(x, x, x, normalizer="stablemax").shape
    (2, 5, 4, 8)
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    known = ", ".join(NORMALIZERS)
    check(
        callable(normalizer) or normalizer in NORMALIZERS,
        "normalizer",
        f"got {normalizer!r}, takes a function or one of {known}",
    )
    weigh: Any = normalizer if callable(normalizer) else NORMALIZERS[normalizer]
    shown = visible(mask, is_causal, query, key)
    q, k, v = upcast(query, key, value)
    batch, queries, heads, dim = np.shape(query)
    keys, key_heads = np.shape(key)[1:3]
    q = q.reshape(batch, queries, key_heads, heads // key_heads, dim)
    q = q * (dim**-0.5 if scale is None else scale)
    logits = jnp.einsum("btkgh,bskh->bkgts", q, k, precision=precision)
    if bias is not None:
        check_floating(bias=bias)
        shape = (batch, heads, queries, keys)
        check_broadcastable("bias", bias, shape, "[batch, heads, queries, keys]")
        logits = logits + jnp.broadcast_to(upcast(bias), shape).reshape(logits.shape)
    # Hidden logits are zero, so that no normalizer meets an infinity.
    weights = weigh(jnp.where(shown, logits, 0), where=shown)
    check(
        np.shape(weights) == logits.shape,
        "normalizer",
        f"got weights of shape {np.shape(weights)}, takes the shape of the logits {logits.shape}",
    )
    weights = jnp.where(shown, weights, 0)
    out = jnp.einsum("bkgts,bske->btkge", weights, v, precision=precision)
    inputs = (query, key, value) if bias is None else (query, key, value, bias)
    return restore(out.reshape(batch, queries, heads, np.shape(value)[3]), *inputs)
