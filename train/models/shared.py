"""What several models share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from papyrax.numerics import check


def dropout(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """`x` with a share `rate` of its entries dropped and the others scaled up for it."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def split_keys(key: Key[Array, ""] | None, number: int) -> Sequence[Key[Array, ""] | None]:
    """`number` keys, or as many times None."""
    return [None] * number if key is None else list(jax.random.split(key, number))


def check_image(shape: tuple[int, ...]) -> None:
    """Raise unless `shape` is that of one image."""
    check(len(shape) == 3, "shape", f"got {shape}, takes [height, width, channels]")
