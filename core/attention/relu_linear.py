"""Linear attention of ReLU features with a floor under its denominator (L2ViT)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..numerics import check, check_range, known_number, restore, safe_divide, upcast
from .arguments import check_attention, check_no_bias
from .linear import (
    Implementation,
    check_implementation,
    kernel_sums,
    linear_attention_weights,
    weigh,
)


def relu_linear_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: None = None,
    mask: Bool[Array, "*#BN1S"] | None = None,
    *,
    scale: float | Float[Array, "#N"] | None = None,
    is_causal: bool = False,
    floor: float = 100.0,
    implementation: Implementation = "linear",
    chunk_size: int | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B T N E"]:
    """Linear attention of ReLU features, scaled, whose denominator never falls below a floor.

        out_i = scale_n sum_j K_ij v_j / max(sum_j K_ij, floor),   K_ij = relu(q_i) . relu(k_j)

    Weights are not negative. Above the floor each row sums to `scale_n` and does not depend on the
    length of q_i; below it the output is linear in relu(q_i), and zero for relu(q_i) = 0.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      bias: None; a kernel of feature maps has no logits to add it to.
      mask: boolean over the keys, [batch or 1, heads or 1, 1, keys] or fewer leading axes; False
        hides a key. A query with no key yields zeros.
      scale: one number, or one a head [heads], which the paper learns; None for dim^(-1/2), where
        it starts.
      is_causal: query i sees the keys 0 to i.
      floor: least denominator. It is met where few keys match, as in short sequences.
      implementation: as in `linear_attention`: "linear", "pallas_tpu", "pallas_triton",
        "interpret", "interpret_triton" or "quadratic".
      chunk_size: as in `linear_attention`.
      precision: of the matrix products, as in `jax.lax.dot_general`.

    Returns:
      [batch, queries, heads, value_dim] in the inputs' dtype; computed in float32 or better.

    Raises:
      ValueError: for a bias, a mask that differs between queries, or a wrong shape, dtype or
        hyper-parameter.

    Source: The Linear Attention Resurrection in Vision Transformer, arXiv 2501.16182; compared with
    ChuanyangZheng/L2ViT `classification/models/l2vit.py` (`LinearAttention`), whose constant 100
    is the floor here.

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> relu_linear_attention(x, x, x).shape
    (2, 5, 4, 8)
    """
    check_attention(query, key, value, is_causal=is_causal)
    check_no_bias(bias)
    check_range("floor", floor, 0)
    check_implementation(implementation)
    heads, dim = query.shape[2:]
    if scale is not None and np.ndim(scale) == 0 and not isinstance(scale, jax.Array):
        scale = known_number("scale", scale)
    factor = jnp.asarray(dim**-0.5 if scale is None else scale)
    check(
        np.shape(factor) in ((), (1,), (heads,)),
        "scale",
        f"got shape {np.shape(factor)}, takes a number or one for each of {heads} heads",
    )

    def read(out: Array, total: Array) -> Array:
        return safe_divide(out, jnp.maximum(total, floor)[..., None])

    if implementation == "quadratic":
        kernel = linear_attention_weights(
            *(query, key, mask),
            is_causal=is_causal,
            feature_map="relu",
            normalize=False,
            precision=precision,
        )
        total = jnp.swapaxes(jnp.sum(kernel, axis=-1), 1, 2)
        out = read(weigh(kernel, upcast(value), precision), total)
    else:
        out = kernel_sums(
            *(query, key, value, mask),
            feature_map="relu",
            is_causal=is_causal,
            chunk_size=chunk_size,
            precision=precision,
            implementation=implementation,
            read=read,
        )
    return restore(out * factor.astype(out.dtype)[..., None], query, key, value)
