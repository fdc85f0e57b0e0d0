"""Declarations for areas under receiver operating characteristic curves."""

import numpy as np

from contracts.case import Bad, Case

N = 9


def ranked(rng):
    # Well separated numbers, so that half precision ranks alike.
    clicked = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0], bool)
    return {"scores": rng.permutation(N).astype(np.float64) / 2, "is_positive": clicked}


def users(rng):
    return {**ranked(rng), "groups": np.array([0, 0, 0, 1, 1, 1, 3, 3, 3], np.int32)}


BAD = (
    Bad("scores: got dtype", {"scores": np.zeros(N, np.int32)}),
    Bad("scores: got shape", {"scores": np.zeros((N, 1))}),
    Bad("is_positive: got shape", {"is_positive": np.zeros(N + 1, bool)}),
    Bad("is_positive: got dtype", {"is_positive": np.zeros(N, np.int32)}),
)

CASES = [
    Case("papyrax.metrics.roc_auc", ranked, ("scores",), differentiable=False, bad=BAD),
    Case(
        "papyrax.metrics.grouped_roc_auc",
        users,
        ("scores",),
        {"num_groups": 4},
        differentiable=False,
        bad=(
            *BAD,
            Bad("groups: got dtype", {"groups": np.zeros(N)}),
            Bad("groups: got shape", {"groups": np.zeros(2, np.int32)}),
            Bad("num_groups: got", {"num_groups": 0}),
            Bad("weights: got", {"weights": "users"}),
        ),
    ),
    Case(
        "papyrax.metrics.relative_improvement",
        lambda rng: {"area": rng.uniform(0.6, 1, 5), "baseline": rng.uniform(0.6, 1, 5)},
        ("area", "baseline"),
        bad=(
            Bad("area: got dtype", {"area": np.ones(5, np.int32)}),
            Bad("baseline: got dtype", {"baseline": np.ones(5, np.int32)}),
        ),
    ),
]
