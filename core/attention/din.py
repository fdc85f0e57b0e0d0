"""Attention of a candidate over a user's history, by a small network and without softmax."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)

Layer = tuple[Array, Array]
"""A matrix [inputs, outputs] and a bias [outputs]."""


def din_attention(
    query: Float[Array, "B E"],
    keys: Float[Array, "B T E"],
    layers: Sequence[Layer],
    mask: Bool[Array, "#B T"] | None = None,
    *,
    normalize: bool = False,
    activation: Callable[[Array], Array] = jax.nn.sigmoid,
) -> Float[Array, "B E"]:
    """Interest of a user in a candidate: the history pooled by a local activation unit.

        a_t = MLP([q, k_t, q - k_t, q * k_t]),   out = sum_t a_t k_t

    The weights are not divided by their sum, which keeps how strong the interest is. With
    `normalize` they are softmax_t(a_t / sqrt(E)).

    Args:
      query: q, the candidate [batch, embedding].
      keys: k, the history [batch, length, embedding].
      layers: of the perceptron, (matrix, bias) each: [4 embedding, hidden], [hidden]; ...;
        [hidden, 1], [1]. The paper has 80 and 40 hidden units.
      mask: False for an item that does not exist [batch or 1, length].
      normalize: softmax over the history, as the authors' code has it.
      activation: between the layers.

    Returns:
      [batch, embedding]; zero where the history is empty.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, the local
    activation unit; compared with zhougr1993/DeepInterestNetwork `din/model.py` (`attention`),
    which always normalizes and returns the mean of all keys for an empty history. The paper draws
    an outer product of the two embeddings where its code has difference and product, as here.

    >>> layers = [(jnp.ones((8, 1)), jnp.zeros(1))]
    >>> q, k = jnp.array([[1.0, 0.0]]), jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> din_attention(q, k, layers).tolist()
    [[3.0, 2.0]]
    """
    check_floating(query=query)
    check_floating(keys=keys)
    check_rank("query", query, 2)
    batch, size = np.shape(query)
    check_shape("keys", keys, (batch, None, size), "[batch, length, embedding], as query")
    length = np.shape(keys)[1]
    check(len(layers) > 0, "layers", "got none, takes one or more")
    width: int | None = 4 * size
    for i, (matrix, bias) in enumerate(layers):
        outputs = 1 if i == len(layers) - 1 else None
        check_floating(layers=matrix)
        check_floating(layers=bias)
        check_shape("layers", matrix, (width, outputs), f"[inputs, outputs], matrix {i}")
        width = np.shape(matrix)[1]
        check_shape("layers", bias, (width,), f"[outputs], bias {i}")
    if mask is not None:
        check_boolean(mask=mask)
        check_broadcastable("mask", mask, (batch, length), "[batch, length]")
    q, k, *flat = upcast(query, keys, *(x for layer in layers for x in layer))
    wide = jnp.broadcast_to(q[:, None], k.shape)
    h = jnp.concatenate([wide, k, wide - k, wide * k], axis=-1)
    for i in range(len(layers)):
        h = h @ flat[2 * i] + flat[2 * i + 1]
        if i < len(layers) - 1:
            h = activation(h)
    weights = h[..., 0]
    shown: Any = True if mask is None else jnp.asarray(mask)
    if normalize:
        logits = jnp.where(shown, weights / np.sqrt(size), -jnp.inf)
        top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=-1e30))
        shares = jnp.where(shown, jnp.exp(jnp.where(shown, logits - top, 0)), 0)
        weights = safe_divide(shares, jnp.sum(shares, axis=-1, keepdims=True))
    else:
        weights = jnp.where(shown, weights, 0)
    return restore(jnp.einsum("bt,bte->be", weights, k), query, keys)


def dice(
    x: Float[Array, "*B C"],
    alpha: Float[Array, "C"],
    mean: Float[Array, "C"] | None = None,
    variance: Float[Array, "C"] | None = None,
    *,
    epsilon: float = 1e-8,
) -> Float[Array, "*B C"]:
    """Data-adaptive activation: a leaky unit that switches smoothly at the mean of its input.

        p = sigmoid((x - E x) / sqrt(Var x + epsilon)),   out = p x + (1 - p) alpha x

    Args:
      x: [..., channels].
      alpha: slope on the far side of the mean [channels]; learned, from zero.
      mean: E x [channels]; of all axes but the last of x for None, as in training.
      variance: Var x [channels]; None with `mean` None.
      epsilon: added to the variance.

    Returns:
      [..., channels].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, equation 3
    and section 5.3; compared with zhougr1993/DeepInterestNetwork `din/Dice.py`, which multiplies
    the standardized input by one more learned vector, from zero, and uses moving statistics.

    >>> dice(jnp.array([[-1.0], [1.0]]), jnp.ones(1)).ravel().tolist()
    [-1.0, 1.0]
    """
    check_floating(x=x)
    check_rank("x", x, 1, at_least=True)
    check_positive(epsilon=epsilon)
    channels = np.shape(x)[-1]
    arrays = {"alpha": alpha}
    check((mean is None) == (variance is None), "variance", "takes None exactly where mean is None")
    if mean is not None:
        arrays |= {"mean": mean, "variance": variance}  # type: ignore[dict-item]
    for name, array in arrays.items():
        check_floating(**{name: array})
        check_shape(name, array, (channels,), "[channels], as x")
    z, slope, *moments = upcast(x, *arrays.values())
    if moments:
        center, spread = moments
    else:
        axes = tuple(range(z.ndim - 1))
        center, spread = jnp.mean(z, axes), jnp.var(z, axes)
    p = jax.nn.sigmoid((z - center) * jax.lax.rsqrt(spread + epsilon))
    return restore(p * z + (1 - p) * slope * z, x, *arrays.values())
