"""Softmax with a multiplied angle: SphereFace and the large-margin softmax before it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check_count, check_positive, check_range, restore, safe_norm
from ._shared import is_label
from .proxies import ClassLabels, Embeddings, PerExample, Proxies, cosines, cross_entropy, wide


def _multiplied(cosine: Float[Array, "..."], margin: int) -> Float[Array, "..."]:
    """`(-1)^k cos(m theta) - 2 k` for `theta` in `[k pi / m, (k + 1) pi / m]`: it keeps falling."""
    before, now = jnp.ones_like(cosine), cosine
    for _ in range(margin - 1):
        before, now = now, 2 * cosine * now - before
    limits = [math.cos(j * math.pi / margin) for j in range(1, margin)]
    k = jnp.sum(jax.lax.stop_gradient(cosine)[..., None] <= jnp.array(limits, cosine.dtype), -1)
    return jnp.where(k % 2 == 0, now, -now) - 2 * k


def sphereface_loss(
    embeddings: Embeddings,
    labels: ClassLabels,
    proxies: Proxies,
    *,
    margin: int = 4,
    scale: float = 1.0,
    annealing: float | Float[Array, ""] = 0.0,
    normalize_proxies: bool = True,
) -> PerExample:
    """SphereFace: several times the angle to the right proxy smaller than that to any other.

    `-log softmax_y` of `scale |x| f(theta_y)` at the label and `scale |x| cos(theta_c)` elsewhere,
    `f = (l cos(theta) + psi(theta)) / (l + 1)` with `psi(theta) = (-1)^k cos(m theta) - 2 k` for
    `theta` from `k pi / m` to `(k + 1) pi / m`.

    Args:
      embeddings: the examples, whose lengths count [batch, features].
      labels: the class of each [batch].
      proxies: one vector a class [classes, features].
      margin: `m`, by what the angle is multiplied; a positive integer.
      scale: of the logits.
      annealing: `l`; training starts with a large one (1,000) and ends with a small one (5) [].
      normalize_proxies: False multiplies the logits of a class by the length of its proxy: the
        large-margin softmax.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: SphereFace: Deep Hypersphere Embedding for Face Recognition, arXiv 1704.08063, Eq. 7;
    Large-Margin Softmax Loss for Convolutional Neural Networks, arXiv 1612.02295, Eq. 4 to 7.
    `SphereFaceLoss` and `LargeMarginSoftmaxLoss` of KevinMusgrave/pytorch-metric-learning agree.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> np.asarray(sphereface_loss(x, jnp.array([0, 1]), jnp.eye(2)), float).round(3)
    array([0.313, 1.655])
    """
    check_count(margin=margin)
    check_positive(scale=scale)
    check_range("annealing", annealing, 0)
    x, labels, p = wide(embeddings, labels, proxies)
    cosine = cosines(x, p)
    labels = jnp.asarray(labels)
    at_label = is_label(labels, len(p))
    own = jnp.sum(jnp.where(at_label, cosine, 0), -1, keepdims=True)
    harder = (annealing * own + _multiplied(own, margin)) / (annealing + 1)
    logits = scale * safe_norm(x, keepdims=True) * jnp.where(at_label, harder, cosine)
    if not normalize_proxies:
        logits = logits * safe_norm(p)
    return restore(cross_entropy(logits, labels), embeddings, proxies)
