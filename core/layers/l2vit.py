"""The blocks of L2ViT: linear global attention with local concentration, and window attention."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import dot_product_attention, relu_linear_attention
from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_shape,
)
from .attention import check_heads
from .batch_norm import batch_norm

gelu = functools.partial(jax.nn.gelu, approximate=False)


def _depthwise(dim: int, size: int, kinds: dict[str, Any]) -> nnx.Conv:
    return nnx.Conv(dim, dim, (size, size), feature_group_count=dim, **kinds)


def _norm(dim: int, kinds: dict[str, Any]) -> nnx.LayerNorm:
    return nnx.LayerNorm(dim, epsilon=1e-5, use_fast_variance=False, **kinds)


def _check_image(x: Any, dim: int) -> None:
    check_floating(x=x)
    check_shape("x", x, (None, None, None, dim), "[batch, height, width, dim]")


class LocalConcentration(nnx.Module):
    """Two depthwise convolutions that gather what linear attention has spread out.

        y = Conv(BatchNorm(GELU(Conv(x))))

    Linear attention gives neighbours and far tokens weights that hardly differ; the module puts
    the weight of near tokens back. The normalization before it and the residual around it are left
    to the model (`L2ViTBlock` has both).

    Args:
      dim: channels in and out.
      kernel_size: width of both convolutions, an odd number.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, dim], it returns [batch, height, width, dim]. The batch
    normalization uses the statistics of the batch, and updates its own, unless `module.eval()` was
    called.

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: The Linear Attention Resurrection in Vision Transformer, arXiv 2501.16182, the local
    concentration module; the same function as `LCM` of ChuanyangZheng/L2ViT
    `classification/models/l2vit.py`.

    >>> LocalConcentration(8, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 6, 8))).shape
    (1, 4, 6, 8)
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel_size: int = 7,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(dim > 0, "dim", f"got {dim}, takes 1 or more channels")
        check(
            kernel_size > 0 and kernel_size % 2 == 1,
            "kernel_size",
            f"got {kernel_size}, takes an odd positive integer",
        )
        self.dim = dim
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = _depthwise(dim, kernel_size, kinds)
        self.norm = batch_norm(dim, **kinds)
        self.conv2 = _depthwise(dim, kernel_size, kinds)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Concentrate an image [batch, height, width, dim]."""
        _check_image(x, self.dim)
        return self.conv2(self.norm(gelu(self.conv1(x))))


class L2ViTBlock(nnx.Module):
    """A block of L2ViT: of linear global attention, or of attention within windows.

        x <- x + Conv3x3(x)                                    position
        x <- x + Linear(attention(q, k, v)),  q, k, v = Linear(LayerNorm(x))
        x <- x + LCM(LayerNorm(x)), or x + Conv3x3(x) with windows
        x <- x + MLP(LayerNorm(x))

    The global attention is `papyrax.attention.relu_linear_attention` with a learned scale for each
    head that starts at dim_head^(-1/2); LCM is `LocalConcentration`. The window attention is
    softmax over squares of tokens, neither shifted nor with a bias. L2ViT alternates the two,
    windows first. Convolutions of the position are depthwise.

    Args:
      dim: channels in and out.
      heads: number of heads; divides dim.
      window_size: None for linear global attention; the width of a window for window attention (7
        in the paper).
      concentrate: with global attention, whether there is an LCM.
      kernel_size: width of the convolutions of the LCM.
      floor: least denominator of the global attention, as in
        `papyrax.attention.relu_linear_attention`.
      mlp_ratio: channels of the hidden layer of the MLP as a multiple of dim; 0 for no MLP.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, dim], it returns [batch, height, width, dim].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: The Linear Attention Resurrection in Vision Transformer, arXiv 2501.16182, the blocks
    LGA and LWA; the same functions as `LGABlock` and `LWABlock` of ChuanyangZheng/L2ViT
    `classification/models/l2vit.py` without stochastic depth. As there, an image that windows do
    not divide is padded with zeros after the normalization, and padding is attended to.

    >>> block = L2ViTBlock(16, 2, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 4, 6, 16))).shape
    (1, 4, 6, 16)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window_size: int | None = None,
        concentrate: bool = True,
        kernel_size: int = 7,
        floor: float = 100.0,
        mlp_ratio: float = 4.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(dim, heads)
        check(
            window_size is None or window_size > 0,
            "window_size",
            f"got {window_size}, takes a positive integer or None",
        )
        check_positive(floor=floor)
        check_range("mlp_ratio", mlp_ratio, 0)
        self.dim, self.heads, self.window_size, self.floor = dim, heads, window_size, floor
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.position = _depthwise(dim, 3, kinds)
        self.norm1 = _norm(dim, kinds)
        self.qkv = nnx.Linear(dim, 3 * dim, **kinds)
        self.proj = nnx.Linear(dim, dim, **kinds)
        # Each is assigned once: flax keeps None apart from parameters.
        windows, hidden = window_size is not None, int(dim * mlp_ratio)
        lcm = concentrate and not windows
        start = jnp.full(heads, (dim // heads) ** -0.5, param_dtype)
        self.scale = None if windows else nnx.Param(start)
        self.norm2 = _norm(dim, kinds) if lcm else None
        if windows:
            self.local: Any = _depthwise(dim, 3, kinds)
        else:
            self.local = LocalConcentration(dim, kernel_size=kernel_size, **kinds) if lcm else None
        self.norm3: Any = _norm(dim, kinds) if hidden else None
        self.up: Any = nnx.Linear(dim, hidden, **kinds) if hidden else None
        self.down: Any = nnx.Linear(hidden, dim, **kinds) if hidden else None

    def _attention(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        height, width = x.shape[1:3]
        if self.window_size is not None:
            x = _to_windows(x, self.window_size)
        qkv = self.qkv(x).reshape(x.shape[0], -1, 3, self.heads, self.dim // self.heads)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.scale is None:
            out = dot_product_attention(q, k, v).reshape(x.shape)
            return _from_windows(self.proj(out), height, width)
        out = relu_linear_attention(q, k, v, scale=self.scale[...], floor=self.floor)
        return self.proj(out.reshape(x.shape))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Mix tokens and channels of an image [batch, height, width, dim]."""
        _check_image(x, self.dim)
        x = x + self.position(x)
        x = x + self._attention(self.norm1(x))
        if self.local is not None:
            x = x + self.local(x if self.norm2 is None else self.norm2(x))
        if self.up is not None:
            x = x + self.down(gelu(self.up(self.norm3(x))))
        return x


def _to_windows(x: Float[Array, "B H W C"], size: int) -> Float[Array, "N size size C"]:
    """The windows of all images, padded with zeros at the bottom and the right."""
    batch, height, width, dim = np.shape(x)
    x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
    x = x.reshape(batch, x.shape[1] // size, size, x.shape[2] // size, size, dim)
    return jnp.swapaxes(x, 2, 3).reshape(-1, size, size, dim)


def _from_windows(
    windows: Float[Array, "N size size C"], height: int, width: int
) -> Float[Array, "B H W C"]:
    """The images [batch, height, width, dim] that `_to_windows` cut, without the padding."""
    size, dim = windows.shape[2:]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, dim)
    x = jnp.swapaxes(x, 2, 3).reshape(-1, rows * size, columns * size, dim)
    return x[:, :height, :width]
