"""The spherical family by its formulas on all logits, and of the moments of the logits."""

import functools

import jax
import jax.numpy as jnp

from papyrax.losses import (
    spherical_softmax_of_moments,
    squared_error_of_moments,
    taylor_softmax_of_moments,
    z_loss_of_moments,
)


def own(z, y):
    return jnp.take_along_axis(z, y[..., None], -1)[..., 0]


def quotient(square):
    def loss(z, y):
        q = square(z)
        return jnp.log(q.sum(-1)) - jnp.log(own(q, y))

    return loss


# The formulas on all logits.
DENSE = {
    "z": lambda z, y: jnp.logaddexp(0, 0.3 * (2 - (own(z, y) - z.mean(-1)) / z.std(-1))) / 0.3,
    "taylor": quotient(lambda z: 1 + z + z**2 / 2),
    "spherical": quotient(lambda z: z**2 + 0.5),
    "squared": lambda z, y: jnp.sum((z - jax.nn.one_hot(y, z.shape[-1])) ** 2, -1),
}
MOMENTS = {
    "z": functools.partial(z_loss_of_moments, sharpness=0.3, threshold=2.0),
    "taylor": taylor_softmax_of_moments,
    "spherical": functools.partial(spherical_softmax_of_moments, eps=0.5),
    "squared": squared_error_of_moments,
}
MEMBERS = sorted(DENSE)
