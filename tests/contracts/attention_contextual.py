"""Declaration for the contextual attention of inpainting."""

import numpy as np

from contracts.case import Bad, Case


def image(rng):
    mask = np.ones((2, 5, 4), bool)
    mask[:, 2, 1:3] = False
    return {"features": rng.normal(size=(2, 5, 4, 2)), "mask": mask}


def both(rng):
    return {**image(rng), "foreground": rng.normal(size=(2, 5, 4, 2))}


CASES = [
    Case(
        "papyrax.attention.contextual_attention",
        both,
        ("features", "foreground"),
        {"scale": 5.0},
        bad=(
            Bad("features", {"features": np.ones((5, 4, 2))}),
            Bad("features", {"features": np.ones((2, 5, 4, 2), np.int32)}),
            Bad("mask", {"mask": np.ones((2, 5, 4))}),
            Bad("mask", {"mask": np.ones((2, 4, 5), bool)}),
            Bad("foreground", {"foreground": np.ones((2, 5, 4, 3))}),
            Bad("patch_size", {"patch_size": 2}),
            Bad("patch_size", {"patch_size": 5}),
            Bad("scale", {"scale": 0.0}),
            Bad("similarity", {"similarity": "dot"}),
        ),
    ),
    Case(
        "papyrax.attention.contextual_attention",
        image,
        ("features",),
        {"scale": 5.0, "similarity": "cosine", "complete_only": True},
        "cosine, complete patches",
    ),
]
