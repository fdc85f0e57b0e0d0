"""Exponential families whose natural parameters a model puts out: what a Fisher matrix needs.

p(y | f) = h(y) exp(<f, y> - A(f)),   score dA/df - y,   Fisher matrix of the outputs d2A/df2
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import check, check_broadcastable, check_rank, upcast

Likelihood = Literal["categorical", "bernoulli", "gaussian"]


class Family(NamedTuple):
    """`log_partition(f) [...]` and `sample(key, f) [..., outputs]` for outputs f [..., outputs]."""

    log_partition: Callable[[jax.Array], jax.Array]
    sample: Callable[[jax.Array, jax.Array], jax.Array]


def _uniform(key: jax.Array, like: jax.Array) -> jax.Array:
    """Drawn in float32 for every dtype, so that a key means the same labels for all of them."""
    return jax.random.uniform(key, like.shape, jnp.float32).astype(like.dtype)


def _categorical(key: jax.Array, f: jax.Array) -> jax.Array:
    # One uniform number a row, inverted through the cumulative distribution: the usual trick of a
    # Gumbel variable per class would draw as many random words as there are logits.
    cumulative = jnp.cumsum(jax.nn.softmax(f, axis=-1), axis=-1)
    u = 1 - _uniform(key, f[..., 0])  # in (0, 1]: never an impossible class
    labels = jnp.sum(cumulative < u[..., None] * cumulative[..., -1:], axis=-1)
    return jax.nn.one_hot(labels, f.shape[-1], dtype=f.dtype)


def _bernoulli(key: jax.Array, f: jax.Array) -> jax.Array:
    return (_uniform(key, f) < jax.nn.sigmoid(f)).astype(f.dtype)


def _gaussian(key: jax.Array, f: jax.Array) -> jax.Array:
    return f + jax.random.normal(key, f.shape, jnp.float32).astype(f.dtype)


FAMILIES: dict[str, Family] = {
    "categorical": Family(lambda f: jax.nn.logsumexp(f, axis=-1), _categorical),
    "bernoulli": Family(lambda f: jnp.sum(jax.nn.softplus(f), axis=-1), _bernoulli),
    "gaussian": Family(lambda f: 0.5 * jnp.sum(jnp.square(f), axis=-1), _gaussian),
}


def check_likelihood(likelihood: str) -> None:
    """Raise unless there is a family of this name."""
    check(likelihood in FAMILIES, "likelihood", f"got {likelihood!r}, takes {', '.join(FAMILIES)}")


def row_weights(outputs: Any, mask: Any) -> jax.Array:
    """Ones for the rows that count and zeros for the others, [...] for outputs [..., outputs]."""
    check(
        hasattr(outputs, "dtype") and jnp.issubdtype(outputs.dtype, jnp.floating),
        "fun",
        f"got outputs {jax.tree.structure(outputs)}, takes one floating-point array [..., outputs]",
    )
    check_rank("fun", outputs, 1, at_least=True)
    rows, dtype = outputs.shape[:-1], upcast(outputs).dtype
    if mask is None:
        return jnp.ones(rows, dtype)
    check_broadcastable("where", mask, rows, "as the rows of the outputs")
    return jnp.broadcast_to(jnp.asarray(mask, dtype), rows)


def mean_log_partition(likelihood: str, outputs: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean of A(f) over the rows that count; its Hessian is the outputs' Fisher matrix."""
    values = FAMILIES[likelihood].log_partition(upcast(outputs))
    return jnp.sum(jnp.where(weights > 0, values, 0)) / jnp.maximum(jnp.sum(weights), 1)


def sampled_score(
    likelihood: str, key: jax.Array, outputs: jax.Array, weights: jax.Array
) -> jax.Array:
    """The gradient for the outputs of the mean negative log-likelihood of labels y ~ p(y | f)."""
    f = upcast(outputs)
    family = FAMILIES[likelihood]
    score = jax.grad(lambda f: jnp.sum(family.log_partition(f)))(f) - family.sample(key, f)
    count = jnp.maximum(jnp.sum(weights), 1)
    return (jnp.where(weights[..., None] > 0, score, 0) / count).astype(outputs.dtype)
