"""Declarations for Kar."""

from contracts.case import Bad, OptimizerCase

DECAYS = (Bad("decays: got", {"decays": (1.0,)}), Bad("decays: got", {"decays": ()}))

CASES = [
    OptimizerCase("papyrax.optim.scale_by_kar", {"decays": (0.9,)}, descends=False, bad=DECAYS),
    OptimizerCase(
        "papyrax.optim.kar",
        {"learning_rate": 0.01},
        numeric=("learning_rate", "weight_decay"),
        bad=(
            *DECAYS,
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
        ),
    ),
]
