"""Whether an image is of a known class, scored by a model of images and texts."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)

Images = Float[Array, "... features"]
Texts = Float[Array, "classes features"]


def _logits(images: Any, scale: Any, **texts: Any) -> tuple[Float[Array, "... classes"], ...]:
    """Scaled cosines with each set of texts."""
    check_floating(images=images, **texts)
    check_rank("images", images, 1, at_least=True)
    for name, text in texts.items():
        check_shape(name, text, (None, jnp.shape(images)[-1]), "[classes, features], as images")
        check(jnp.shape(text)[0] > 0, name, "got no texts, takes one or more")
    check_positive(scale=scale)
    x, *rest = map(safe_normalize, upcast(images, *texts.values()))
    full = jax.lax.Precision.HIGHEST
    return tuple(scale * jnp.einsum("...f,cf->...c", x, t, precision=full) for t in rest)


def neglabel_score(
    images: Images,
    texts: Texts,
    negative_texts: Float[Array, "negatives features"],
    *,
    scale: float = 100.0,
) -> Float[Array, "..."]:
    """NegLabel: the share of known classes among known classes and words that are far from them.

    `sum_k exp(c s_k) / (sum_k exp(c s_k) + sum_n exp(c s_n))` with cosines `s` of the image with
    the texts of the classes, `k`, and with negative words, `n`.

    Args:
      images: embeddings of images [..., features].
      texts: embeddings of the names of the known classes [classes, features].
      negative_texts: embeddings of words unlike all of them [negatives, features].
      scale: `c`, the inverse temperature.

    Returns:
      Scores from zero to one, high for known classes [...].

    Raises:
      ValueError: if a shape, a dtype or `scale` does not fit.

    Source: Negative Label Guided OOD Detection with Pretrained Vision-Language Models, arXiv
    2403.20078, without its grouping; the score of Enhanced OoD Detection through Cross-Modal
    Alignment of Multi-Modal Representations, arXiv 2503.18817 (`inference.py` of
    ma-kjh/CMA-OoDD).

    >>> score = neglabel_score(jnp.array([1.0, 0.0]), jnp.eye(2), -jnp.eye(2), scale=1.0)
    >>> print(f"{score:.4f}")
    0.7311
    """
    known, other = _logits(images, scale, texts=texts, negative_texts=negative_texts)
    odds = jax.nn.logsumexp(known, -1) - jax.nn.logsumexp(other, -1)
    return restore(jax.nn.sigmoid(odds), images, texts, negative_texts)


def maximum_concept_matching_score(
    images: Images, texts: Texts, *, scale: float = 1.0
) -> Float[Array, "..."]:
    """MCM: the largest share that one known class has of the softmax over all of them.

    `max_k exp(c s_k) / sum_j exp(c s_j)` with cosines `s`.

    Args:
      images: embeddings of images [..., features].
      texts: embeddings of the names of the known classes [classes, features].
      scale: `c`, the inverse temperature.

    Returns:
      Scores from `1 / classes` to one, high for known classes [...].

    Raises:
      ValueError: if a shape, a dtype or `scale` does not fit.

    Source: Delving into Out-of-Distribution Detection with Vision-Language Representations, arXiv
    2211.13445, Eq. 1 and 2.

    >>> score = maximum_concept_matching_score(jnp.array([1.0, 0.0]), jnp.eye(2))
    >>> print(f"{score:.4f}")
    0.7311
    """
    (known,) = _logits(images, scale, texts=texts)
    score = jnp.max(jax.nn.softmax(known, -1), -1)
    return restore(score, images, texts)
