"""Declarations for AdaHessian."""

from contracts.case import Bad, OptimizerCase
from papyrax.curvature import value_grad_and_diag


def with_curvature(loss, params, batch, key):
    return {"curvature": value_grad_and_diag(loss)(params, batch, key=key)[2]}


RULE_BAD = (
    Bad("b1: got", {"b1": 1.0}),
    Bad("b2: got", {"b2": -0.1}),
    Bad("eps: got", {"eps": -1.0}),
    Bad("hessian_power: got", {"hessian_power": 1.5}),
    Bad("min_curvature: got", {"min_curvature": -1.0}),
    Bad("relative_floor: got", {"relative_floor": -1.0}),
    Bad("update_interval: got", {"update_interval": 0}),
    Bad("average: got", {"average": "rows"}),
    Bad("average_of: got", {"average_of": "square"}),
)
NUMERIC = ("b1", "b2", "eps", "hessian_power", "min_curvature", "relative_floor", "seed")

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_adahessian",
        {"b1": 0.9},
        numeric=NUMERIC,
        extra=with_curvature,
        descends=False,
        bad=RULE_BAD,
    ),
    OptimizerCase(
        "papyrax.optim.adahessian",
        {"learning_rate": 0.05, "weight_decay": 1e-3},
        numeric=("learning_rate", "weight_decay", *NUMERIC),
        extra=with_curvature,
        bad=(
            *RULE_BAD,
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
        ),
    ),
]
