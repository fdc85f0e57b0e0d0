"""Layers whose weights respond to hyper-parameters: self-tuning networks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..numerics import (
    check_count,
    check_floating,
    check_rank,
    check_shape,
    restore,
    upcast,
)


class _Responsive(nnx.Module):
    """What both layers have: two kernels side by side, and the gates of the second."""

    def __init__(
        self,
        shape: tuple[int, ...],
        hyper_features: int,
        use_bias: bool,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        bound = 1 / np.sqrt(np.prod(shape[:-1]))
        features = shape[-1]

        wide = jnp.promote_types(jnp.float32, param_dtype)

        def uniform(shape: tuple[int, ...]) -> nnx.Param:
            drawn = jax.random.uniform(rngs.params(), shape, wide, -bound, bound)
            return nnx.Param(drawn.astype(param_dtype))

        # Base and response next to each other on the output axis: one product gives both.
        self.kernel = uniform((*shape[:-1], 2 * features))
        self.bias = uniform((2 * features,)) if use_bias else None
        self.scale = nnx.Param(jnp.ones((), param_dtype))
        gates = 0.01 * jax.random.normal(rngs.params(), (hyper_features, 2 * features), wide)
        self.gates = nnx.Param(gates.astype(param_dtype))
        self.features, self.hyper_features, self.dtype = features, hyper_features, dtype

    def _respond(self, product: Array, hyper: Any, bias: Array | None, axes: int) -> Array:
        """`s (W x + b) + a(h) (V x) + c(h) d` from [W x, V x]."""
        scale, gates, h = upcast(self.scale[...], self.gates[...], hyper)
        base, response = jnp.split(product, 2, -1)
        signal = (h @ gates).reshape(*h.shape[:-1], *[1] * axes, 2 * self.features)
        a, c = jnp.split(signal, 2, -1)
        if bias is None:
            return scale * base + a * response
        b, d = jnp.split(bias, 2, -1)
        return scale * (base + b) + a * response + c * d

    def _check(self, x: Any, hyper: Any, rank: int, features: int) -> None:
        check_floating(x=x, hyper=hyper)
        check_rank("x", x, rank, at_least=rank == 1)
        check_shape("x", x, (*np.shape(x)[:-1], features), "[..., features]")
        rows = np.shape(x)[: len(np.shape(x)) - (rank - 1 if rank > 1 else 1)]
        wanted = (*rows, self.hyper_features)
        check_shape("hyper", hyper, wanted, "[..., hyper_features], one row an example of x")

    def _like(self, *inputs: Any) -> tuple[Any, ...]:
        return inputs if self.dtype is None else (jnp.zeros((), self.dtype),)


class HyperLinear(_Responsive):
    """A linear layer whose weights respond to hyper-parameters: a structured best response.

    `s (W x + b) + a(h) * (V x) + c(h) * d` with `[a, c] = U h`, each output a gate of its own:
    twice the parameters of a linear layer, and `2 hyper_features` more an output. For linear
    networks with a penalty on their Jacobian the exact best response has this form.

    Args:
      in_features: width of the inputs.
      out_features: width of the outputs.
      hyper_features: number of hyper-parameters.
      use_bias: whether there are b and d.
      dtype: dtype of the computation; None for that of inputs and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters: W, V, b, d uniform within 1 / sqrt(in_features), U normal with
        standard deviation 0.01, s one.

    Called with x [..., in_features] and hyper [..., hyper_features], unconstrained hyper-parameters
    of each example (see `papyrax.optim.self_tuning`), it returns [..., out_features].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Self-Tuning Networks, arXiv 1903.03088, section 3;
    asteroidhouse/self-tuning-networks cnn/hypermodels/hyperlinear.py, which alone has the factor s,
    and whose values and gradients are those here.

    >>> layer = HyperLinear(3, 2, hyper_features=1, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 3)), jnp.zeros((4, 1))).shape
    (4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hyper_features: int,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(
            in_features=in_features, out_features=out_features, hyper_features=hyper_features
        )
        shape = (in_features, out_features)
        super().__init__(shape, hyper_features, use_bias, dtype, param_dtype, rngs)

    def __call__(
        self, x: Float[Array, "... in_features"], hyper: Float[Array, "... hyper_features"]
    ) -> Float[Array, "... out_features"]:
        """Outputs for inputs [..., in_features] and hyper-parameters [..., hyper_features]."""
        kernel = self.kernel[...]
        self._check(x, hyper, 1, kernel.shape[0])
        wide, kernel = upcast(x, kernel)
        bias = None if self.bias is None else upcast(self.bias[...])
        out = self._respond(wide @ kernel, hyper, bias, 0)
        return restore(out, *self._like(x, self.kernel[...]))


class HyperConv(_Responsive):
    """A two-dimensional convolution whose kernels respond to hyper-parameters.

    `s (W * x + b) + a(h) (V * x) + c(h) d` with `[a, c] = U h`: `HyperLinear` with a gate for every
    output channel and example.

    Args:
      in_features: channels of the inputs.
      out_features: channels of the outputs.
      hyper_features: number of hyper-parameters.
      kernel_size: height and width of the kernels.
      strides: steps along height and width.
      padding: "SAME", "VALID" or pairs of numbers.
      use_bias: whether there are b and d.
      dtype: dtype of the computation; None for that of inputs and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters, drawn as those of `HyperLinear`.

    Called with x [batch, height, width, in_features] and hyper [batch, hyper_features], it returns
    [batch, height', width', out_features].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Self-Tuning Networks, arXiv 1903.03088, section 3;
    asteroidhouse/self-tuning-networks cnn/hypermodels/hyperconv2d.py, whose values and gradients
    are those here.

    >>> layer = HyperConv(1, 5, hyper_features=2, kernel_size=(3, 3), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 8, 8, 1)), jnp.zeros((4, 2))).shape
    (4, 8, 8, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hyper_features: int,
        *,
        kernel_size: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        padding: str | Sequence[tuple[int, int]] = "SAME",
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(
            in_features=in_features, out_features=out_features, hyper_features=hyper_features
        )
        check_count(**{f"kernel_size[{i}]": size for i, size in enumerate(kernel_size)})
        shape = (*kernel_size, in_features, out_features)
        super().__init__(shape, hyper_features, use_bias, dtype, param_dtype, rngs)
        self.strides = tuple(strides)
        self.padding = padding if isinstance(padding, str) else tuple((a, b) for a, b in padding)

    def __call__(
        self,
        x: Float[Array, "batch height width in_features"],
        hyper: Float[Array, "batch hyper_features"],
    ) -> Float[Array, "batch height2 width2 out_features"]:
        """Outputs for images [batch, height, width, in_features]."""
        kernel = self.kernel[...]
        self._check(x, hyper, 4, kernel.shape[2])
        wide, kernel = upcast(x, kernel)
        product = jax.lax.conv_general_dilated(
            wide,
            kernel,
            self.strides,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        bias = None if self.bias is None else upcast(self.bias[...])
        out = self._respond(product, hyper, bias, 2)
        return restore(out, *self._like(x, self.kernel[...]))
