"""Contrastive learning by relations: what others are to one view, they are to be to the other."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check, check_positive, restore
from .contrastive import own_cosines

Views = Float[Array, "batch features"]
Others = Float[Array, "others features"] | Float[Array, "batch others features"]


def _relations(queries: Any, keys: Any, others: Any) -> tuple[Array, Array, Array]:
    """Cosines of the pairs [batch], and of either half with the others [batch, others]."""
    near, of_queries = own_cosines(queries, keys, others)
    _, of_keys = own_cosines(keys, queries, others)
    check(of_keys.shape[1] > 0, "negatives", "got none, takes one or more")
    return near, of_queries, of_keys


def relational_loss(
    queries: Views,
    keys: Views,
    negatives: Others,
    *,
    temperature: float = 0.1,
    key_temperature: float = 0.04,
) -> Float[Array, "batch"]:
    """ReSSL: the query's distribution over other examples is to be its key's, which is sharper.

    `-sum_n softmax_n(s_kn / t_k) log softmax_n(s_qn / t)` with cosines `s`; that of the key is a
    constant for the gradient. No pair is called negative.

    Args:
      queries: embeddings of one view, strongly augmented [batch, features].
      keys: of the other view, weakly augmented, by a slow encoder [batch, features].
      negatives: other examples, such as a `KeyQueue`'s, shared [others, features] or for each query
        [batch, others, features].
      temperature: `t`.
      key_temperature: `t_k`, lower.

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or a temperature does not fit.

    Source: ReSSL: Relational Self-Supervised Learning with Weak Augmentation, arXiv 2107.09282;
    `ressl_loss_func` of vturrisi/solo-learn agrees in values and gradients on unit vectors.

    >>> x, others = jnp.array([[1.0, 0.0]]), jnp.eye(2)
    >>> loss = relational_loss(x, x, others, temperature=0.5, key_temperature=0.5)
    >>> np.asarray(loss, float).round(3)
    array([0.365])
    """
    check_positive(temperature=temperature, key_temperature=key_temperature)
    _, of_queries, of_keys = _relations(queries, keys, negatives)
    target = jax.nn.softmax(jax.lax.stop_gradient(of_keys) / key_temperature, -1)
    loss = -jnp.sum(target * jax.nn.log_softmax(of_queries / temperature, -1), -1)
    return restore(loss, queries, keys, negatives)


def consistent_contrast_loss(
    queries: Views,
    keys: Views,
    negatives: Others,
    *,
    temperature: float = 0.05,
    includes_positive: bool = False,
) -> Float[Array, "batch"]:
    """CO2: query and key are to have the same distribution over the negatives.

    `(KL(p || q) + KL(q || p)) / 2` with `q = softmax_n(s_qn / t)` and `p = softmax_n(s_kn / t)` for
    cosines `s`: a regularizer of contrastive losses, which treat all negatives alike.

    Args:
      queries: embeddings of one view [batch, features].
      keys: embeddings of the other view [batch, features].
      negatives: other examples, such as a `KeyQueue`'s, shared [others, features] or for each query
        [batch, others, features].
      temperature: `t`.
      includes_positive: let each half's cosine with the other be one more entry of both.

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or `temperature` does not fit.

    Source: CO2: Consistent Contrast for Unsupervised Visual Representation Learning, arXiv
    2010.02217; `CO2Regularizer` of lightly-ai/lightly includes the positive, and so agrees in
    values (it passes no gradient on).

    >>> x, others = jnp.eye(2), jnp.eye(2)
    >>> np.asarray(consistent_contrast_loss(x, x[::-1], others, temperature=1.0), float).round(3)
    array([0.462, 0.462])
    """
    check_positive(temperature=temperature)
    near, of_queries, of_keys = _relations(queries, keys, negatives)
    if includes_positive:
        of_queries, of_keys = (
            jnp.concatenate([near[:, None], s], 1) for s in (of_queries, of_keys)
        )
    log_q, log_p = (jax.nn.log_softmax(s / temperature, -1) for s in (of_queries, of_keys))
    loss = jnp.sum((jnp.exp(log_q) - jnp.exp(log_p)) * (log_q - log_p), -1) / 2
    return restore(loss, queries, keys, negatives)
