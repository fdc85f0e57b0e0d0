"""Attention through anchor points: every point reads a few of them and is read by none."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..numerics import check, check_boolean, check_broadcastable, check_integer, check_shape
from .arguments import check_attention
from .dot_product import dot_product_attention


def anchor_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: Float[Array, "*#BNTA"] | None = None,
    mask: Bool[Array, "*#BNTA"] | None = None,
    *,
    anchors: Int[Array, "B A"],
    scale: float | None = None,
    is_causal: bool = False,
) -> Float[Array, "B T N E"]:
    """Softmax attention of every point over the anchor points alone.

        out_p = sum_a softmax_a(q_p . k_a scale) v_a,   a in the anchors

    What a few reliable points know reaches all others along directed edges, at a cost of points
    times anchors; points see each other only through them. With `anchors` on both sides, by
    indexing query as well, this is the self-attention among the anchors of an image.

    Args:
      query: [batch, points, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      bias: added to the logits; broadcasts to [batch, heads, points, anchors].
      mask: False hides an anchor, as where there are fewer than A of them; broadcasts to
        [batch, heads, points, anchors].
      anchors: positions of the anchors among the keys [batch, anchors]; any number where the mask
        hides the anchor from all points. The position of no key, such as -1, gives NaN elsewhere.
      scale: of the logits; dim^(-1/2) for None.
      is_causal: False; anchors have no order.

    Returns:
      [batch, points, heads, value_dim]; zeros where no anchor is seen.

    Raises:
      ValueError: for `is_causal`, or a wrong shape or dtype.

    Source: DenseGAP: Graph-Structured Dense Correspondence Learning with Anchor Points,
    arXiv 2112.06910, the directed edges from anchors to image points. The authors' repository holds
    no code; the operator is the text's.

    >>> x = jax.random.normal(jax.random.key(0), (2, 10, 4, 8))
    >>> anchor_attention(x, x, x, anchors=jnp.array([[0, 3, 9], [1, 2, 5]])).shape
    (2, 10, 4, 8)
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    check_integer(anchors=anchors)
    batch, points, heads, _ = np.shape(query)
    check_shape("anchors", anchors, (batch, None), "[batch, anchors], as query")
    check(not is_causal, "is_causal", "got True, takes False: anchors have no order")
    shape = (batch, heads, points, np.shape(anchors)[1])
    for name, x in (("bias", bias), ("mask", mask)):
        if x is not None:
            check_broadcastable(name, x, shape, "[batch, heads, points, anchors]")
    index = jnp.asarray(anchors, jnp.int32)
    index = jnp.where(index < 0, np.shape(key)[1], index)  # negative ones would count from the end
    if mask is not None:
        check_boolean(mask=mask)
        mask = jnp.asarray(mask).reshape((1,) * (4 - np.ndim(mask)) + np.shape(mask))
        index = jnp.where(jnp.any(mask, axis=(1, 2)), index, 0)
    index = index[:, :, None, None]
    k, v = (jnp.take_along_axis(jnp.asarray(x), index, axis=1) for x in (key, value))
    return dot_product_attention(query, k, v, bias, mask, scale=scale)
