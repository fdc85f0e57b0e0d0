"""The sums of linear attention as they are defined, with every product of a query with a key."""

import jax.numpy as jnp
import numpy as np

from .operands import Config, Inputs, Sums


def forward(x: Inputs, *, config: Config) -> Sums:
    """q_i . (initial + sum_j k_j v_j^T), and the sum over all keys."""
    scores = jnp.einsum("bkptf,bkrsf->bkptrs", x.query, x.key, precision=config.precision)
    if config.direction != "all":
        seen = np.tri(x.query.shape[3], x.key.shape[3], dtype=bool)
        seen = seen if config.direction == "past" else seen.T
        scores = jnp.where(seen[:, None], scores, 0)
    out = jnp.einsum("bkptrs,bkrse->bkpte", scores, x.value, precision=config.precision)
    before = jnp.einsum("bkptf,bkfe->bkpte", x.query, x.initial, precision=config.precision)
    added = jnp.einsum("bkrsf,bkrse->bkfe", x.key, x.value, precision=config.precision)
    return Sums(out + before, x.initial + added)
