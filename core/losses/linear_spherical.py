"""The spherical family over a linear layer and a large vocabulary, in memory without logits."""

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from ..numerics import check
from ._linear import linear_layer, moments
from .spherical import z_loss_of_moments

# A member of the family: from mean, variance and the label's logit [...] and the number of classes.
SphericalLoss = Callable[
    [Float[Array, "..."], Float[Array, "..."], Float[Array, "..."], int], Float[Array, "..."]
]


def linear_spherical_loss(
    hidden: Float[Array, "... features"],
    kernel: Float[Array, "features classes"],
    labels: Int[Array, "..."],
    *,
    loss: SphericalLoss = z_loss_of_moments,
    bias: Float[Array, "classes"] | None = None,
    chunk_size: int = 2048,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
    tiles: tuple[int, int, int] | None = None,
) -> Float[Array, "..."]:
    """A spherical loss of `hidden @ kernel + bias` without its matrix of logits.

    `loss(m, v, z_y, K)` with the mean `m` and the variance `v` of the `K` logits `z = x W + b`. The
    variance is summed around the mean, which `x` and the mean of the weights give beforehand. As in
    `linear_softmax_cross_entropy`, the classes are walked in chunks: the value, the gradient and
    products of the Hessian with a vector hold no more than a few [..., chunk_size] arrays beside
    their inputs and results. Where the layer is trained by plain SGD, `factored_spherical_step`
    does without the walk.

    For a vocabulary that is sharded over devices, call it inside `jax.shard_map` with `kernel` and
    `bias` split along the classes and name the mesh axis in `axis_name`.

    Args:
      hidden: inputs of the last layer [..., features].
      kernel: its weights [features, classes]; inside a `shard_map`, this device's classes.
      labels: the right class of each example [...], from 0 on, counted over all devices. A label
        outside of the vocabulary has the mean logit: leave such examples out.
      loss: the member of the family, a function of mean, variance, the label's logit [...] and the
        number of classes: `z_loss_of_moments`, `taylor_softmax_of_moments`,
        `spherical_softmax_of_moments` or `squared_error_of_moments`, with `functools.partial` for
        their hyper-parameters, or one of your own.
      bias: one number a class [classes], or None.
      chunk_size: classes at a time, of "xla" and of the derivatives of "pallas_triton".
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.
      implementation: "xla", "pallas_tpu", "pallas_triton" or an interpreter, as in
        `linear_softmax_cross_entropy`.
      tiles: (rows, classes, features) of the kernels' tiles.

    Returns:
      One loss an example [...]. Products take operands in the input's dtype (float16: in float32)
      and are summed in float32, or in float64 for that.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, a hyper-parameter out of range, or an
        implementation that cannot run.

    Source: The Z-loss: a shift and scale invariant classification loss belonging to the Spherical
    Family, arXiv 1604.08859, the spherical family; the chunks and the centring are this library's.

    >>> hidden, kernel = jnp.ones((2, 3)), jnp.zeros((3, 50_000)).at[:, 7].set(1.0)
    >>> loss = linear_spherical_loss(hidden, kernel, jnp.array([7, 8]), loss=z_loss_of_moments)
    >>> np.asarray(loss, float).round(3)
    array([0.   , 0.695])
    """
    check(callable(loss), "loss", f"got {loss!r}, takes a function of the moments")
    layer = linear_layer(
        *(hidden, kernel, labels),
        bias=bias,
        chunk_size=chunk_size,
        axis_name=axis_name,
        implementation=implementation,
        tiles=tiles,
    )
    return layer.losses(loss(*moments(layer), layer.classes))
