"""Comp-sum losses: one family from the sum of exponentials over cross-entropy to the mean error."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_positive,
    check_range,
    restore,
    safe_norm,
    safe_sqrt,
    upcast,
)
from ._shared import (
    check_labels,
    class_mask,
    exp_with_linear_tail,
    keep_present,
    others_log_odds,
    pick,
    softplus,
)


def _compose(log_odds: Float[Array, "..."], order: Any) -> Float[Array, "..."]:
    """`((1 + S)^(1 - order) - 1) / (1 - order)` from `log S`; `log(1 + S)` at order one."""
    surprise = softplus(log_odds)
    power = 1 - jnp.asarray(order, surprise.dtype)
    u = power * surprise
    growth = exp_with_linear_tail(u, minus_one=True)
    # Near order one (exp(u) - 1) / u by its series, which has a derivative by the order there.
    small = jnp.abs(u) < 1e-3
    series = 1 + u / 2 * (1 + u / 3 * (1 + u / 4))
    return jnp.where(small, surprise * series, growth / jnp.where(power == 0, 1, power))


def comp_sum_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    order: float = 1.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """The comp-sum loss of an order: cross-entropy at 1, the mean absolute error at 2.

    With `S = sum_{j != y} exp(z_j - z_y)` and the label's probability `p = 1 / (1 + S)`,
    `((1 + S)^(1 - order) - 1) / (1 - order) = (p^(order - 1) - 1) / (1 - order)`; its limit
    `log(1 + S)` at order 1. Order 0 is the sum-exponential loss `S`, orders between 1 and 2 are
    generalized cross-entropy with `q = order - 1`, order 2 is `1 - p`. The larger the order, the
    less a wrong label weighs; from 1 on the loss is bounded by `1 / (order - 1)`.

    Below order 1 the loss grows exponentially with the logits. Where that leaves the range of the
    dtype it goes on along its tangent, so that value and gradient stay finite.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      order: the family's parameter (tau), zero or more.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, `logits` is not floating point, `labels` not integer or
        `order` is negative.

    Source: Cross-Entropy Loss Functions: Theoretical Analysis and Applications, arXiv 2304.07288,
    the definition of comp-sum losses.

    >>> loss = comp_sum_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]), order=2.0)
    >>> np.asarray(loss, float).round(3)
    array([0.75])
    """
    check_labels(logits, labels)
    check_range("order", order, 0)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    loss = _compose(others_log_odds(upcast(logits), labels, mask), order)
    return restore(keep_present(loss, labels, mask), logits)


def generalized_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    exponent: float = 0.7,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy made robust to wrong labels: between it and the mean absolute error.

    `(1 - p^q) / q` with the label's probability `p`; the comp-sum loss of order `1 + q`.

    Args:
      logits: scores [..., classes].
      labels: the given class of each example, from 0 on [...].
      exponent: `q` in [0, 1]: 0 is cross-entropy, 1 is `1 - p`.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, `logits` is not floating point, `labels` not integer or
        `exponent` is outside [0, 1].

    Source: Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels,
    arXiv 1805.07836, equation 6.

    >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
    >>> np.asarray(generalized_cross_entropy(logits, jnp.array([0]), exponent=0.5), float).round(3)
    array([1.])
    """
    check_range("exponent", exponent, 0, 1)
    return comp_sum_loss(logits, labels, order=1 + exponent, where=where)


def smooth_adversarial_comp_sum_loss(
    logits: Float[Array, "... classes"],
    adversarial_logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    order: float = 1.0,
    margin: float = 1.0,
    smoothness: float = 1.0,
) -> Float[Array, "..."]:
    """A comp-sum loss plus how far an attack moves the margins: for adversarially robust training.

    With the margins `D(x)_j = z_y(x) - z_j(x)`, `j != y`,
    `Phi(sum_{j != y} exp(-D(x)_j / margin)) + smoothness * |D(x') - D(x)|_2`, where `Phi` makes a
    comp-sum loss of a sum. The paper's loss is its maximum over the attacked inputs `x'` of a ball
    around `x`. The first term does not depend on `x'`, so gradient ascent on this very function by
    `x'` is the attack.

    Args:
      logits: scores of the clean inputs [..., classes].
      adversarial_logits: scores of the attacked inputs [..., classes].
      labels: the right class of each example, from 0 on [...].
      order: order of the comp-sum loss (tau), zero or more.
      margin: the margin at which an example counts as learned (rho).
      smoothness: weight of the second term (nu).

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter is out of range.

    Source: Cross-Entropy Loss Functions: Theoretical Analysis and Applications, arXiv 2304.07288,
    smooth adversarial comp-sum losses. The paper's code is not public; it gives no weights for its
    experiments that we know of, so the defaults are ours.

    >>> clean, attacked = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> loss = smooth_adversarial_comp_sum_loss(clean, attacked, jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([1.127])
    """
    check_labels(logits, labels)
    check_floating(adversarial_logits=adversarial_logits)
    check(
        jnp.shape(adversarial_logits) == jnp.shape(logits),
        "adversarial_logits",
        f"got shape {jnp.shape(adversarial_logits)}, takes {jnp.shape(logits)}, as logits",
    )
    check_range("order", order, 0)
    check_positive(margin=margin)
    check_range("smoothness", smoothness, 0)
    labels = jnp.asarray(labels)
    clean, attacked = upcast(logits, adversarial_logits)
    first = _compose(others_log_odds(clean / margin, labels), order)
    moved = attacked - clean
    # The label's own entry is zero and adds nothing.
    second = safe_norm(pick(moved, labels)[..., None] - moved)
    return restore(first + smoothness * second, logits, adversarial_logits)


def comp_sum_regret_bound(
    regret: Float[Array, "..."], *, order: float, classes: int
) -> Float[Array, "..."]:
    """The largest excess error that a given excess of a comp-sum loss leaves possible.

    `sqrt(2^t (2 - t) r)` for orders `t` in [0, 1), `sqrt(2 n^(t - 1) r)` in [1, 2), and
    `n^(t - 1) r` from 2 on, with `n` classes. A classifier whose conditional comp-sum loss is `r`
    above the best possible errs at most so much more often than the best classifier.

    Args:
      regret: excess of the comp-sum loss, zero or more [...].
      order: order of the comp-sum loss (tau), zero or more.
      classes: number of classes, two or more.

    Returns:
      Bounds of the shape [...] of `regret`; a negative regret counts as zero.

    Raises:
      ValueError: if `regret` is not floating point, `order` negative or `classes` below two.

    Source: Cross-Entropy Loss Functions: Theoretical Analysis and Applications, arXiv 2304.07288,
    theorem 3.1, without minimizability gaps (the family of all measurable functions).

    >>> round(float(comp_sum_regret_bound(jnp.array(0.02), order=1.0, classes=10)), 3)
    0.2
    """
    check_floating(regret=regret)
    check_range("order", order, 0)
    check_count(classes=classes)
    check(classes >= 2, "classes", f"got {classes}, takes 2 or more")
    x = jnp.maximum(upcast(regret), 0)
    t = jnp.asarray(order, x.dtype)
    power = classes ** (t - 1)
    factor = jnp.where(t < 1, 2**t * (2 - t), 2 * power)
    return restore(jnp.where(t < 2, safe_sqrt(factor * x), power * x), regret)
