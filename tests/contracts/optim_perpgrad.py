"""Declarations for perpGrad."""

from contracts.case import Bad, OptimizerCase

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_perpgrad",
        numeric=("eps",),
        static={"eps": 1e-30},
        descends=False,
        bad=(Bad("eps: got", {"eps": 0.0}), Bad("eps: got", {"eps": -1.0})),
    ),
    OptimizerCase(
        "papyrax.optim.perpgrad",
        static={"learning_rate": 1e-2},
        numeric=("learning_rate", "b1", "b2", "eps", "weight_decay"),
        bad=(
            Bad("learning_rate: got", {"learning_rate": -1e-3}),
            Bad("b1: got", {"b1": 1.0}),
            Bad("b2: got", {"b2": -0.1}),
            Bad("eps: got", {"eps": 0.0}),
            Bad("weight_decay: got", {"weight_decay": -1e-3}),
        ),
    ),
]
