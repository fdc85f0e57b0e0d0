"""Declarations for optimizers on manifolds."""

from contracts.case import Bad, OptimizerCase

CASES = [
    OptimizerCase(
        "papyrax.optim.grassmann_sgd",
        static={"learning_rate": 1e-2},
        numeric=("learning_rate", "momentum", "weight_decay"),
        descends=False,  # the suite's matrices are not orthonormal until the first step
        bad=(
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("momentum: got", {"momentum": 1.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
            Bad("retraction: got", {"retraction": "cayley"}),
        ),
    ),
]
