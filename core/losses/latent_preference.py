"""Preferences in latent space: what a frozen model's layers say of safe and adversarial answers.

The losses are those of GRACE. They follow the code of one of its authors, vinija/alkali, written
before the paper, whose text was not at hand: margins and weights are that code's, and those of
the paper's experiments are unknown.
"""

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
    safe_norm,
    upcast,
)
from ._shared import softplus
from .preference import check_same_shape

PerPair = Float[Array, "..."]
Embeddings = Float[Array, "batch features"]


def layerwise_pool(
    hidden: Float[Array, "layers ... features"],
    profile: Float[Array, "layers"],
    *,
    temperature: float = 1.0,
) -> Float[Array, "... features"]:
    """One embedding from all layers of a frozen model, by weights on the layers that are learned.

    `sum_l a_l h_l` with `a = softmax(profile / temperature)`.

    Args:
      hidden: the hidden states of every layer, as a rule the means over an answer's tokens;
        constants for the gradient [layers, ..., features].
      profile: what is learned [layers]; zeros weigh all layers alike.
      temperature: lower makes the weights differ more.

    Returns:
      Embeddings [..., features].

    Raises:
      ValueError: if a shape, a dtype or `temperature` does not fit.

    Source: AdversariaL attacK sAfety aLIgnment (ALKALI), arXiv 2506.08885, the layerwise pooling
    of GRACE; `LayerwiseAttentionPooler` in vinija/alkali. Its `MultiHeadLayerwiseAttentionPooler`
    is several of these side by side, projected, with the mean of all layers added.

    >>> h = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> layerwise_pool(h, jnp.zeros(2)).tolist()
    [[0.5, 0.5]]
    """
    check_floating(hidden=hidden, profile=profile)
    check_rank("hidden", hidden, 2, at_least=True)
    check(jnp.shape(hidden)[0] > 0, "hidden", "got no layers, takes one or more")
    check_shape("profile", profile, jnp.shape(hidden)[:1], "[layers], one a layer of hidden")
    check_positive(temperature=temperature)
    h, a = upcast(jax.lax.stop_gradient(hidden), profile)
    return restore(jnp.tensordot(jax.nn.softmax(a / temperature), h, 1), hidden, profile)


def relaxed_preference_loss(
    chosen: PerPair,
    rejected: PerPair,
    reference_chosen: PerPair,
    reference_rejected: PerPair,
    *,
    reference_weight: float = 0.9,
) -> PerPair:
    """DPO with a reference that counts for less.

    `-log sigmoid((s_w - s_l) - a (r_w - r_l))` of the policy's scores `s` and the reference's `r`.
    With `a = 1` it is `dpo_loss` with `beta = 1`, with `a = 0` logistic regression on pairs.

    Args:
      chosen: the policy's score or log-probability of the preferred answer [...].
      rejected: the policy's of the other [...].
      reference_chosen: the reference's of the preferred answer; a constant for the gradient [...].
      reference_rejected: the reference's of the other; a constant for the gradient [...].
      reference_weight: `a`; 0.8 in the later file of the code.

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or `reference_weight` does not fit.

    Source: AdversariaL attacK sAfety aLIgnment (ALKALI), arXiv 2506.08885, the preference term of
    GRACE; `GRACELoss.preference_loss` in vinija/alkali agrees in values and gradients.

    >>> x = jnp.array([0.0])
    >>> loss = relaxed_preference_loss(x + 1, x, x + 1, x, reference_weight=1.0)
    >>> np.asarray(loss, float).round(3)
    array([0.693])
    """
    check_same_shape(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    check_range("reference_weight", reference_weight, 0)
    w, l = upcast(chosen, rejected)
    rw, rl = jax.lax.stop_gradient(upcast(reference_chosen, reference_rejected))
    return restore(softplus(reference_weight * (rw - rl) - (w - l)), chosen, rejected)


def grace_loss(
    safe: Embeddings,
    unsafe: Embeddings,
    jailbreak: Embeddings,
    preference: Float[Array, "batch"],
    *,
    separation_weight: float = 1.0,
    merge_weight: float = 1.0,
    separation_margin: float = 5.0,
    merge_margin: float = 1.0,
) -> Float[Array, "batch"]:
    """GRACE: a preference, safe answers apart from adversarial ones, and these together.

    `p + w_s ([M - |s - u|]_+ + [M - |s - j|]_+) / 2 + w_m [|u - j| - m]_+` of the pooled embeddings
    of a safe, an unsafe and a jailbroken answer to a prompt. A jailbreak that hides among the safe
    answers is to be found among the unsafe ones.

    Args:
      safe: `s`, of each prompt's safe answer, as of `layerwise_pool` [batch, features].
      unsafe: `u`, of its unsafe answer [batch, features].
      jailbreak: `j`, of its answer under attack [batch, features].
      preference: `p`, a loss of preferring the safe answer, such as `relaxed_preference_loss` or
        `dpo_loss` [batch].
      separation_weight: `w_s`; with both weights zero nothing but the preference is left.
      merge_weight: `w_m`.
      separation_margin: `M`, the distance from which on answers are apart.
      merge_margin: `m`, the distance up to which answers are together.

    Returns:
      One loss a prompt [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: AdversariaL attacK sAfety aLIgnment (ALKALI), arXiv 2506.08885, GRACE; `GRACELoss` in
    vinija/alkali, a mean over the batch, agrees in values and gradients but for the 1e-6 that
    it adds to every difference. Left out is what a later file of it adds with a weight of
    0.1: the divergence of two softmaxes over the batch of the policy's scores.

    >>> s, u, j = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> grace_loss(s, u, j, jnp.array([0.5])).tolist()  # 0.5 + (2 + 0) / 2 + (4 - 1)
    [4.5]
    """
    _check_answers(safe=safe, unsafe=unsafe, jailbreak=jailbreak)
    check_floating(preference=preference)
    check_shape("preference", preference, jnp.shape(safe)[:1], "[batch], one a row of safe")
    check_range("separation_weight", separation_weight, 0)
    check_range("merge_weight", merge_weight, 0)
    check_range("separation_margin", separation_margin, 0)
    check_range("merge_margin", merge_margin, 0)
    s, u, j, p = upcast(safe, unsafe, jailbreak, preference)
    near = jax.nn.relu(separation_margin - safe_norm(s - u))
    hidden = jax.nn.relu(separation_margin - safe_norm(s - j))
    apart = jax.nn.relu(safe_norm(u - j) - merge_margin)
    loss = p + separation_weight * (near + hidden) / 2 + merge_weight * apart
    return restore(loss, safe, unsafe, jailbreak, preference)


def _check_answers(**embeddings: Any) -> None:
    check_floating(**embeddings)
    (first, x), *others = embeddings.items()
    check_rank(first, x, 2)
    for name, y in others:
        check_shape(name, y, jnp.shape(x), f"[batch, features], as {first}")
