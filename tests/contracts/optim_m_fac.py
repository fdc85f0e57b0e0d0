"""Declarations for M-FAC."""

from contracts.case import Bad, OptimizerCase

RULE_BAD = (
    Bad("damping: got", {"damping": 0.0}),
    Bad("window: got", {"window": 0}),
    Bad("blocks: got", {"blocks": "rows"}),
    Bad("buffer_dtype: got", {"buffer_dtype": "int8"}),
)

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_m_fac",
        {"damping": 0.1, "window": 4},
        numeric=("damping",),
        descends=False,
        bad=RULE_BAD,
    ),
    OptimizerCase(
        "papyrax.optim.m_fac",
        {"learning_rate": 0.1, "damping": 0.1, "window": 4, "blocks": "leaf"},
        numeric=("learning_rate", "damping", "momentum", "weight_decay"),
        bad=(
            *RULE_BAD,
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("momentum: got", {"momentum": 1.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
        ),
    ),
]
