"""A memory of earlier keys as negatives, and features moved within it to learn more from them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_key,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from ._shared import everyone, log_sum_exp, softplus
from .interpolation import mix_features
from .pair_sums import Temperature, check_views, per_anchor
from .similarity import pairwise_cosine


class KeyQueue(NamedTuple):
    """The latest keys, oldest first from `next` on.

    Attributes:
      keys: embeddings [size, features].
      next: which row the next key is written to [].
    """

    keys: Float[Array, "size features"]
    next: Int[Array, ""]


def key_queue_init(key: Array, *, size: int, features: int) -> KeyQueue:
    """A queue of random unit vectors, before the first keys have come.

    `z / |z|` of standard normal `z`.

    Args:
      key: a typed key [].
      size: how many keys are kept.
      features: their width.

    Returns:
      `KeyQueue` of arrays [size, features] and [].

    Raises:
      ValueError: if an argument is not what it takes.

    Source: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    Algorithm 1; `moco/builder.py` of facebookresearch/moco starts alike.

    >>> key_queue_init(jax.random.key(0), size=4, features=2).keys.shape
    (4, 2)
    """
    check_key(key=key)
    check_count(size=size, features=features)
    return KeyQueue(
        safe_normalize(jax.random.normal(key, (size, features), jnp.float32)), jnp.int32(0)
    )


def key_queue_push(
    queue: KeyQueue, keys: Float[Array, "batch features"], *, axis_name: str | None = None
) -> KeyQueue:
    """The queue with new keys in place of its oldest ones.

    Row `(next + i) mod size` becomes key `i`. Without `axis_name` under `shard_map` every device
    keeps a queue of its own keys; with it all keep the same queue, of the keys of all.

    Args:
      queue: from `key_queue_init` or the step before.
      keys: embeddings, constants for the gradient, at most as many as the queue has rows
        [batch, features].
      axis_name: the mesh axis whose devices share the queue.

    Returns:
      The new `KeyQueue`.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    Algorithm 1. facebookresearch/moco asks that the batch divide the queue; here it need not.

    >>> queue = KeyQueue(jnp.zeros((3, 1)), jnp.int32(2))
    >>> key_queue_push(queue, jnp.array([[1.0], [2.0]])).keys.ravel().tolist()
    [2.0, 0.0, 1.0]
    """
    check_floating(keys=keys)
    size, features = jnp.shape(queue.keys)
    check_shape("keys", keys, (None, features), "[batch, features], as the queue")
    keys = everyone(jax.lax.stop_gradient(keys), axis_name)
    count = len(keys)
    check(count <= size, "keys", f"got {count} rows, takes at most the {size} of the queue")
    rows = (queue.next + jnp.arange(count)) % size
    new = queue.keys.at[rows].set(keys.astype(queue.keys.dtype))
    return KeyQueue(new, (queue.next + count) % size)


def key_queue_nearest(
    queue: KeyQueue, embeddings: Float[Array, "batch features"]
) -> Float[Array, "batch features"]:
    """The key of the queue that is most like each embedding, to be its positive.

    `k_n(i)` with `n(i) = argmax_n cos(z_i, k_n)`.

    Args:
      queue: from `key_queue_init` or a later step.
      embeddings: one view of each example [batch, features].

    Returns:
      Keys, constants for the gradient [batch, features]: NNCLR is `symmetric_info_nce_loss`, or one
      way round `info_nce_loss`, of these and of the predictions for the other view.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
    Representations, arXiv 2104.14548; `NNMemoryBankModule` of lightly-ai/lightly
    finds the same, `nnclr_loss_func` of vturrisi/solo-learn is one way round.

    >>> queue = KeyQueue(jnp.array([[1.0, 0.0], [0.6, 0.8]]), jnp.int32(0))
    >>> np.asarray(key_queue_nearest(queue, jnp.array([[0.0, 2.0]])), float).round(3)
    array([[0.6, 0.8]])
    """
    check_floating(embeddings=embeddings)
    features = jnp.shape(queue.keys)[1]
    check_shape("embeddings", embeddings, (None, features), "[batch, features], as the queue")
    x, keys = upcast(jax.lax.stop_gradient(embeddings), jax.lax.stop_gradient(queue.keys))
    nearest = jnp.argmax(pairwise_cosine(x, keys), -1)
    return restore(keys[nearest], embeddings)


def score_info_nce_loss(
    positive: Float[Array, "batch"],
    negatives: Float[Array, "batch negatives"],
    *,
    temperature: Temperature = 0.07,
    margin: float = 0.0,
) -> Float[Array, "batch"]:
    """InfoNCE of given scores, for what is not the plain cosine of two embeddings.

    `-log(exp((s+ - m) / t) / (exp((s+ - m) / t) + sum_n exp(s_n / t)))`.

    Args:
      positive: score of each query with its positive [batch].
      negatives: scores with its negatives [batch, negatives].
      temperature: `t`, a number or one for each query [batch].
      margin: `m`, by how much the positive's score must be larger for the same loss; below zero the
        boundary is less stringent.

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    Eq. 1; the margin is that of Delving into Inter-Image Invariance for Unsupervised Visual
    Representations, arXiv 2008.11702.

    >>> loss = score_info_nce_loss(jnp.array([1.0]), jnp.array([[0.0]]), temperature=0.5)
    >>> np.asarray(loss, float).round(3)
    array([0.127])
    """
    check_floating(positive=positive, negatives=negatives)
    check_rank("positive", positive, 1)
    check_shape("negatives", negatives, (len(positive), None), "[batch, negatives]")
    near, far = upcast(positive, negatives)
    scale = 1 / per_anchor("temperature", temperature, len(near), near.dtype)
    odds = log_sum_exp(scale[:, None] * (far - near[:, None] + margin))
    return restore(softplus(odds), positive, negatives)


def _shares(key: Array, concentration: float, shape: tuple[int, ...], dtype: Any) -> Array:
    check_positive(concentration=concentration)
    # The same numbers whatever the dtype of the features.
    share = jax.random.beta(key, concentration, concentration, shape, jnp.float32)
    return share.astype(dtype)


def positive_extrapolation(
    key: Array,
    queries: Float[Array, "batch features"],
    keys: Float[Array, "batch features"],
    *,
    concentration: float = 2.0,
    elementwise: bool = False,
) -> tuple[Float[Array, "batch features"], Float[Array, "batch features"]]:
    """A harder positive pair: query and key moved apart on the line through them.

    `q' = l q + (1 - l) k`, `k' = l k + (1 - l) q` with `l = 1 + Beta(a, a)`, not normalized. Their
    sum stays, and of unit vectors the score falls: `q' k' = s - 2 l (l - 1) (1 - s)`, `s = q k`.

    Args:
      key: a typed key [].
      queries: unit embeddings [batch, features].
      keys: the positive of each, a constant for the gradient [batch, features].
      concentration: `a` (alpha_ex in the paper).
      elementwise: draw `l` for every entry rather than for every pair.

    Returns:
      The moved queries and keys, each [batch, features], for the positive score alone.

    Raises:
      ValueError: if a shape, a dtype or `concentration` does not fit.

    Source: Improving Contrastive Learning by Visualizing Feature Transformation, arXiv 2108.02982,
    positive extrapolation; `memory/mem_moco.py` of DTennant/CL-Visualizing-Feature-Transformation
    uses the moved query for the negatives too and by default draws one `l` for the batch.

    >>> q, k = jnp.array([[1.0, 0.0]]), jnp.array([[0.6, 0.8]])
    >>> a, b = positive_extrapolation(jax.random.key(0), q, k)
    >>> bool(jnp.sum(a * b) < 0.6), np.asarray(a + b, float).round(3).tolist()
    (True, [[1.6, 0.8]])
    """
    check_key(key=key)
    check_views(queries=queries, keys=keys)
    q, k = upcast(queries, jax.lax.stop_gradient(keys))
    share = 1 + _shares(key, concentration, q.shape if elementwise else q.shape[:1], q.dtype)
    harder, other = mix_features(q, k, share), mix_features(k, q, share)
    return restore(harder, queries, keys), restore(other, queries, keys)


def negative_interpolation(
    key: Array,
    negatives: Float[Array, "negatives features"],
    *,
    concentration: float = 1.6,
    elementwise: bool = False,
) -> Float[Array, "negatives features"]:
    """Negatives that fill the space between those of a memory: each is mixed with a random other.

    `n_i' = l n_i + (1 - l) n_p(i)` with a random permutation `p` and `l` from Beta(a, a), not
    normalized. They take the place of the negatives for one step; the memory keeps the old ones.

    Args:
      key: a typed key [].
      negatives: embeddings, as those of a `KeyQueue` [negatives, features].
      concentration: `a` (alpha_in in the paper).
      elementwise: draw `l` for every entry rather than for every negative.

    Returns:
      The mixed negatives [negatives, features].

    Raises:
      ValueError: if a shape, a dtype or `concentration` does not fit.

    Source: Improving Contrastive Learning by Visualizing Feature Transformation, arXiv 2108.02982,
    negative interpolation; `memory/mem_moco.py` of DTennant/CL-Visualizing-Feature-Transformation
    by default draws one `l` for all.

    >>> n = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> mixed = negative_interpolation(jax.random.key(0), n)
    >>> np.asarray(jnp.sum(mixed, -1), float).round(3).tolist()
    [1.0, 1.0]
    """
    check_key(key=key)
    check_floating(negatives=negatives)
    check_rank("negatives", negatives, 2)
    order, draw = jax.random.split(key)
    x = upcast(negatives)
    share = _shares(draw, concentration, x.shape if elementwise else x.shape[:1], x.dtype)
    return restore(mix_features(x, jax.random.permutation(order, x), share), negatives)
