"""Penalties on parameters: embeddings of a batch, kernels that drift apart, proxies of classes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from .similarity import pairwise_cosine


def mini_batch_aware_l2(
    table: Float[Array, "V E"],
    ids: Int[Array, "*B"],
    counts: Float[Array, "V"] | Int[Array, "V"],
    *,
    where: Bool[Array, "#*B"] | None = None,
) -> Float[Array, "*B"]:
    """L2 of the embeddings that occur in a batch, each once, by how often it occurs in all.

        sum of the values = 1/2 sum_j a_j |w_j|^2 / n_j,   a_j = 1 if id j is in the batch, else 0

    An id that is in the batch m times has 1 / m of its share in each place. The gradient
    w_j / n_j touches only embeddings of the batch, and frequent ids are held back less. Plain L2
    would touch all of the table in every step.

    Args:
      table: w, one embedding a row [ids, embedding].
      ids: of the batch, in [0, number of ids) [...].
      counts: n, how often each id is in the training data [ids]; below 1 counts as 1.
      where: False for places that are padding [...].

    Returns:
      [...], the share of each place.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, equations
    (5) to (7), without the factor lambda; the half is that of their gradient step.

    >>> table = jnp.array([[3.0, 4.0], [1.0, 0.0]])
    >>> mini_batch_aware_l2(table, jnp.array([0, 0]), jnp.array([5, 1])).tolist()
    [1.25, 1.25]
    """
    check_floating(table=table)
    check_rank("table", table, 2)
    check_integer(ids=ids)
    check_shape("counts", counts, (np.shape(table)[0],), "[ids], as the rows of table")
    ids = jnp.asarray(ids)
    shown = jnp.ones(ids.shape, bool)
    if where is not None:
        check_boolean(where=where)
        check_broadcastable("where", where, ids.shape, "as ids")
        shown = jnp.broadcast_to(jnp.asarray(where), ids.shape)
    w = upcast(table)
    times = jnp.zeros(len(w), w.dtype).at[ids].add(shown.astype(w.dtype))
    weight = shown / jnp.maximum(times[ids], 1) / jnp.maximum(jnp.asarray(counts)[ids], 1)
    return restore(weight.astype(w.dtype) * jnp.sum(jnp.square(w[ids]), -1) / 2, table)


def regular_face_penalty(proxies: Float[Array, "classes features"]) -> Float[Array, "classes"]:
    """RegularFace: how close each class's proxy is to the nearest other one.

    `max_{c' != c} cos(p_c, p_c')`, to be lowered beside a softmax over proxies.

    Args:
      proxies: one vector a class [classes, features].

    Returns:
      One cosine a class [classes]; zero for a single class.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: RegularFace: Deep Face Recognition via Exclusive Regularization (Zhao, Xu, Cheng, CVPR
    2019), Eq. 5; `RegularFaceRegularizer` of KevinMusgrave/pytorch-metric-learning agrees.

    >>> proxies = jnp.array([[1.0, 0.0], [0.6, 0.8], [-2.0, 0.0]])
    >>> np.asarray(regular_face_penalty(proxies), float).round(3)
    array([ 0.6,  0.6, -0.6])
    """
    check_floating(proxies=proxies)
    check_rank("proxies", proxies, 2)
    p = upcast(proxies)
    if len(p) == 1:
        return restore(0 * jnp.sum(p, 1), proxies)
    cosine = jnp.where(jnp.eye(len(p), dtype=bool), -jnp.inf, pairwise_cosine(p, p))
    return restore(jnp.max(cosine, 1), proxies)


def center_invariant_penalty(proxies: Float[Array, "classes features"]) -> Float[Array, "classes"]:
    """How far the squared length of each class's proxy is from their mean: rare classes shrink.

    `(|p_c|^2 - mean_c' |p_c'|^2)^2 / 4`.

    Args:
      proxies: one vector a class [classes, features].

    Returns:
      One penalty a class [classes].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Deep Face Recognition with Center Invariant Loss (Wu, Liu, Li, Fu, ACM Multimedia
    workshops 2017), Eq. 4; `CenterInvariantRegularizer` of KevinMusgrave/pytorch-metric-learning
    agrees.

    >>> center_invariant_penalty(jnp.array([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [1.0, 1.0]
    """
    check_floating(proxies=proxies)
    check_rank("proxies", proxies, 2)
    squared = jnp.sum(jnp.square(upcast(proxies)), 1)
    return restore(jnp.square(squared - jnp.mean(squared)) / 4, proxies)


def slow_feedback_loss(kernels: Sequence[Float[Array, "*S C"]]) -> Float[Array, "kernels"]:
    """How far the global kernels of a network's blocks are from those of the blocks before.

        l_i = sum_{j < i} mean((tile(K_j) - K_i)^2)

    where the channels of K_j are repeated in a row until they are as many as those of K_i.

    Args:
      kernels: K, of one spatial size [..., channels]; channels of a kernel divide those of the
        later ones.

    Returns:
      One value a kernel [kernels], zero for the first; the paper's loss is their sum.

    Raises:
      ValueError: for a wrong shape or dtype, or no kernels.

    Source: HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction,
    arXiv 2401.17948, the slow-feedback loss; compared with hyperevolnet/Terminator
    `models/modules/loss.py` (`cal_slow_loss`).

    >>> slow_feedback_loss([jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 3))]).tolist()
    [0.0, 1.0]
    """
    check(len(kernels) > 0, "kernels", "got none, takes one or more")
    last = 1
    for i, kernel in enumerate(kernels):
        check_floating(kernels=kernel)
        check_rank("kernels", kernel, 1, at_least=True)
        spatial = np.shape(kernels[0])[:-1]
        check_shape("kernels", kernel, (*spatial, None), f"[..., channels], kernel {i}")
        channels = np.shape(kernel)[-1]
        check(
            channels % last == 0,
            "kernels",
            f"got {channels} channels after {last}, takes a multiple",
        )
        last = channels
    wide: Any = [upcast(kernel) for kernel in kernels]

    def apart(shallow: Array, deep: Array) -> Array:
        times = deep.shape[-1] // shallow.shape[-1]
        tiled = jnp.tile(shallow, (1,) * (deep.ndim - 1) + (times,))
        return jnp.mean(jnp.square(tiled - deep))

    values = [sum((apart(k, wide[i]) for k in wide[:i]), jnp.zeros(())) for i in range(len(wide))]
    return restore(jnp.stack(values), *kernels)
