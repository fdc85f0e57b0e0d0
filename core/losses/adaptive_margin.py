"""Cosine softmax losses whose scale and margin follow from the state of training."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import check, check_positive, check_range, check_rank, restore, upcast
from ._shared import check_labels, everyone, is_label, log_sum_exp, others_log_odds, pick, softplus


def _lower_median(x: Float[Array, "batch"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The lower of the two middle values, and where it is."""
    index = jnp.argsort(x)[(x.shape[0] - 1) // 2]
    return x[index], index


def madacos_parameters(
    cosines: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    *,
    median_probability: float = 0.02,
    class_constant: float = 9999999.0,
    min_scale: float = 32.0,
    max_scale: float = 1e4,
    others: Literal["example", "median", "mean"] = "example",
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Scale and margin of `madacos` from a batch.

    With `m` the lower median of the labels' cosines, `scale = log(C (1 - a) / a) / (1 - m)`, so
    that a perfect cosine against the median example's competitors is all but certain, and
    `margin = max(0, m - log(B a / (1 - a)) / scale)`, `B = sum_{j != y} exp(scale cos_j)` of the
    median example, so that this example's probability is exactly `a`.

    Args:
      cosines: cosine of each embedding and each class's prototype [batch, classes].
      labels: the class of each example, from 0 on [batch].
      median_probability: `a` (alpha), what the median example's label is to get.
      class_constant: `C`; a constant, not the number of classes.
      min_scale: the least scale.
      max_scale: the largest, which the released code does not limit; beyond it float32 has no
        digits left for the cosines.
      others: whose `B`: that of the median "example", or the "median" or "mean" over the batch.
      axis_name: the mesh axis whose devices share the batch; the result is the same on all.

    Returns:
      Scale [] and margin [], without gradient.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image
    Retrieval, arXiv 2308.04008, MadaCos; `core/model/madacos.py` of bassyess/CFCD.

    >>> scale, margin = madacos_parameters(jnp.array([[0.9, 0.1]]), jnp.array([0]))
    >>> round(float(scale), 1), round(float(margin), 2)
    (200.1, 0.82)
    """
    check_labels(cosines, labels, "cosines")
    check_rank("cosines", cosines, 2)
    check_range("median_probability", median_probability, 0, 1, open_low=True, open_high=True)
    check_positive(class_constant=class_constant, min_scale=min_scale, max_scale=max_scale)
    check(
        others in ("example", "median", "mean"),
        "others",
        f"got {others!r}, takes 'example', 'median' or 'mean'",
    )
    cos, labels = jax.lax.stop_gradient(upcast(cosines)), jnp.asarray(labels)
    odds = -jax.scipy.special.logit(jnp.asarray(median_probability, cos.dtype))
    median, index = _lower_median(everyone(pick(cos, labels), axis_name))
    gap = jnp.maximum(1 - median, jnp.finfo(cos.dtype).tiny)
    scale = jnp.clip(
        (jnp.log(jnp.asarray(class_constant, cos.dtype)) + odds) / gap, min_scale, max_scale
    )
    log_b = everyone(log_sum_exp(scale * cos, ~is_label(labels, cos.shape[-1])), axis_name)
    if others == "example":
        chosen = log_b[index]
    elif others == "median":
        chosen = _lower_median(log_b)[0]
    else:
        chosen = log_sum_exp(log_b) - math.log(log_b.shape[0])
    # One class alone has no competitors, and needs no margin.
    margin = jnp.where(chosen != -jnp.inf, median - (chosen - odds) / scale, 0)
    margin = jnp.maximum(margin, 0)
    if axis_name is not None:
        return jax.lax.pmax((scale, margin), axis_name)  # equal already, and so typed
    return scale, margin


def madacos(
    cosines: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    *,
    median_probability: float = 0.02,
    class_constant: float = 9999999.0,
    min_scale: float = 32.0,
    max_scale: float = 1e4,
    others: Literal["example", "median", "mean"] = "example",
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Cross-entropy of scaled cosines with a margin, both found from the batch's median.

    `-log(exp(s (cos_y - m)) / (exp(s (cos_y - m)) + sum_{j != y} exp(s cos_j)))` with scale `s` and
    margin `m` of `madacos_parameters`, which no gradient goes through. As training succeeds the
    median cosine rises, and scale and margin with it, so the task stays equally hard.

    Args:
      cosines: cosine of each embedding and each class's prototype [batch, classes].
      labels: the class of each example, from 0 on [batch].
      median_probability: what the median example's label gets (alpha); 0.02 in the authors'
        configuration, 0.1 by default in their code.
      class_constant: see `madacos_parameters`.
      min_scale: the least scale.
      max_scale: the largest scale.
      others: see `madacos_parameters`.
      axis_name: the mesh axis whose devices share the batch, over which the median is taken.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image
    Retrieval, arXiv 2308.04008, MadaCos; values and gradients agree with
    `core/model/madacos.py` of bassyess/CFCD, which uses margin zero in evaluation.

    >>> loss = madacos(jnp.array([[0.9, 0.1]]), jnp.array([0]))
    >>> np.asarray(jnp.exp(-loss), float).round(3)
    array([0.02])
    """
    scale, margin = madacos_parameters(
        cosines,
        labels,
        median_probability=median_probability,
        class_constant=class_constant,
        min_scale=min_scale,
        max_scale=max_scale,
        others=others,
        axis_name=axis_name,
    )
    cos = upcast(cosines)
    odds = others_log_odds(scale * cos, jnp.asarray(labels)) + scale * margin
    return restore(softplus(odds), cosines)
