"""A regularizer of metric learning that confuses: classes are drawn together, against the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import restore, safe_log
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor
from .pairs import Block, Labels, Pairs, negative, positive
from .similarity import pairwise_squared_euclidean


def energy_confusion_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    logarithm: bool = True,
    same_class: bool = False,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Energy confusion: the mean squared distance of examples of different classes, to be lowered.

    `log E` with `E = mean |x_i - x_j|^2` over the pairs of different classes. It is a property of
    the batch and the same for each of its examples. Added to a metric loss with a weight of about
    0.1 it keeps the encoder from relying on the few features that tell the seen classes apart. Its
    gradient does not grow with the scale of the embeddings: `sum_i <x_i, dL / dx_i> = 2`. The
    authors let it reach the last layer alone: embed the stopped features a second time for it.

    Args:
      embeddings: the examples [batch, features].
      labels: class of each [batch], sets of labels [batch, labels] or `PairMasks`.
      logarithm: False for `E` itself.
      same_class: add to `E` the mean over the pairs of one class.
      chunk_size: look at so many examples at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the examples round that axis rather than gather them.

    Returns:
      The loss of the batch for each example [batch]; zero without a pair.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and
    Clustering, arXiv 1901.07169, the energy confusion term. `src/energy_confusion.cpp` of
    chenbinghui1/ECAML lowers the logarithm, over ten random pairs an example of any classes, with
    the pairs of one class and those of different classes each weighted to one: `same_class` is what
    that estimates, up to a factor. Over the pairs that it drew, values and gradients agree.

    >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    >>> loss = energy_confusion_loss(x[:2], jnp.array([0, 1]), logarithm=False)
    >>> loss.tolist()
    [25.0, 25.0]
    """
    pairs = in_batch(
        embeddings,
        labels,
        compare=pairwise_squared_euclidean,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    energy = _mean(pairs, negative, axis_name)
    if same_class:
        energy = energy + _mean(pairs, positive, axis_name)
    loss = jnp.where(energy <= 0, 0, safe_log(energy)) if logarithm else energy
    return restore(jnp.broadcast_to(loss, (len(embeddings),)), embeddings)


def _mean(pairs: Pairs, which: Callable[[Block], Array], axis_name: str | None) -> Array:
    """The mean over the pairs of all anchors, on all devices; zero over none."""
    total = jnp.sum(pairs.total(lambda b: jnp.where(which(b), b.values, 0)))
    count = jnp.sum(pairs.count(which))
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1)
