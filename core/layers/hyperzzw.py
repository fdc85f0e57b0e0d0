"""Modules of HyperZZW: the slow network, kernels from coordinates, and the recursive gated unit."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import instance_standardize
from ..numerics import check, check_count, check_floating, check_positive, check_shape, upcast


# Uniform with variance 1 / inputs for gain 1.
def _uniform(gain: float) -> Any:
    return jax.nn.initializers.variance_scaling(gain, "fan_in", "uniform")


class MAGNet(nnx.Module):
    """A multiplicative network of sines of coordinates, which makes hyper-kernels.

        h_0 = sin(F_0 c),   h_i = sin(F_i c) * (A_i h_{i-1}) + P,   kernel = A_out h

    for every position c of a grid in [-1, 1]; F and A are affine, with the biases of A_i at 1. P is
    one number a position, for all channels, zero at the start. The matrices of F_i are scaled by
    2 pi omega_0 times samples of Gamma(6 / (i + 1), 1): later sines are slower. The parameters
    number as many whatever the size of the kernel, but for P.

    Args:
      size: height and width of the kernel (any number of axes).
      channels: channels of the kernel.
      hidden: width of the network.
      layers: number of the A_i.
      omega_0: the frequency.
      dtype: dtype of the kernel; None for that of the coordinates or parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with nothing it returns the kernel [*size, channels]; called with coordinates
    [..., axes], and without P, the kernel there [..., channels].

    Raises:
      ValueError: for sizes that do not fit, or coordinates of another shape or dtype.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948, MAGNet; compared with hyperevolnet/Terminator `models/modules/magnet.py`
    (`MAGNet_G`) and `slow_net.py` (scale of A_out): the same function, of square
    kernels.

    >>> net = MAGNet((5, 5), 3, hidden=8, rngs=nnx.Rngs(0))
    >>> net().shape
    (5, 5, 3)
    """

    def __init__(
        self,
        size: tuple[int, ...],
        channels: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        omega_0: float = 1.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(
            len(size) > 0 and all(n > 0 for n in size), "size", f"got {size}, takes numbers above 0"
        )
        for name, number in (("channels", channels), ("hidden", hidden), ("layers", layers)):
            check(number > 0, name, f"got {number}, takes a number above 0")
        check_positive(omega_0=omega_0)
        self.size = tuple(size)
        self.dtype = dtype
        axes = len(size)
        kinds = {"param_dtype": param_dtype, "rngs": rngs}

        def sine(index: int) -> nnx.Linear:
            layer = nnx.Linear(axes, hidden, kernel_init=_uniform(1 / 3), **kinds)
            gamma = jax.random.gamma(rngs.params(), 6.0 / (index + 1), (axes, hidden), param_dtype)
            layer.kernel[...] = layer.kernel[...] * (2 * math.pi * omega_0 * gamma)
            return layer

        self.sines = nnx.List([sine(i) for i in range(layers + 1)])
        ones = jax.nn.initializers.ones
        self.linears = nnx.List(
            [
                nnx.Linear(hidden, hidden, kernel_init=_uniform(1.0), bias_init=ones, **kinds)
                for _ in range(layers)
            ]
        )
        self.out = nnx.Linear(
            hidden, channels, kernel_init=_uniform(1.0 / math.prod(size)), **kinds
        )
        self.position = nnx.Param(jnp.zeros((*size, 1), param_dtype))

    def __call__(self, coordinates: Float[Array, "*B axes"] | None = None) -> Float[Array, "*B C"]:
        """The kernel on the grid, or at other coordinates."""
        shift: Any = 0
        if coordinates is None:
            lines = [np.linspace(-1, 1, n) for n in self.size]
            grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
            coordinates = jnp.asarray(grid, self.position[...].dtype)
            shift = upcast(self.position[...])
        check_floating(coordinates=coordinates)
        shape, axes = np.shape(coordinates), len(self.size)
        check(
            len(shape) > 0 and shape[-1] == axes,
            "coordinates",
            f"got shape {shape}, takes [..., {axes}]",
        )
        c = upcast(coordinates)  # sines of large arguments need their digits
        h = jnp.sin(self.sines[0](c))
        for sine, linear in zip(list(self.sines)[1:], self.linears):
            h = jnp.sin(sine(c)) * linear(h) + shift
        return self.out(h).astype(self.dtype or coordinates.dtype)


class RecursiveGatedUnit(nnx.Module):
    """A gated linear unit whose gate is a second projection of what it gates with.

        k = W_k x,   v = W_v x,   q = GELU(IS(k * (W_q v))) + P,   y = W_y q

    IS is `papyrax.attention.instance_standardize`; the W are affine maps of the channels of each
    position, and P is one number a position, for all channels. The global branch of the network
    lets `hyper_zzw_global` act on the sum of two such units, standardized once more: one of x, one
    of x times the hyper-kernel.

    Args:
      size: height and width of the images.
      channels: in and out.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters: the matrices uniform with variance 1 / channels, all else zero.

    Called with x [batch, height, width, channels], it returns [batch, height, width, channels].

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948, the recursive gated unit, as it stands in hyperevolnet/Terminator
    `models/modules/rgu.py` (`RGU`), of square images: values and gradients agree.

    >>> unit = RecursiveGatedUnit((5, 4), 3, rngs=nnx.Rngs(0))
    >>> unit(jnp.ones((2, 5, 4, 3))).shape
    (2, 5, 4, 3)
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(len(size) == 2 and all(n > 0 for n in size), "size", f"got {size}, takes two above 0")
        check_count(channels=channels)
        self.size, self.channels = tuple(size), channels
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}

        def project() -> nnx.Linear:
            return nnx.Linear(channels, channels, kernel_init=_uniform(1.0), **kinds)

        self.key, self.value, self.query, self.out = (project() for _ in range(4))
        self.position = nnx.Param(jnp.zeros((*size, 1), param_dtype))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """The unit of images [batch, height, width, channels]."""
        check_floating(x=x)
        shape = (None, *self.size, self.channels)
        check_shape("x", x, shape, "[batch, height, width, channels]")
        gated = self.key(x) * self.query(self.value(x))
        q = jax.nn.gelu(instance_standardize(gated), approximate=False)
        return self.out(q + self.position[...].astype(q.dtype))
