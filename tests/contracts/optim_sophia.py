"""Declarations for Sophia."""

from contracts.case import Bad, OptimizerCase
from papyrax.curvature import value_grad_and_diag


def with_curvature(loss, params, batch, key):
    return {"curvature": value_grad_and_diag(loss)(params, batch, key=key)[2]}


RULE_BAD = (
    Bad("b1: got", {"b1": 1.0}),
    Bad("b2: got", {"b2": -0.1}),
    Bad("eps: got", {"eps": 0.0}),
    Bad("gamma: got", {"gamma": -1.0}),
    Bad("clip_threshold: got", {"clip_threshold": 0.0}),
    Bad("form: got", {"form": "optax"}),
)
BAD = (
    *RULE_BAD,
    Bad("learning_rate: got", {"learning_rate": -1.0}),
    Bad("weight_decay: got", {"weight_decay": -1.0}),
)
NUMERIC = ("b1", "b2", "eps", "gamma", "clip_threshold")

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_sophia",
        {"b1": 0.9},
        numeric=(*NUMERIC, "update_interval", "seed"),
        extra=with_curvature,
        descends=False,
        bad=(*RULE_BAD, Bad("update_interval: got", {"update_interval": 0})),
    ),
    OptimizerCase(
        "papyrax.optim.sophia_h",
        {"learning_rate": 0.02},
        numeric=("learning_rate", "weight_decay", *NUMERIC),
        extra=with_curvature,
        bad=BAD,
    ),
    OptimizerCase(
        "papyrax.optim.sophia_g",
        {"learning_rate": 0.02},
        numeric=("learning_rate", "weight_decay", *NUMERIC),
        extra=with_curvature,
        bad=BAD,
    ),
]
