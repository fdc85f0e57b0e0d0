"""Losses that learn from preferences: which of two answers is the better one.

Arguments are log-probabilities of whole answers, as `sequence_log_probability` gives them: sums
over the tokens for `dpo_loss` and `kto_loss`, means for `ipo_loss`, `orpo_loss` and `simpo_loss`.
Those of the reference model enter as given: it is not trained, so differentiate by the policy's
alone. `dpo_loss` with zeros for the reference is the preference term of CPO.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import pick, softplus

PerPair = Float[Array, "..."]


def check_same_shape(**arrays: Any) -> None:
    """Raise unless all are floating point and of the shape of the first."""
    check_floating(**arrays)
    (first, x), *others = arrays.items()
    for name, y in others:
        check_shape(name, y, jnp.shape(x), f"[...], as {first}")


def sequence_log_probability(
    logits: Float[Array, "... length vocabulary"],
    tokens: Int[Array, "... length"],
    *,
    where: Bool[Array, "... length"] | None = None,
    average: bool = False,
) -> Float[Array, "..."]:
    """Log-probability of a sequence of tokens under a model.

    `sum_t log softmax(z_t)[y_t]` over the tokens of the answer, or their mean.

    Args:
      logits: the scores for each token, already shifted: those at a position are for the token at
        that position [..., length, vocabulary].
      tokens: the tokens [..., length].
      where: which tokens belong to the answer (not to prompt or padding) [..., length].
      average: divide by the number of tokens.

    Returns:
      One log-probability a sequence [...], zero for one without tokens.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: textbook definition.

    >>> x = sequence_log_probability(jnp.zeros((3, 2)), jnp.array([0, 1, 1]))
    >>> print(f"{x:.3f}")
    -2.079
    """
    check_floating(logits=logits)
    check_rank("logits", logits, 2, at_least=True)
    shape = jnp.shape(logits)[:-1]
    check_integer(tokens=tokens)
    check_shape("tokens", tokens, shape, "[..., length], one a row of logits")
    z = upcast(logits)
    each = pick(jax.nn.log_softmax(z), jnp.asarray(tokens))
    mask = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    check_boolean(where=mask)
    check_shape("where", mask, shape, "[..., length], as tokens")
    total = jnp.sum(jnp.where(mask, each, 0), -1)
    if average:
        total = total / jnp.maximum(jnp.sum(mask, -1), 1)
    return restore(total, logits)


def dpo_loss(
    chosen: PerPair,
    rejected: PerPair,
    reference_chosen: PerPair,
    reference_rejected: PerPair,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    length_difference: PerPair | None = None,
    length_weight: float = 0.05,
) -> PerPair:
    """DPO, and with lengths R-DPO: the preferred answer gains more over the reference.

    With `h = (log p(w) - log p(l)) - (log p_ref(w) - log p_ref(l))`, `-log sigmoid(beta h)`;
    smoothed `-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)`. R-DPO adds
    `alpha (|w| - |l|)` inside the sigmoid, so that less is learned from a long winner.

    Args:
      chosen: the policy's log-probability of the preferred answer [...].
      rejected: the policy's log-probability of the other [...].
      reference_chosen: the reference model's for the preferred answer [...].
      reference_rejected: the reference model's for the other [...].
      beta: how far the policy may leave the reference, inversely.
      label_smoothing: `e`, the share of preferences that are the wrong way round.
      length_difference: tokens of the preferred answer less those of the other [...]; None for DPO.
      length_weight: `alpha` of R-DPO.

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Direct Preference Optimization, arXiv 2305.18290, Eq. 7; with label smoothing,
    conservative DPO; with lengths, Disentangling Length from Quality in Direct Preference
    Optimization, arXiv 2403.19159. `scripts/rdpo_trainer.py` of StanfordMIMI/CheXalign agrees, but
    leaves the sign of the length as it is in the smoothed half, where it is flipped
    here with the pair.

    >>> x = jnp.array([-1.0])
    >>> np.asarray(dpo_loss(x, x - 3, x, x, beta=1.0), float).round(3)
    array([0.049])
    """
    check_same_shape(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    check_positive(beta=beta)
    check_range("label_smoothing", label_smoothing, 0, 0.5)
    check_range("length_weight", length_weight, 0)
    w, l, rw, rl = upcast(chosen, rejected, reference_chosen, reference_rejected)
    logit = beta * ((w - l) - (rw - rl))
    if length_difference is not None:
        check_shape("length_difference", length_difference, jnp.shape(chosen), "[...], as chosen")
        logit += length_weight * jnp.asarray(length_difference, logit.dtype)
    loss = (1 - label_smoothing) * softplus(-logit) + label_smoothing * softplus(logit)
    return restore(loss, chosen, rejected, reference_chosen, reference_rejected)


def ipo_loss(
    chosen: PerPair,
    rejected: PerPair,
    reference_chosen: PerPair,
    reference_rejected: PerPair,
    *,
    beta: float = 0.1,
) -> PerPair:
    """IPO: the preferred answer is to gain a fixed margin over the reference, and no more.

    `(h - 1 / (2 beta))^2` with `h = (log p(w) - log p(l)) - (log p_ref(w) - log p_ref(l))`.

    Args:
      chosen: the policy's log-probability of the preferred answer [...].
      rejected: the policy's log-probability of the other [...].
      reference_chosen: the reference model's for the preferred answer [...].
      reference_rejected: the reference model's for the other [...].
      beta: `tau`, the strength of the pull to the reference.

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or `beta` does not fit.

    Source: A General Theoretical Paradigm to Understand Learning from Human Preferences, arXiv
    2310.12036, Eq. 17. `scripts/rdpo_trainer.py` of StanfordMIMI/CheXalign agrees, on means over
    tokens.

    >>> x = jnp.array([-1.0])
    >>> np.asarray(ipo_loss(x, x - 5, x, x), float).round(3)
    array([0.])
    """
    check_same_shape(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    check_positive(beta=beta)
    w, l, rw, rl = upcast(chosen, rejected, reference_chosen, reference_rejected)
    loss = jnp.square((w - l) - (rw - rl) - 1 / (2 * beta))
    return restore(loss, chosen, rejected, reference_chosen, reference_rejected)


def kto_loss(
    log_probability: PerPair,
    reference: PerPair,
    desirable: Bool[Array, "..."],
    baseline: Float[Array, ""],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> PerPair:
    """KTO: answers that are only known to be good or bad, without pairs.

    With `r = log p(y) - log p_ref(y)` and a reference point `z`,
    `w_d (1 - sigmoid(beta (r - z)))` for good, `w_u (1 - sigmoid(beta (z - r)))` for bad answers.

    Args:
      log_probability: the policy's log-probability of the answers [...].
      reference: the reference model's [...].
      desirable: which answers are good [...].
      baseline: `z`, an estimate of the divergence of policy and reference, such as the mean of `r`
        over mismatched prompts and answers, zero at least []; no gradient goes through it.
      beta: how far the policy may leave the reference, inversely.
      desirable_weight: `w_d`.
      undesirable_weight: `w_u`.

    Returns:
      One loss an answer [...].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: KTO: Model Alignment as Prospect Theoretic Optimization, arXiv 2402.01306, Eq. 8.
    `kto_pair` in `scripts/rdpo_trainer.py` of StanfordMIMI/CheXalign is this with the mean of the
    rejected half as the baseline of the chosen one and the other way round, and lets gradients
    through them.

    >>> x = jnp.array([0.0, 0.0])
    >>> kto_loss(x, x, jnp.array([True, False]), jnp.array(0.0)).tolist()
    [0.5, 0.5]
    """
    check_same_shape(log_probability=log_probability, reference=reference)
    check_floating(baseline=baseline)
    check_shape("baseline", baseline, (), "[]")
    good = jnp.asarray(desirable)
    check_boolean(desirable=good)
    check_shape("desirable", good, jnp.shape(log_probability), "[...], as log_probability")
    check_positive(beta=beta)
    check_range("desirable_weight", desirable_weight, 0)
    check_range("undesirable_weight", undesirable_weight, 0)
    p, q, z = upcast(log_probability, reference, baseline)
    gain = beta * (p - q - jax.lax.stop_gradient(jnp.maximum(z, 0)))
    loss = jnp.where(
        good,
        desirable_weight * jax.nn.sigmoid(-gain),
        undesirable_weight * jax.nn.sigmoid(gain),
    )
    return restore(loss, log_probability, reference)


def _log_odds(log_p: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log(p / (1 - p))` from `log p`, finite also at and above certainty."""
    # A mean log-probability that rounds to zero has no odds: it is kept one rounding below.
    log_p = jnp.minimum(log_p, -jnp.finfo(log_p.dtype).eps)
    return log_p - jnp.log(-jnp.expm1(log_p))


def orpo_loss(chosen: PerPair, rejected: PerPair, *, beta: float = 0.1) -> PerPair:
    """ORPO: supervised fine-tuning and an odds ratio, without a reference model.

    `-log p(w) - beta log sigmoid(log (p(w) / (1 - p(w))) - log (p(l) / (1 - p(l))))` with `p` the
    geometric mean of the tokens' probabilities.

    Args:
      chosen: mean log-probability of the tokens of the preferred answer, zero or less [...].
      rejected: mean log-probability of the tokens of the other, zero or less [...].
      beta: the weight of the odds ratio (lambda).

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or `beta` does not fit.

    Source: ORPO: Monolithic Preference Optimization without Reference Model, arXiv 2403.07691,
    Eq. 6 and 7.

    >>> x = jnp.log(jnp.array([0.5]))
    >>> np.asarray(orpo_loss(x, x, beta=1.0), float).round(3)
    array([1.386])
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    check_range("beta", beta, 0)
    w, l = upcast(chosen, rejected)
    loss = -w + beta * softplus(_log_odds(l) - _log_odds(w))
    return restore(loss, chosen, rejected)


def simpo_loss(
    chosen: PerPair, rejected: PerPair, *, beta: float = 2.0, margin: float = 1.0
) -> PerPair:
    """SimPO: a margin between length-normalized log-probabilities, without a reference model.

    `-log sigmoid(beta (log p(w) / |w| - log p(l) / |l|) - margin)`.

    Args:
      chosen: mean log-probability of the tokens of the preferred answer [...].
      rejected: mean log-probability of the tokens of the other [...].
      beta: the scale of the reward.
      margin: gamma, by how much the preferred answer's reward is to lead.

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: SimPO: Simple Preference Optimization with a Reference-Free Reward, arXiv 2405.14734,
    Eq. 6; the paper tunes beta from 2 to 2.5 and margin from 0.3 to 1.6.

    >>> x = jnp.array([-1.0])
    >>> np.asarray(simpo_loss(x, x - 0.5), float).round(3)
    array([0.693])
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    check_positive(beta=beta)
    check_range("margin", margin, 0)
    w, l = upcast(chosen, rejected)
    return restore(softplus(margin - beta * (w - l)), chosen, rejected)


class PreferencePairs(NamedTuple):
    """The best and the worst of several answers.

    Attributes:
      chosen: which answer has the highest reward [...].
      rejected: which has the lowest [...].
      keep: whether the two are far enough apart to learn from [...].
    """

    chosen: Int[Array, "..."]
    rejected: Int[Array, "..."]
    keep: Bool[Array, "..."]


def best_worst_pairs(
    rewards: Float[Array, "... answers"], *, threshold: float = 1e-8
) -> PreferencePairs:
    """Preference pairs from a judge: the best of several answers against the worst.

    `w = argmax_n r_n`, `l = argmin_n r_n`, kept where `r_w - r_l > threshold`.

    Args:
      rewards: the judge's score of each answer [..., answers].
      threshold: how far best and worst must be apart.

    Returns:
      `PreferencePairs` of chosen [...], rejected [...] and keep [...].

    Raises:
      ValueError: if `rewards` is not floating point or has no answers, or `threshold` is negative.

    Source: Preference Fine-Tuning for Factuality in Chest X-Ray Interpretation Models Without Human
    Feedback, arXiv 2410.07025, with four answers each; `auxiliary_scripts/get_preference.py` of
    StanfordMIMI/CheXalign agrees.

    >>> pairs = best_worst_pairs(jnp.array([[0.2, 0.9, 0.1], [0.5, 0.5, 0.5]]))
    >>> pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.keep.tolist()
    ([1, 0], [2, 0], [True, False])
    """
    check_floating(rewards=rewards)
    check_rank("rewards", rewards, 1, at_least=True)
    check(jnp.shape(rewards)[-1] > 0, "rewards", "got no answers, takes one or more")
    check_range("threshold", threshold, 0)
    r = upcast(rewards)
    spread = jnp.max(r, -1) - jnp.min(r, -1)
    return PreferencePairs(jnp.argmax(r, -1), jnp.argmin(r, -1), spread > threshold)
