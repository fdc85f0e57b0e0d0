"""A linear layer and what large-vocabulary losses take from it: sums over its classes, in chunks.

The logits `z = x W + b` of n examples and v classes never exist at once. The sums, their gradients
and products of their Hessians with a vector, in forward and in reverse mode, hold no more than a
few [n, chunk] arrays beside their inputs and results. Logits are computed again where a derivative
needs them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..kernels.linear_sums import Config, check_implementation, log_sums, sums
from ..numerics import (
    accumulation_dtype,
    check,
    check_count,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    restore,
)

AxisName = str | tuple[str, ...] | None


class Layer(NamedTuple):
    """A linear layer, its inputs and its labels, with one axis of examples.

    Attributes:
      x: inputs [n, d].
      kernel: weights [d, v]; this device's classes.
      bias: one number a class [v], or None.
      labels: the right classes [n], counted from this device's first class.
      config: how the classes are walked.
      axis_name: the mesh axes over which the classes are split.
      shape: the shape of the labels as they were given.
      dtype: the dtype of the losses.
    """

    x: Float[Array, "n d"]
    kernel: Float[Array, "d v"]
    bias: Float[Array, "v"] | None
    labels: Int[Array, "n"]
    config: Config
    axis_name: AxisName
    shape: tuple[int, ...]
    dtype: Any

    @property
    def classes(self) -> int:
        """How many classes there are on all devices."""
        local = self.kernel.shape[1]
        return local if self.axis_name is None else local * jax.lax.axis_size(self.axis_name)

    @property
    def wide(self) -> Any:
        """The dtype of sums."""
        return accumulation_dtype(*(a for a in (self.x, self.kernel, self.bias) if a is not None))

    def losses(self, values: Float[Array, "n"]) -> Float[Array, "..."]:
        """Values of the examples [n] in the labels' shape and the inputs' dtype."""
        return restore(jnp.reshape(values, self.shape), jnp.zeros((), self.dtype))

    def all_sum(self, values: Any) -> Any:
        """Sums over the devices that share the classes."""
        return values if self.axis_name is None else jax.lax.psum(values, self.axis_name)

    def scaled(self, scale: Float[Array, "1"] | Float[Array, "n 1"]) -> "Layer":
        """The layer whose logits are those of this one times a number, or one an example."""
        x, kernel = self.x.astype(self.wide), self.kernel
        if scale.ndim == 1:
            bias = None if self.bias is None else self.bias * scale.astype(self.bias.dtype)
            return self._replace(x=(x * scale).astype(self.x.dtype), bias=bias)
        if self.bias is not None:  # it becomes the weights of an input that is one
            x = jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1)
            bias = self.bias.astype(jnp.result_type(kernel, self.bias))
            kernel = jnp.concatenate([kernel, bias[None]], 0)
        return self._replace(x=(x * scale).astype(self.x.dtype), kernel=kernel, bias=None)


def linear_layer(
    hidden: Any,
    kernel: Any,
    labels: Any,
    *,
    bias: Any,
    chunk_size: int,
    axis_name: AxisName,
    implementation: str | None,
    tiles: tuple[int, int, int] | None,
) -> Layer:
    """The arguments of a loss over a linear layer, checked."""
    check_floating(hidden=hidden, kernel=kernel)
    check_rank("hidden", hidden, 1, at_least=True)
    check_shape("kernel", kernel, (np.shape(hidden)[-1], None), "[features, classes]")
    check(np.shape(kernel)[1] > 0, "kernel", "got no classes, takes one or more")
    check_integer(labels=labels)
    check_shape("labels", labels, np.shape(hidden)[:-1], "[...], one a row of hidden")
    if bias is not None:
        check_floating(bias=bias)
        check_shape("bias", bias, (np.shape(kernel)[1],), "[classes], as kernel")
    check_count(chunk_size=chunk_size)
    local = np.shape(kernel)[1]
    y = jnp.reshape(jnp.asarray(labels), (-1,))
    if axis_name is not None:
        y = y - jax.lax.axis_index(axis_name) * local
    x, w = jnp.reshape(hidden, (-1, np.shape(hidden)[-1])), jnp.asarray(kernel)
    b = None if bias is None else jnp.asarray(bias)
    sizes: Any = None if tiles is None else tuple(tiles)
    config = Config(min(chunk_size, local), implementation, sizes)
    check_implementation(config, x, w, b)
    return Layer(
        x,
        w,
        b,
        y,
        config,
        axis_name,
        np.shape(labels),
        jnp.result_type(*(a for a in (hidden, kernel, bias) if a is not None)),
    )


def log_sum_and_label(
    layer: Layer, *, others: bool = False
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
    """`log sum_k exp(z_k)`, the label's logit and `sum_k z_k`; with `others` the first without it.

    A label outside of the vocabulary has logit zero. The sum over no other class counts for
    nothing: its logarithm is half the lowest number of the dtype.
    """
    at = (layer.x, layer.kernel, layer.bias)
    kind = "others" if others else "softmax"
    log_z, label, total = log_sums(at, aux=layer.labels, config=layer.config, kind=kind)
    if layer.axis_name is not None:
        top = jax.lax.pmax(jax.lax.stop_gradient(log_z), layer.axis_name)
        log_z = top + jnp.log(layer.all_sum(jnp.exp(log_z - top)))
        label, total = layer.all_sum((label, total))
    return log_z, label, total


def moments(layer: Layer) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
    """Mean and variance of the logits over the classes, and the label's logit."""
    held = jax.lax.stop_gradient((layer.x, layer.kernel, layer.bias))
    wide = layer.wide
    # Around a centre that is nearly the mean nothing cancels. The results do not depend on it.
    weights = layer.all_sum(jnp.sum(held[1], -1, dtype=wide)) / layer.classes
    centre = jnp.matmul(held[0].astype(wide), weights, precision="highest")
    if held[2] is not None:
        centre += layer.all_sum(jnp.sum(held[2], dtype=wide)) / layer.classes
    at = (layer.x, layer.kernel, layer.bias, centre)
    parts = sums(at, aux=layer.labels, config=layer.config, kind="squares")
    squares, label, total = layer.all_sum(parts)
    off = total / layer.classes
    variance = squares / layer.classes - jnp.square(off)
    # What rounding leaves of equal logits is not a deviation.
    noise = jnp.square(8 * jnp.finfo(wide).eps * centre)
    return centre + off, jnp.where(variance <= noise, 0, variance), centre + label


def mean_magnitude(layer: Layer) -> Float[Array, "n"]:
    """The mean of `|z_k|` over the classes."""
    at = (layer.x, layer.kernel, layer.bias, jnp.zeros(layer.x.shape[0], layer.wide))
    parts = sums(at, aux=layer.labels, config=layer.config, kind="magnitudes")
    return layer.all_sum(parts[0]) / layer.classes
