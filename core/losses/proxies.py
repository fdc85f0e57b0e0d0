"""Proxies: embeddings compared with one learned vector a class rather than with each other.

`proxies` [classes, features] are parameters, trained with the embeddings. Cosines throughout.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_floating,
    check_integer,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from ._shared import everyone, is_label, log_sum_exp, others_log_odds, softplus
from .similarity import pairwise_cosine, pairwise_squared_euclidean

Embeddings = Float[Array, "batch features"]
Proxies = Float[Array, "classes features"]
ClassLabels = Int[Array, "batch"]
PerExample = Float[Array, "batch"]


def check_proxies(embeddings: Any, labels: Any, proxies: Any, name: str = "proxies") -> None:
    """Raise unless the three fit together."""
    check_floating(**{"embeddings": embeddings, name: proxies})
    check_rank("embeddings", embeddings, 2)
    check(jnp.shape(embeddings)[0] > 0, "embeddings", "got no rows, takes one or more")
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(embeddings)[:1], "[batch], one an embedding")
    features = jnp.shape(embeddings)[1]
    check_shape(name, proxies, (None, features), "[classes, features], as embeddings")


def cosines(embeddings: Any, proxies: Any) -> Float[Array, "batch classes"]:
    """Cosines of every example with every proxy, in the accumulation dtype."""
    return pairwise_cosine(*upcast(embeddings, proxies))


def cross_entropy(logits: Array, labels: Array) -> PerExample:
    """`-log softmax_y`, precise where it is small."""
    return softplus(others_log_odds(logits, labels))


def normalized_softmax_loss(
    embeddings: Embeddings, labels: ClassLabels, proxies: Proxies, *, scale: float = 16.0
) -> PerExample:
    """Cross-entropy of scaled cosines with the proxies.

    `-log softmax_y(scale cos(x, p_c))`.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: one vector a class [classes, features].
      scale: the inverse temperature.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Classification is a Strong Baseline for Deep Metric Learning, arXiv 1811.12649, Eq. 2
    (temperature `1 / scale`; the authors' and KevinMusgrave/pytorch-metric-learning's default is
    0.05); scale 16 for Hyperspherical embedding for novel class classification, arXiv 2102.03243.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> loss = normalized_softmax_loss(x, jnp.array([0, 1]), jnp.eye(2), scale=2.0)
    >>> np.asarray(loss, float).round(3)
    array([0.127, 0.513])
    """
    check_proxies(embeddings, labels, proxies)
    check_positive(scale=scale)
    logits = scale * cosines(embeddings, proxies)
    return restore(cross_entropy(logits, jnp.asarray(labels)), embeddings, proxies)


def wide(embeddings: Any, labels: Any, proxies: Any) -> tuple[Any, Any, Any]:
    """The three checked, the embeddings and proxies in the accumulation dtype."""
    check_proxies(embeddings, labels, proxies)
    x, p = upcast(embeddings, proxies)
    return x, labels, p


def proxy_nca_loss(
    embeddings: Embeddings,
    labels: ClassLabels,
    proxies: Proxies,
    *,
    scale: float = 1.0,
    include_positive: bool = False,
) -> PerExample:
    """Proxy-NCA: closer to the proxy of the own class than to all the others.

    `-log(exp(-scale d(x, p_y)) / sum_{c != y} exp(-scale d(x, p_c)))` with squared distances `d` of
    unit vectors.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: one vector a class [classes, features].
      scale: the inverse temperature.
      include_positive: sum over all classes instead, as Proxy-NCA++ does.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: No Fuss Distance Metric Learning using Proxies, arXiv 1703.07464, Eq. 4;
    `include_positive=True` for ProxyNCA++, arXiv 2004.01113, and the code of `ProxyNCALoss` in
    KevinMusgrave/pytorch-metric-learning.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> np.asarray(proxy_nca_loss(x, jnp.array([0, 1]), jnp.eye(2)), float).round(3)
    array([-2. , -0.4])
    """
    check_proxies(embeddings, labels, proxies)
    check_positive(scale=scale)
    x, p = map(safe_normalize, upcast(embeddings, proxies))
    odds = others_log_odds(-scale * pairwise_squared_euclidean(x, p), jnp.asarray(labels))
    if include_positive:
        loss = softplus(odds)
    else:
        loss = jnp.where(odds != -jnp.inf, odds, 0)  # one class has no others
    return restore(loss, embeddings, proxies)


def p2s_grad_loss(embeddings: Embeddings, labels: ClassLabels, proxies: Proxies) -> PerExample:
    """P2SGrad: cosines with the proxies regressed on one and zero; no scale and no margin.

    `sum_c (cos(x, p_c) - 1[c = y])^2`. The gradient along a cosine is how far it is from its
    target, not the probability of a softmax, which would hang on the scale.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: one vector a class [classes, features].

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: P2SGrad: Refined Gradients for Optimizing Deep Face Models, arXiv 1905.02479, Eq. 11,
    whose directions are those of this loss up to a factor; `P2SGradLoss` of
    KevinMusgrave/pytorch-metric-learning is its mean over examples and classes.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> np.asarray(p2s_grad_loss(x, jnp.array([0, 1]), jnp.eye(2)), float).round(3)
    array([0. , 0.4])
    """
    check_proxies(embeddings, labels, proxies)
    cosine = cosines(embeddings, proxies)
    gap = cosine - is_label(jnp.asarray(labels), cosine.shape[-1])
    return restore(jnp.sum(jnp.square(gap), -1), embeddings, proxies)


def proxy_anchor_loss(
    embeddings: Embeddings,
    labels: ClassLabels,
    proxies: Proxies,
    *,
    margin: float = 0.1,
    scale: float = 32.0,
    axis_name: str | None = None,
) -> Float[Array, "classes"]:
    """Proxy-Anchor: each proxy as the anchor of the whole batch.

    For proxy `c`, `(C / P) log(1 + sum_{i: y_i = c} exp(-scale (s_ic - margin)))`
    `+ log(1 + sum_{i: y_i != c} exp(scale (s_ic + margin)))` with `P` the number of classes present
    in the batch and `C` of all of them; the mean over the proxies is the paper's loss.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: one vector a class [classes, features].
      margin: delta in the paper.
      scale: alpha in the paper.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss a proxy, the anchors of this loss [classes].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Proxy Anchor Loss for Deep Metric Learning, arXiv 2003.13911, Eq. 4;
    `ProxyAnchorLoss` of KevinMusgrave/pytorch-metric-learning and the authors'
    tjddus9597/Proxy-Anchor-CVPR2020 agree.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> np.asarray(proxy_anchor_loss(x, jnp.array([0, 1]), jnp.eye(2), scale=2.0), float).round(3)
    array([1.773, 1.019])
    """
    check_proxies(embeddings, labels, proxies)
    check_positive(scale=scale)
    x, p = upcast(embeddings, proxies)
    x, labels = everyone((x, jnp.asarray(labels)), axis_name)
    cosine = pairwise_cosine(p, x)
    classes = len(p)
    own = is_label(labels, classes).T
    attract = softplus(log_sum_exp(-scale * (cosine - margin), own))
    repel = softplus(log_sum_exp(scale * (cosine + margin), ~own))
    present = jnp.maximum(jnp.sum(jnp.any(own, -1)), 1)
    return restore(attract * classes / present + repel, embeddings, proxies)
