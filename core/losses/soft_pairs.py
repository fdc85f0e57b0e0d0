"""Contrastive learning with targets between zero and one for every pair."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import check_rank, check_shape, restore, safe_normalize, upcast
from ._shared import softplus
from .batch_pairs import across
from .pair_sums import Temperature, check_views, per_anchor
from .pairs import either
from .similarity import pairwise_dot

Views = Float[Array, "batch features"]
LabelSets = Bool[Array, "batch labels"] | Int[Array, "batch labels"] | Float[Array, "batch labels"]


def soft_contrastive_loss(
    first: Views,
    second: Views,
    label_sets: LabelSets,
    *,
    temperature: Temperature = 0.2,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, "batch"]:
    """SoftCon: how alike two scenes are is to be how alike their sets of labels are.

    `mean_j -(y_aj log sigmoid(s_aj / t) + (1 - y_aj) log(1 - sigmoid(s_aj / t)))` with cosines `s`
    of the first views with the second ones and `y` those of the sets of labels.

    Args:
      first: embeddings of one view of each example [batch, features].
      second: embeddings of the other view, often of a slow encoder and constant [batch, features].
      label_sets: which labels each example has, or how much of each; not negative [batch, labels].
        An example without any has target zero with all, itself included.
      temperature: `t`, a number or one for each example [batch].
      chunk_size: look at so many views at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the views round that axis rather than gather them.

    Returns:
      One loss an example [batch]. The paper adds a contrastive loss of the examples themselves,
      such as `info_nce_loss`.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation
    Pretraining, arXiv 2405.20462: similarities learned from the similarity of multi-hot
    land-cover labels. Reconstructed: neither the equation nor code of the loss was at hand (the
    authors' repository has the models alone), so the temperature is ours.

    >>> x, labels = jnp.eye(2), jnp.array([[1, 0], [1, 1]])
    >>> loss = soft_contrastive_loss(x, x, labels, temperature=0.5)
    >>> np.asarray(loss, float).round(3)
    array([0.41, 0.41])
    """
    check_views(first=first, second=second)
    rows, features = jnp.shape(first)
    check_rank("label_sets", label_sets, 2)
    check_shape("label_sets", label_sets, (rows, None), "[batch, labels], one row an example")
    x, y = map(safe_normalize, upcast(first, second))
    sets = safe_normalize(jnp.asarray(label_sets, x.dtype))
    scaled = x / per_anchor("temperature", temperature, rows, x.dtype)[:, None]

    # Targets travel with the embeddings, so that they are formed block by block as well.
    def cross_entropy(a: Array, b: Array) -> Array:
        logits = pairwise_dot(a[:, :features], b[:, :features])
        targets = pairwise_dot(a[:, features:], b[:, features:])
        return softplus(logits) - jax.lax.stop_gradient(targets) * logits

    pairs = across(
        jnp.concatenate([scaled, sets], 1),
        jnp.concatenate([y, sets], 1),
        compare=cross_entropy,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    loss = pairs.total(lambda b: jnp.where(either(b), b.values, 0)) / pairs.count(either)
    return restore(loss, first, second)
