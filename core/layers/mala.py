"""The attention block of the vision transformer with magnitude-aware linear attention."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import mala, rope_2d
from ..attention.mala import KernelScale
from ..numerics import check, check_floating, check_shape
from .attention import check_heads


class MALABlock(nnx.Module):
    """Magnitude-aware linear attention on an image, gated and with a local convolution.

        q, k, v, o = Linear(x)
        y = Linear(o * (MALA(q, k, v) + Conv5x5_depthwise(v)))

    with two-dimensional RoPE in MALA. Heads are contiguous groups of channels. Normalization, the
    residual and the feed-forward layer around it are left to the model.

    Args:
      dim: channels in and out.
      heads: number of heads; divides dim, and dim / heads is a multiple of 4 where `use_rope`.
      kernel_size: width of the depthwise convolution of the values.
      use_rope: turn phi(q) and phi(k) by their position in the image.
      epsilon: as in `papyrax.attention.mala`.
      scale: as in `papyrax.attention.mala`.
      kernel_scale: as in `papyrax.attention.mala`; here "released", the authors' block, whose
        output does not grow with the number of tokens, is the default.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, dim], it returns [batch, height, width, dim].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698, the block of MAViT;
    compared with qhfan/MALA `classfication_release/model.py` (`AddLinearAttention`): the same
    function, with 1x1 convolutions written as linear layers.

    >>> block = MALABlock(16, 2, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 4, 6, 16))).shape
    (1, 4, 6, 16)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel_size: int = 5,
        use_rope: bool = True,
        epsilon: float = 1e-6,
        scale: float | None = None,
        kernel_scale: KernelScale = "released",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(dim, heads)
        check(
            not use_rope or (dim // heads) % 4 == 0,
            "dim",
            f"got {dim} for {heads} heads, takes a multiple of 4 a head (or use_rope=False)",
        )
        check(
            kernel_size > 0 and kernel_size % 2 == 1,
            "kernel_size",
            f"got {kernel_size}, takes an odd positive integer",
        )
        self.dim, self.heads, self.use_rope = dim, heads, use_rope
        self.epsilon, self.scale, self.kernel_scale = epsilon, scale, kernel_scale
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.qkvo = nnx.Linear(dim, 4 * dim, **kinds)
        self.local = nnx.Conv(
            dim, dim, (kernel_size, kernel_size), feature_group_count=dim, **kinds
        )
        self.proj = nnx.Linear(dim, dim, **kinds)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Mix the tokens of an image [batch, height, width, dim]."""
        check_floating(x=x)
        check_shape("x", x, (None, None, None, self.dim), "[batch, height, width, dim]")
        batch, height, width, dim = np.shape(x)
        q, k, v, gate = jnp.split(self.qkvo(x), 4, axis=-1)

        def tokens(y: Array) -> Array:
            return y.reshape(batch, height * width, self.heads, dim // self.heads)

        out = mala(
            tokens(q),
            tokens(k),
            tokens(v),
            rope=rope_2d(height, width, dim // self.heads) if self.use_rope else None,
            epsilon=self.epsilon,
            scale=self.scale,
            kernel_scale=self.kernel_scale,
        )
        return self.proj(gate * (out.reshape(x.shape) + self.local(v)))
