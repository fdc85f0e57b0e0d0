"""Several proxies a class: classes of more than one kind of example.

`proxies` [classes, centers, features] are parameters, trained with the embeddings.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    restore,
    safe_normalize,
    safe_sqrt,
    upcast,
)
from .margins import add_margins
from .proxies import ClassLabels, Embeddings, PerExample, check_proxies, cosines, cross_entropy

SubProxies = Float[Array, "classes centers features"]


def _cosines(embeddings: Any, labels: Any, proxies: Any) -> Float[Array, "batch classes centers"]:
    """Cosines with every proxy, checked, in the accumulation dtype."""
    check_floating(proxies=proxies)
    check_rank("proxies", proxies, 3)
    classes, centers, features = jnp.shape(proxies)
    flat = jnp.reshape(proxies, (-1, features))
    check_proxies(embeddings, labels, flat)
    check(centers > 0, "proxies", "got no proxies of a class, takes one or more")
    return jnp.reshape(cosines(embeddings, flat), (-1, classes, centers))


def soft_triple_loss(
    embeddings: Embeddings,
    labels: ClassLabels,
    proxies: SubProxies,
    *,
    scale: float = 20.0,
    temperature: float = 0.1,
    margin: float = 0.01,
) -> PerExample:
    """SoftTriple: a softmax over classes of several centers, each example near those like it.

    `-log softmax_y` of `scale (S_c - margin 1[c = y])` with `S_c = sum_k q_ck s_ck` of cosines `s`
    and `q_c = softmax_k(s_ck / temperature)`. The paper adds `center_merging_penalty`.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: the centers of each class [classes, centers, features].
      scale: lambda in the paper.
      temperature: of the choice among the centers of a class (gamma in the paper).
      margin: delta in the paper.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, arXiv 1909.05235, Eq. 8
    and 9; `SoftTripleLoss` of KevinMusgrave/pytorch-metric-learning, after idstcv/SoftTriple,
    agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> p = jnp.array([[[1.0, 0.0], [0.8, 0.6]], [[0.0, 1.0], [-1.0, 0.0]]])
    >>> np.asarray(soft_triple_loss(x, jnp.array([0, 1]), p, scale=2.0), float).round(3)
    array([0.135, 0.866])
    """
    check_positive(scale=scale, temperature=temperature)
    check_range("margin", margin, 0)
    s = _cosines(embeddings, labels, proxies)
    similar = jnp.sum(jax.nn.softmax(s / temperature, -1) * s, -1)
    labels = jnp.asarray(labels)
    harder = add_margins(similar, labels, cosine_margin=margin)
    return restore(cross_entropy(scale * harder, labels), embeddings, proxies)


def sub_center_arcface_loss(
    embeddings: Embeddings,
    labels: ClassLabels,
    proxies: SubProxies,
    *,
    margin: float = 0.5,
    scale: float = 64.0,
) -> PerExample:
    """Sub-center ArcFace: ArcFace with the nearest of several proxies of each class.

    `-log softmax_y` of `scale cos(theta_y + margin)` at the label and `scale cos(theta_c)`
    elsewhere, with `cos(theta_c) = max_k s_ck` of cosines `s`. Wrongly labelled examples gather at
    proxies of their own, so that the largest one of a class stays clean.

    Args:
      embeddings: the examples [batch, features].
      labels: the class of each [batch].
      proxies: the centers of each class [classes, centers, features].
      margin: in radians.
      scale: of the logits.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces (Deng, Guo,
    Liu, Gong, Zafeiriou, ECCV 2020), Eq. 4 and 5; `SubCenterArcFaceLoss` of
    KevinMusgrave/pytorch-metric-learning agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> p = jnp.array([[[1.0, 0.0], [0.8, 0.6]], [[0.0, 1.0], [-1.0, 0.0]]])
    >>> np.asarray(sub_center_arcface_loss(x, jnp.array([0, 1]), p, scale=2.0), float).round(3)
    array([0.159, 1.381])
    """
    check_positive(scale=scale)
    check_range("margin", margin, 0, jnp.pi, open_high=True)
    nearest = jnp.max(_cosines(embeddings, labels, proxies), -1)
    labels = jnp.asarray(labels)
    harder = add_margins(nearest, labels, angular_margin=margin)
    return restore(cross_entropy(scale * harder, labels), embeddings, proxies)


def center_merging_penalty(proxies: SubProxies) -> Float[Array, "classes"]:
    """How far the centers of each class are apart: lets a class have fewer of them.

    `mean over pairs of centers of |w - w'| / 2` of unit vectors.

    Args:
      proxies: the centers of each class [classes, centers, features].

    Returns:
      One penalty a class [classes]; zero with a single center. Their mean is the paper's, to be
      multiplied by tau, 0.2 there.

    Raises:
      ValueError: if `proxies` is not floating point [classes, centers, features].

    Source: SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, arXiv 1909.05235,
    Eq. 11; `SparseCentersRegularizer` of KevinMusgrave/pytorch-metric-learning computes the mean.

    >>> p = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]]])
    >>> np.asarray(center_merging_penalty(p), float).round(3)
    array([0.707, 0.   ])
    """
    check_floating(proxies=proxies)
    check_rank("proxies", proxies, 3)
    w = safe_normalize(upcast(proxies))
    centers = w.shape[1]
    first, second = jnp.triu_indices(centers, 1)
    squared = jnp.sum(jnp.square(w[:, first] - w[:, second]), -1)
    penalty = jnp.sum(safe_sqrt(squared), 1) / max(centers * (centers - 1), 1)
    return restore(penalty, proxies)
