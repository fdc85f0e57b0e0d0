"""Contrastive learning: two views of an example against the rest of the batch.

All losses here compare cosines over a temperature, one number or one for each anchor. Those over a
batch take what the engine of the module `pairs` offers: `chunk_size`, `axis_name` and `ring`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from ._shared import log_sum_exp, mean_of_devices, rows_before, softplus
from .batch_pairs import in_batch
from .pair_sums import (
    Embeddings,
    PerAnchor,
    References,
    Temperature,
    check_views,
    mean_log_loss,
    per_anchor,
)
from .pairs import Labels, Pairs, negative
from .similarity import pairwise_cosine

Views = Float[Array, "batch features"]


def supervised_contrastive_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    temperature: Temperature = 0.1,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """SupCon: every positive likely among all other examples.

    `-mean_p log(exp(s_ap / t) / sum_j exp(s_aj / t))` with cosines `s` and `j` over all pairs
    of the anchor.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      temperature: `t`, a number or one for each anchor [batch].
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch]; zero for an anchor without positives.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Supervised Contrastive Learning, arXiv 2004.11362, Eq. 2 (L_out), without the factor of
    the temperature over a base temperature that HobbitLong/SupContrast puts before it;
    `SupConLoss` of KevinMusgrave/pytorch-metric-learning agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> np.asarray(supervised_contrastive_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.127, 1.784, 0.   ])
    """
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    scale = 1 / per_anchor("temperature", temperature, len(embeddings), pairs.dtype)
    return restore(mean_log_loss(pairs, scale), embeddings)


def both_views(
    view1: Any, view2: Any, chunk_size: int | None, axis_name: str | None, ring: bool
) -> Pairs:
    """The pairs of the 2 batch views; the other view of the same example is the positive."""
    check_views(view1=view1, view2=view2)
    rows = len(view1)
    x = jnp.concatenate(upcast(view1, view2))
    example = jnp.arange(rows, dtype=jnp.int32) + rows_before(rows, axis_name)
    return in_batch(
        x,
        jnp.concatenate([example, example]),
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )


def nt_xent_loss(
    view1: Views,
    view2: Views,
    *,
    temperature: Temperature = 0.5,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """NT-Xent, the loss of SimCLR: the other view among the views of the whole batch.

    `-log(exp(s_a+ / t) / sum_{j != a} exp(s_aj / t))` with cosines `s`, the mean over both views of
    an example as the anchor `a`.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`, a number or one for each example [batch].
      chunk_size: look at so many views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the views round that axis rather than gather them.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709,
    Eq. 1 and Algorithm 1; `NTXentLoss` of lightly-ai/lightly agrees in values and gradients.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(nt_xent_loss(x, x), float).round(3)
    array([0.24, 0.24])
    """
    pairs = both_views(view1, view2, chunk_size, axis_name, ring)
    scale = 1 / per_anchor("temperature", temperature, len(view1), pairs.dtype)
    loss = mean_log_loss(pairs, jnp.concatenate([scale, scale]))
    return restore(loss.reshape(2, -1).mean(0), view1, view2)


def model_aware_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    temperature: float | Float[Array, ""] = 0.1,
    alignment_weight: float = 0.5,
    initial_alignment: float = 0.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """MACL: NT-Xent whose temperature rises as views align, with a gradient that does not fade.

    `-sg(1 / (1 - p_a)) log p_a` with `p_a = exp(s_a+ / t) / sum_{j != a} exp(s_aj / t)` for cosines
    `s`, at the temperature `t = t_0 (1 + w (A - A_0))` with `A` the mean of the `s_a+`, a constant
    for the gradient; the mean over both views of an example as the anchor `a`.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t_0`, before anything has been learned [].
      alignment_weight: `w` (alpha in the paper), below one.
      initial_alignment: `A_0`.
      chunk_size: look at so many views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the views round that axis rather than gather them.

    Returns:
      One loss an example [batch]; zero in a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Model-Aware Contrastive Learning: Towards Escaping the Dilemmas, arXiv 2207.07874;
    `MACLLoss` of lightly-ai/lightly agrees in values and gradients.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(model_aware_contrastive_loss(x, x, temperature=0.5), float).round(3)
    array([1.227, 1.227])
    """
    check_positive(temperature=temperature)
    check_range("alignment_weight", alignment_weight, 0, 1, open_high=True)
    check_range("initial_alignment", initial_alignment, 0, 1)
    pairs = both_views(view1, view2, chunk_size, axis_name, ring)
    near = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
    alignment = mean_of_devices(jnp.mean(jax.lax.stop_gradient(near)), axis_name)
    factor = 1 + alignment_weight * (alignment - initial_alignment)
    # Where all views oppose each other, w (1 + A_0) > 1 would leave less than nothing of it.
    factor = jnp.maximum(factor, jnp.finfo(pairs.dtype).eps)
    scale = jnp.broadcast_to(1 / (temperature * factor), near.shape)
    loss = mean_log_loss(pairs, scale)
    weight = jax.lax.stop_gradient(1 / (1e-8 - jnp.expm1(-loss)))
    return restore((weight * loss).reshape(2, -1).mean(0), view1, view2)


def decoupled_contrastive_loss(
    view1: Views,
    view2: Views,
    *,
    temperature: Temperature = 0.1,
    weight_scale: float | None = None,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """DCL: NT-Xent without the positive in the denominator.

    `-w s_a+ / t + log sum_n exp(s_an / t)`, the mean over both views of an example as the anchor.
    In DCLW the weight `w = 2 - batch softmax(s_a+ / weight_scale)` favours dissimilar positives.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      temperature: `t`, a number or one for each example [batch].
      weight_scale: sigma of the von Mises-Fisher weight (0.5 in DCLW); None for `w = 1`.
      chunk_size: look at so many views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the views round that axis rather than gather them.

    Returns:
      One loss an example [batch]; without its positive's pull for a batch of one.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Decoupled Contrastive Learning, arXiv 2110.06848, Eq. 5 and 6 and the weighting of
    Section 3; `DCLLoss` and `DCLWLoss` of lightly-ai/lightly agree in values and gradients; the
    weight is constant for the gradient there too.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(decoupled_contrastive_loss(x, x), float).round(3)
    array([-9.307, -9.307])
    """
    if weight_scale is not None:
        check_positive(weight_scale=weight_scale)
    pairs = both_views(view1, view2, chunk_size, axis_name, ring)
    scale = 1 / per_anchor("temperature", temperature, len(view1), pairs.dtype)
    scale = jnp.concatenate([scale, scale])
    near = pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
    far = pairs.log_sum_exp(lambda b, c: c * b.values, negative, scale)
    weight: Any = 1.0
    if weight_scale is not None:
        weight = _mises_fisher(near / weight_scale, axis_name)
    loss = jnp.where(far != -jnp.inf, far, 0) - weight * scale * near
    loss = jnp.where(far != -jnp.inf, loss, 0)
    return restore(loss.reshape(2, -1).mean(0), view1, view2)


def _mises_fisher(logits: Array, axis_name: str | None) -> Array:
    """`2 - batch softmax(logits)` for each of the two views, constant for the gradient."""
    logits = jax.lax.stop_gradient(logits.reshape(2, -1))
    everyone = logits
    if axis_name is not None:
        everyone = jax.lax.all_gather(logits, axis_name, axis=1, tiled=True)
    norm = jax.nn.logsumexp(everyone, axis=1, keepdims=True)
    return (2 - everyone.shape[1] * jnp.exp(logits - norm)).reshape(-1)


def info_nce_loss(
    queries: Float[Array, "batch features"],
    keys: Float[Array, "batch features"],
    negatives: Float[Array, "negatives features"] | Float[Array, "batch negatives features"],
    *,
    temperature: Temperature = 0.07,
    margin: float = 0.0,
) -> Float[Array, "batch"]:
    """InfoNCE with given negatives: a queue shared by all queries, or some for each query.

    `-log(exp((s+ - m) / t) / (exp((s+ - m) / t) + sum_n exp(s_n / t)))` with cosines `s`.

    Args:
      queries: embeddings [batch, features].
      keys: the positive of each query [batch, features].
      negatives: shared [negatives, features] or for each query [batch, negatives, features].
      temperature: `t`, a number or one for each query [batch].
      margin: `m`, what the positive has to be ahead by; below zero it may lie behind (-0.5 for
        positives of other images in InterCLR).

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    Eq. 1 (keys and queue are constants there: apply `jax.lax.stop_gradient`); the margin is that of
    Delving into Inter-Image Invariance for Unsupervised Visual Representations, arXiv 2008.11702.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(info_nce_loss(x, x, -x, temperature=0.5), float).round(3)
    array([0.143, 0.143])
    """
    near, far = own_cosines(queries, keys, negatives)
    scale = 1 / per_anchor("temperature", temperature, len(queries), near.dtype)
    loss = softplus(log_sum_exp(scale[:, None] * (far - near[:, None] + margin)))
    return restore(loss, queries, keys, negatives)


def own_cosines(
    queries: Any, keys: Any, negatives: Any
) -> tuple[Float[Array, "batch"], Float[Array, "batch negatives"]]:
    """Cosines of each query with its key and with its negatives, shared or its own."""
    check_views(queries=queries, keys=keys)
    check_floating(negatives=negatives)
    check_rank("negatives", negatives, (2, 3))
    lead = (len(queries),) if jnp.ndim(negatives) == 3 else ()
    shape = (*lead, None, jnp.shape(queries)[1])
    check_shape("negatives", negatives, shape, "[..., negatives, features], as queries")
    q, k, n = map(safe_normalize, upcast(queries, keys, negatives))
    form = "bd,nd->bn" if n.ndim == 2 else "bd,bnd->bn"
    far = jnp.einsum(form, q, n, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(q * k, -1), far
