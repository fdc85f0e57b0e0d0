"""Separable convolutions of architecture search."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..numerics import check, check_count, check_floating, check_shape
from .batch_norm import batch_norm


class SharpSepConv(nnx.Module):
    """Two separable convolutions, of which the first has the stride and the dilation.

        y = BatchNorm(P_2 D_2 relu(BatchNorm(P_1 D_1 relu(x))))

    with D convolutions of every channel on its own, and P of single pixels, without biases. The
    number of channels between the two is free: more than at the ends is a "flood", fewer a
    "choke".

    Args:
      in_features: channels of the inputs.
      out_features: channels of the outputs.
      kernel_size: width of both kernels, an odd number.
      strides: of the first convolution.
      dilation: of the first convolution.
      mid_features: channels between the convolutions; those of the outputs by default.
      affine: whether the normalizations have a scale and a bias; not during a search.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, height, width, in_features], it returns [batch, ceil(height / strides),
    ceil(width / strides), out_features]. The normalizations use the statistics of the batch, and
    update their own, unless `module.eval()` was called.

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: sharpDARTS: Faster and More Accurate Differentiable Architecture Search,
    arXiv 1903.09900, the SharpSepConv block; ahundt/sharpDARTS cnn/operations.py, whose values and
    gradients are those here.

    >>> layer = SharpSepConv(3, 8, strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 7, 3))).shape
    (2, 3, 4, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int = 3,
        strides: int = 1,
        dilation: int = 1,
        mid_features: int | None = None,
        affine: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        middle = out_features if mid_features is None else mid_features
        check_count(in_features=in_features, out_features=out_features, mid_features=middle)
        check_count(kernel_size=kernel_size, strides=strides, dilation=dilation)
        check(kernel_size % 2 == 1, "kernel_size", f"got {kernel_size}, takes an odd number")
        kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}

        def depthwise(features: int, strides: int, dilation: int) -> nnx.Conv:
            # The same on both sides whatever the stride: "SAME" would depend on the image's size.
            pad = dilation * (kernel_size // 2)
            return nnx.Conv(
                features,
                features,
                (kernel_size, kernel_size),
                strides=strides,
                padding=((pad, pad), (pad, pad)),
                kernel_dilation=dilation,
                feature_group_count=features,
                use_bias=False,
                **kinds,
            )

        self.in_features = in_features
        self.depthwise1 = depthwise(in_features, strides, dilation)
        self.pointwise1 = nnx.Linear(in_features, middle, use_bias=False, **kinds)
        self.norm1 = batch_norm(middle, affine=affine, **kinds)
        self.depthwise2 = depthwise(middle, 1, 1)
        self.pointwise2 = nnx.Linear(middle, out_features, use_bias=False, **kinds)
        self.norm2 = batch_norm(out_features, affine=affine, **kinds)

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        """Convolve an image [batch, height, width, in_features]."""
        check_floating(x=x)
        check_shape(
            "x", x, (None, None, None, self.in_features), "[batch, height, width, features]"
        )
        hidden = self.norm1(self.pointwise1(self.depthwise1(jax.nn.relu(x))))
        return self.norm2(self.pointwise2(self.depthwise2(jax.nn.relu(hidden))))
