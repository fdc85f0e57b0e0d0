"""The attention block of the softmax-free transformers SOFT and SOFT++."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import soft_attention
from ..numerics import check, check_floating, check_shape
from .attention import check_heads


class SOFTBlock(nnx.Module):
    """Softmax-free attention on an image, with learned landmarks and a local convolution.

        q = dim_head^(-1/4) Linear(x),   k = q,   v = Linear(x)
        L = GELU(LayerNorm(Conv(q)))                 kernel and stride `landmark_stride`, per head
        y = Linear(SOFT(q, k, v; L) + Conv(v))       one depthwise filter a head

    Queries and keys are shared, so the implied weights are symmetric and positive semi-definite.
    Heads are contiguous groups of channels and share the convolution of the landmarks.
    Normalization, the residual and the feed-forward layer around it are left to the model.

    Args:
      dim: channels in and out.
      heads: number of heads; divides dim.
      landmark_stride: width of the square of tokens that becomes one landmark; tokens beyond the
        last whole square are in none.
      kernel_size: width of the convolution of the values, an odd number; None for no convolution.
      normalize: SOFT++ (True) or SOFT, as in `papyrax.attention.soft_attention`.
      inverse: as in `papyrax.attention.soft_attention`.
      iterations: as in `papyrax.attention.soft_attention`.
      ridge: as in `papyrax.attention.soft_attention`.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, dim], it returns [batch, height, width, dim].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Softmax-free Linear Transformers, arXiv 2207.03341, section 3; compared with
    fudan-zvg/SOFT `models/softmax_free_transformer.py`: values and gradients are those of
    `SoftmaxFreeAttention` for `normalize=False` and of `SoftmaxFreeNormAttention` for
    `inverse="released"`.

    >>> block = SOFTBlock(16, 2, landmark_stride=2, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 4, 6, 16))).shape
    (1, 4, 6, 16)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        landmark_stride: int = 8,
        kernel_size: int | None = 3,
        normalize: bool = True,
        inverse: Any = "newton",
        iterations: int = 20,
        ridge: float = 0.01,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(dim, heads)
        check(
            landmark_stride > 0, "landmark_stride", f"got {landmark_stride}, takes 1 or more tokens"
        )
        check(
            kernel_size is None or (kernel_size > 0 and kernel_size % 2 == 1),
            "kernel_size",
            f"got {kernel_size}, takes an odd positive integer or None",
        )
        self.dim, self.heads, self.landmark_stride = dim, heads, landmark_stride
        self.normalize, self.inverse = normalize, inverse
        self.iterations, self.ridge = iterations, ridge
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        size, stride = dim // heads, (landmark_stride, landmark_stride)
        self.query = nnx.Linear(dim, dim, **kinds)
        self.value = nnx.Linear(dim, dim, **kinds)
        self.landmark = nnx.Conv(
            size, size, stride, strides=stride, padding="VALID", use_bias=False, **kinds
        )
        self.norm = nnx.LayerNorm(size, epsilon=1e-5, use_fast_variance=False, **kinds)
        self.local = (
            None
            if kernel_size is None
            else nnx.Conv(
                heads,
                heads,
                (kernel_size, kernel_size),
                feature_group_count=heads,
                use_bias=False,
                **kinds,
            )
        )
        self.proj = nnx.Linear(dim, dim, **kinds)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Mix the tokens of an image [batch, height, width, dim]."""
        check_floating(x=x)
        check_shape("x", x, (None, None, None, self.dim), "[batch, height, width, dim]")
        batch, height, width, dim = np.shape(x)
        heads, size = self.heads, dim // self.heads
        check(
            min(height, width) >= self.landmark_stride,
            "x",
            f"got an image {(height, width)}, takes one of landmark_stride {self.landmark_stride} "
            "or more tokens a side",
        )
        q = self.query(x).reshape(batch, height, width, heads, size) * size**-0.25
        v = self.value(x).reshape(batch, height, width, heads, size)

        def tokens(y: Array) -> Array:
            return y.reshape(batch, -1, heads, size)

        def per(axis: int, conv: nnx.Conv, y: Array) -> Array:
            """Convolve with an axis of the heads' features as if it were one of the batch."""
            y = jnp.moveaxis(y, axis, 1)
            out = conv(y.reshape(-1, height, width, y.shape[-1]))
            return jnp.moveaxis(out.reshape(batch, -1, *out.shape[1:]), 1, axis)

        landmarks = jax.nn.gelu(self.norm(per(3, self.landmark, q)), approximate=False)
        out = soft_attention(
            tokens(q),
            tokens(q),
            tokens(v),
            landmarks=tokens(landmarks),
            scale=1.0,
            normalize=self.normalize,
            inverse=self.inverse,
            iterations=self.iterations,
            ridge=self.ridge,
        )
        if self.local is not None:
            out = out + tokens(per(4, self.local, v))
        return self.proj(out.reshape(x.shape))
