"""Polarized self-attention as a module of flax.nnx."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention.polarized import (
    Order,
    polarized_channel_context,
    polarized_self_attention,
    polarized_spatial_gate,
)
from ..numerics import check, check_floating, check_shape


class PolarizedSelfAttention(nnx.Module):
    """A gate of channels and a gate of pixels for features of an image.

        A_ch = sigmoid(LayerNorm(W_z sum_p softmax(W_q x)_p (W_v x)_p))
        A_sp = sigmoid(<softmax(mean of U_q x), U_v x>)
        parallel: y = A_ch x + A_sp x        sequential: y = A_sp(z) z, z = A_ch x

    All projections are linear maps of the channels, queries and values of the channels' half. The
    paper puts the module after the first 3x3 convolution of a residual block.

    Args:
      dim: channels in and out, an even number.
      layout: "parallel" or "sequential".
      order: "paper", or "released" for the authors' modules: softmax stands elsewhere in the
        spatial branch (see `papyrax.attention.polarized_spatial_gate`); the channel gate has no
        normalization in the parallel layout, and in the sequential one a bottleneck of dim / 8
        channels with LayerNorm and ReLU.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, dim], it returns [batch, height, width, dim].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Polarized Self-Attention: Towards High-quality Pixel-wise Regression, arXiv 2107.00782,
    equations 1 to 4; compared with DeLightCMU/PSA `semantic-segmentation/network/PSA.py`: the same
    functions as `PSA_p` and `PSA_s` with `order="released"`.

    >>> PolarizedSelfAttention(8, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 6, 8))).shape
    (1, 4, 6, 8)
    """

    def __init__(
        self,
        dim: int,
        *,
        layout: Literal["parallel", "sequential"] = "parallel",
        order: Literal["paper", "released"] = "paper",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(
            layout in ("parallel", "sequential"),
            "layout",
            f'got {layout!r}, takes "parallel" or "sequential"',
        )
        check(
            order in ("paper", "released"), "order", f'got {order!r}, takes "paper" or "released"'
        )
        bottleneck = order == "released" and layout == "sequential"
        multiple = 8 if bottleneck else 2
        check(
            dim > 0 and dim % multiple == 0,
            "dim",
            f"got {dim}, takes a positive multiple of {multiple}",
        )
        self.dim, self.layout = dim, layout
        self.order: Order = "paper"
        if order == "released":
            self.order = "released_sequential" if bottleneck else "released_parallel"
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        half, inner = dim // 2, dim // 8 if bottleneck else dim

        def project(size: int) -> nnx.Linear:
            start = nnx.initializers.he_normal()
            return nnx.Linear(dim, size, use_bias=False, kernel_init=start, **kinds)

        def norm(size: int) -> nnx.LayerNorm:
            return nnx.LayerNorm(size, epsilon=1e-5, use_fast_variance=False, **kinds)

        self.channel_query, self.channel_value = project(1), project(half)
        self.spatial_query, self.spatial_value = project(half), project(half)
        self.up = nnx.Linear(half, inner, use_bias=order == "paper" or bottleneck, **kinds)
        self.norm: Any = None if self.order == "released_parallel" else norm(inner)
        self.expand: Any = nnx.Linear(inner, dim, **kinds) if bottleneck else None

    def channel_gate(self, x: Float[Array, "B P C"]) -> Float[Array, "B C"]:
        """The gate of the channels of features [batch, pixels, dim]."""
        query, value = self.channel_query(x)[..., 0], self.channel_value(x)
        gate = self.up(polarized_channel_context(query, value))
        if self.norm is not None:
            gate = self.norm(gate)
        if self.expand is not None:
            gate = self.expand(jax.nn.relu(gate))
        return jax.nn.sigmoid(gate)

    def spatial_gate(self, x: Float[Array, "B P C"]) -> Float[Array, "B P"]:
        """The gate of the pixels of features [batch, pixels, dim]."""
        query, value = self.spatial_query(x), self.spatial_value(x)
        return polarized_spatial_gate(query, value, order=self.order)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Gate an image [batch, height, width, dim]."""
        check_floating(x=x)
        check_shape("x", x, (None, None, None, self.dim), "[batch, height, width, dim]")
        batch, _, _, dim = np.shape(x)
        y = polarized_self_attention(
            jnp.reshape(x, (batch, -1, dim)),
            self.channel_gate,
            self.spatial_gate,
            layout=self.layout,
        )
        return y.reshape(x.shape)
