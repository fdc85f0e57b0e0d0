"""Attention without softmax: a kernel made of coordinates, times the input, acts on it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_broadcastable,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    upcast,
)


def _check_image(name: str, x: Array) -> None:
    check_floating(**{name: x})
    check_rank(name, x, 4)


def instance_standardize(
    x: Float[Array, "B H W C"], *, epsilon: float = 1e-5
) -> Float[Array, "B H W C"]:
    """Each channel of each image to mean zero and variance one.

        (x - mean_hw x) / sqrt(var_hw x + epsilon)

    Args:
      x: images [batch, height, width, channels].
      epsilon: added to the variance.

    Returns:
      Array of the same shape [batch, height, width, channels].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948, instance standardization; as in hyperevolnet/Terminator
    `models/modules/fast_multi_branch.py` (an instance norm without parameters).

    >>> instance_standardize(jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)).ravel().round(2).tolist()
    [-1.0, 1.0]
    """
    _check_image("x", x)
    check_positive(epsilon=epsilon)
    wide = upcast(x)
    return restore(jax.nn.standardize(wide, axis=(1, 2), epsilon=epsilon), x)


def hyper_zzw_global(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "#B H W #C"],
    features: Float[Array, "B W V C"],
) -> Float[Array, "B H V C"]:
    """The global HyperZZW operator: a matrix product for each channel.

        out_c = (x_c * kernel_c) features_c

    The hyper-kernel is as large as the image and comes from a network of coordinates, so it is no
    parameter; multiplied by x it depends on the context. Each output row sums over the columns of
    one row of the product, with rows of the features.

    Args:
      x: Z [batch, height, width, channels].
      kernel: W [1 or batch, height, width, 1 or channels].
      features: what the product acts on [batch, width, any width, channels]: `instance_standardize`
        of a channel mix of x in the paper, where images are square.

    Returns:
      [batch, height, any width, channels].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948; values and gradients agree with hyperevolnet/Terminator
    `models/modules/hyperzzw.py` (`HyperZZW_G`) and `fast_multi_branch.py`, which keep channels
    first.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> features = jnp.eye(2)[None, ..., None]
    >>> hyper_zzw_global(x, 2 * jnp.ones((1, 2, 2, 1)), features).ravel().tolist()
    [0.0, 2.0, 4.0, 6.0]
    """
    for name, array in (("x", x), ("kernel", kernel), ("features", features)):
        _check_image(name, array)
    batch, _, width, channels = np.shape(x)
    check_broadcastable("kernel", kernel, np.shape(x), "[1 or batch, height, width, channels]")
    check_shape(
        "features", features, (batch, width, None, channels), "[batch, width, any, channels], as x"
    )
    z, w, f = upcast(x, kernel, features)
    return restore(jnp.einsum("bhwc,bwvc->bhvc", z * w, f), x, kernel, features)


def hyper_zzw_local(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k l C"]
) -> Float[Array, "B H W C"]:
    """The local HyperZZW operator: a convolution of each channel with its hyper-kernel.

        out_{b,h,w,c} = sum_{i,j} kernel_{i,j,c} x_{b, h + i - k // 2, w + j - l // 2, c}

    zero outside the image. In the paper the kernel depends on the context: a network of coordinates
    makes it, with hidden layers multiplied by pooled x.

    Args:
      x: [batch, height, width, channels].
      kernel: [height, width, channels], of odd height and width.

    Returns:
      [batch, height, width, channels].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948; values and gradients agree with hyperevolnet/Terminator
    `models/modules/local_conv.py`, which follows it by a channel mix, batch standardization and
    GELU.

    >>> x = jnp.ones((1, 3, 3, 1))
    >>> hyper_zzw_local(x, jnp.ones((3, 3, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    _check_image("x", x)
    check_floating(kernel=kernel)
    channels = np.shape(x)[3]
    check_shape("kernel", kernel, (None, None, channels), "[height, width, channels], as x")
    shape = np.shape(kernel)[:2]
    check(all(n % 2 == 1 for n in shape), "kernel", f"got {shape} taps, takes odd numbers")
    z, w = upcast(x, kernel)
    out = jax.lax.conv_general_dilated(
        z,
        w[:, :, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
    return restore(out, x, kernel)


def hyper_zzw_elementwise(x: Float[Array, "*B"], kernel: Float[Array, "*#B"]) -> Float[Array, "*B"]:
    """The HyperZZW operator of two elementwise products.

        (x * kernel) * x

    Its sigmoid gates channels (x their means) and positions (x the mean over channels).

    Args:
      x: [...].
      kernel: an array that broadcasts to it [...].

    Returns:
      [...], as x.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948; as in hyperevolnet/Terminator `models/modules/hyperzzw.py` (`HyperZZW_2E`).

    >>> hyper_zzw_elementwise(jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])).tolist()
    [3.0, 2.0]
    """
    check_floating(x=x)
    check_floating(kernel=kernel)
    check_broadcastable("kernel", kernel, np.shape(x), "as x")
    z, w = upcast(x, kernel)
    return restore(z * w * z, x, kernel)
