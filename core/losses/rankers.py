"""A retriever that learns from a ranker: fast scores from slow ones."""

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
    check_shape,
    restore,
    upcast,
)
from ._shared import rows_of_all

Scores = Float[Array, "batch candidates"]


def adversarial_retriever_loss(
    scores: Scores,
    ranker_scores: Any,
    *,
    adversarial_weight: float = 0.5,
    temperature: float = 1.0,
    is_expectation: bool = True,
    is_summed: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """AR2, the retriever's side: candidates that the ranker mistakes, and the ranker's own order.

    `w sum_k p_k r_k + (1 - w) sum_k -q_k log p_k` with `p = softmax(scores)`, the reward
    `r_k = log sigmoid(f_0 - f_k)` of the ranker's scores `f`, the log-likelihood that it tells
    the positive from candidate `k`, and the distillation target `q = softmax(f / temperature)`.

    Args:
      scores: the retriever's, of the positive and of retrieved documents, the positive in column 0
        [batch, candidates].
      ranker_scores: `f`, a constant for the gradient [batch, candidates].
      adversarial_weight: `w`, from 0 for distillation alone to 1.
      temperature: of the ranker's distribution.
      is_expectation: False takes `sum_k r_k log p_k` as the adversarial term, as the released code
        does; it is least at `p = r / sum(r)`.
      is_summed: whether the adversarial term counts once for each query of the batch, so that the
        mean of the losses has it summed and distillation averaged, as the released code.
      axis_name: the mesh axis whose devices share the batch, for that count.

    Returns:
      One loss a query [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Adversarial Retriever-Ranker for dense text retrieval, arXiv 2110.03611, Section 3; the
    released code is `AR2/wiki/co_training_wiki_train.py` of microsoft/AR2, which agrees in values
    and gradients but for 1e-7 added within its logarithms. The ranker's side is cross-entropy with
    the positive as its class.

    >>> scores = jnp.zeros((1, 2))
    >>> loss = adversarial_retriever_loss(scores, scores, adversarial_weight=0.25)
    >>> np.asarray(loss, float).round(4)
    array([0.3466])
    """
    check_floating(scores=scores, ranker_scores=ranker_scores)
    check_rank("scores", scores, 2)
    check(jnp.shape(scores)[1] > 0, "scores", "got no candidates, takes one or more")
    check_shape("ranker_scores", ranker_scores, jnp.shape(scores), "[batch, candidates], as scores")
    check_range("adversarial_weight", adversarial_weight, 0, 1)
    check_positive(temperature=temperature)
    s, f = upcast(scores, jax.lax.stop_gradient(ranker_scores))
    log_p = jax.nn.log_softmax(s, -1)
    reward = jax.nn.log_sigmoid(f[:, :1] - f)
    game = jnp.sum((jnp.exp(log_p) if is_expectation else log_p) * reward, -1)
    distillation = -jnp.sum(jax.nn.softmax(f / temperature, -1) * log_p, -1)
    count = rows_of_all(len(s), axis_name) if is_summed else 1
    loss = adversarial_weight * count * game + (1 - adversarial_weight) * distillation
    return restore(loss, scores)
