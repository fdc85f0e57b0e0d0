"""Errors of verification: whether two examples are of one class, by a threshold of their score."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)


class VerificationErrors(NamedTuple):
    """Errors by threshold, a detection error trade-off (DET) curve.

    Attributes:
      thresholds: a pair is accepted at a score of the threshold or above [thresholds].
      false_accept: share of the pairs of different classes that is accepted, FAR [thresholds].
      false_reject: share of the pairs of one class that is not, FRR [thresholds].
    """

    thresholds: Float[Array, "thresholds"]
    false_accept: Float[Array, "thresholds"]
    false_reject: Float[Array, "thresholds"]


def _rates(scores: Any, is_match: Any, thresholds: Any = None) -> tuple[Array, Array, Array]:
    check_floating(scores=scores)
    check_rank("scores", scores, 1)
    check(jnp.shape(scores)[0] > 0, "scores", "got no pairs, takes one or more")
    check_shape("is_match", is_match, jnp.shape(scores), "[pairs], one a score")
    match = jnp.asarray(is_match)
    check_boolean(is_match=match)
    x = upcast(scores)
    if thresholds is None:
        t = jnp.sort(x)
    else:
        check_floating(thresholds=thresholds)
        check_rank("thresholds", thresholds, 1)
        t = jnp.asarray(thresholds, x.dtype)

    def below(which: Array) -> tuple[Array, Array]:
        ascending = jnp.sort(jnp.where(which, x, jnp.inf))
        return jnp.searchsorted(ascending, t).astype(x.dtype), jnp.sum(which).astype(x.dtype)

    (rejected, matches), (rightly, others) = below(match), below(~match)
    return t, safe_divide(others - rightly, others), safe_divide(rejected, matches)


def verification_errors(
    scores: Float[Array, "pairs"],
    is_match: Bool[Array, "pairs"],
    thresholds: Float[Array, "thresholds"] | None = None,
) -> VerificationErrors:
    """False acceptance and false rejection at every threshold.

    `FAR(t) = |{s >= t, no match}| / |{no match}|` and `FRR(t) = |{s < t, match}| / |{match}|`.

    Args:
      scores: similarities of pairs [pairs]; minus a distance serves as well.
      is_match: whether the two are of one class [pairs].
      thresholds: where to look [thresholds]; at every score, in ascending order, for None.

    Returns:
      The thresholds and both rates, zero where there are no such pairs.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: The DET Curve in Assessment of Detection Task Performance (Martin et al., Eurospeech
    1997).

    >>> scores, is_match = jnp.array([0.9, 0.6, 0.4]), jnp.array([True, False, True])
    >>> errors = verification_errors(scores, is_match, jnp.array([0.5, 0.7]))
    >>> errors.false_accept.tolist(), errors.false_reject.tolist()
    ([1.0, 0.0], [0.5, 0.5])
    """
    return VerificationErrors(*(restore(a, scores) for a in _rates(scores, is_match, thresholds)))


def equal_error_rate(
    scores: Float[Array, "pairs"], is_match: Bool[Array, "pairs"]
) -> Float[Array, ""]:
    """The error rate at the threshold where false acceptance equals false rejection.

    Between the two thresholds where the rates cross, both are taken as straight lines.

    Args:
      scores: similarities of pairs [pairs].
      is_match: whether the two are of one class [pairs].

    Returns:
      The rate [], zero where there are no pairs of one kind.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: textbook definition, as on the DET curve of Martin et al., Eurospeech 1997.

    >>> scores = jnp.array([0.9, 0.7, 0.6, 0.2])
    >>> print(f"{equal_error_rate(scores, jnp.array([True, False, True, False])):.2f}")
    0.50
    """
    _, accept, reject = _rates(scores, is_match)
    # Above every score nothing is accepted.
    accept = jnp.append(accept, jnp.zeros((), accept.dtype))
    reject = jnp.append(reject, jnp.ones((), reject.dtype))
    gap = reject - accept
    after = jnp.maximum(jnp.argmax(gap >= 0), 1)
    before = after - 1
    share = safe_divide(-gap[before], gap[after] - gap[before])
    rate = accept[before] + share * (accept[after] - accept[before])
    both = jnp.any(jnp.asarray(is_match)) & jnp.any(~jnp.asarray(is_match))
    return restore(jnp.where(both, rate, 0), scores)
