"""Declarations for the errors of verification."""

import numpy as np

from contracts.case import Bad, Case

PAIRS = 7


def pairs(rng):
    # Well separated numbers, so that half precision ranks alike.
    match = np.array([0, 1, 0, 1, 1, 0, 1], bool)
    return {"scores": rng.permutation(PAIRS).astype(np.float64) / 2, "is_match": match}


BAD = (
    Bad("scores: got dtype", {"scores": np.zeros(PAIRS, np.int32)}),
    Bad("scores: got shape", {"scores": np.zeros((PAIRS, 1))}),
    Bad("is_match: got shape", {"is_match": np.zeros(PAIRS + 1, bool)}),
    Bad("is_match: got dtype", {"is_match": np.zeros(PAIRS, np.int32)}),
)

CASES = [
    Case(
        "papyrax.metrics.verification_errors",
        pairs,
        ("scores",),
        differentiable=False,
        bad=(*BAD, Bad("thresholds", {"thresholds": np.zeros((2, 2))})),
    ),
    Case("papyrax.metrics.equal_error_rate", pairs, ("scores",), differentiable=False, bad=BAD),
    Case(
        "papyrax.metrics.VerificationErrors",
        lambda rng: {k: rng.uniform(size=3) for k in ("thresholds", "a", "b")},
        call=lambda cls, thresholds, a, b: cls(thresholds, a, b),
        differentiable=False,
    ),
]
