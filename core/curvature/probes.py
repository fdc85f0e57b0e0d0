"""Random probe vectors of the shape of a tree."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import check, check_key
from .trees import is_floating, varying_like

Distribution = Literal["rademacher", "normal"]
_WORD = 32


def _signs(key: jax.Array, leaf: jax.Array) -> jax.Array:
    """Independent signs, 32 of them unpacked from each random word along the longest axis."""
    shape = jnp.shape(leaf)
    axis = int(np.argmax(shape)) if shape else 0
    length = shape[axis] if shape else 1
    words = -(-length // _WORD)
    before, after = shape[:axis], shape[axis + 1 :]
    bits = jax.random.bits(key, (*before, words, 1, *after), jnp.uint32)
    place = jnp.arange(_WORD, dtype=jnp.uint32).reshape(_WORD, *(1 for _ in after))
    ones = ((bits >> place) & 1).reshape(*before, words * _WORD, *after)
    ones = jax.lax.slice_in_dim(ones, 0, length, axis=axis).reshape(shape)
    return 1 - 2 * ones.astype(jnp.result_type(leaf))


def _normal(key: jax.Array, leaf: jax.Array) -> jax.Array:
    # In float32 for every dtype, so that a key means the same probe for all of them.
    return jax.random.normal(key, jnp.shape(leaf), jnp.float32).astype(jnp.result_type(leaf))


def _like(sample: Callable[..., jax.Array], key: jax.Array, tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    probes = [
        varying_like(sample(k, x), x) if is_floating(x) else jnp.zeros_like(x)
        for k, x in zip(keys, leaves)
    ]
    return jax.tree.unflatten(treedef, probes)


def rademacher_like(key: jax.Array, tree: Any) -> Any:
    """Independent signs of the shapes and dtypes of a tree.

        P(z = 1) = P(z = -1) = 1/2,  E[z z'] = I

    Each 32-bit random word gives 32 signs, which makes the probe about ten times cheaper than
    `jax.random.rademacher`. The values depend on the key and the shapes alone, so that they are the
    same for every number of devices that a leaf is sharded over.

    Args:
      key: a random key, typed or raw.
      tree: arrays of any shape [...]; only shapes and dtypes matter.

    Returns:
      A tree of signs [...] in the dtype of each leaf; zeros for integer and boolean leaves.

    Raises:
      ValueError: if `key` is not one key.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    the probe of its Hutchinson estimator.

    >>> rademacher_like(jax.random.key(0), {"w": jnp.zeros(4)})["w"].tolist()
    [-1.0, 1.0, 1.0, 1.0]
    """
    check_key(key=key)
    return _like(_signs, key, tree)


def normal_like(key: jax.Array, tree: Any) -> Any:
    """Independent standard normal numbers of the shapes and dtypes of a tree.

        z ~ N(0, I)

    Args:
      key: a random key, typed or raw.
      tree: arrays of any shape [...]; only shapes and dtypes matter.

    Returns:
      A tree of numbers [...] in the dtype of each leaf; zeros for integer and boolean leaves.

    Raises:
      ValueError: if `key` is not one key.

    Source: Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
    arXiv 2305.14342, algorithm 1 (normal probes for Hutchinson's estimator).

    >>> normal_like(jax.random.key(0), [jnp.zeros((2, 3))])[0].shape
    (2, 3)
    """
    check_key(key=key)
    return _like(_normal, key, tree)


PROBES: dict[str, Callable[[jax.Array, Any], Any]] = {
    "rademacher": rademacher_like,
    "normal": normal_like,
}


def check_distribution(distribution: str) -> None:
    """Raise unless there are probes of this name."""
    check(
        distribution in PROBES, "distribution", f"got {distribution!r}, takes {' or '.join(PROBES)}"
    )
