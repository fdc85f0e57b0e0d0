"""Declarations for coordinate-wise clipping."""

from contracts.case import Bad, OptimizerCase

CASES = [
    OptimizerCase(
        "papyrax.optim.coordinate_clip",
        {"fraction": 0.9},
        numeric=("fraction", "threshold_scale"),
        descends=False,
        bad=(
            Bad("fraction: got", {"fraction": 1.5}),
            Bad("fraction: got", {"fraction": -0.1}),
            Bad("threshold: got", {"threshold": -1.0}),
            Bad("threshold_scale: got", {"threshold_scale": -1.0}),
            Bad("scope: got", {"scope": "row"}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.diminishing_radius",
        {"radius": 1.0, "decay": 0.9},
        numeric=("radius", "decay"),
        descends=False,
        bad=(
            Bad("radius: got", {"radius": -1.0}),
            Bad("decay: got", {"decay": -1.0}),
        ),
    ),
]
