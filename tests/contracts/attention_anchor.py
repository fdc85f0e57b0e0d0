"""Declaration for attention through anchor points."""

import numpy as np

from contracts.case import Bad, Case


def points(rng):
    return {
        "query": rng.normal(size=(2, 5, 2, 3)),
        "key": rng.normal(size=(2, 4, 1, 3)),
        "value": rng.normal(size=(2, 4, 1, 2)),
        "anchors": np.stack([rng.permutation(4)[:3] for _ in range(2)]),
        "mask": np.array([[1, 1, 0], [1, 1, 1]], bool)[:, None, None],
    }


CASES = [
    Case(
        "papyrax.attention.anchor_attention",
        points,
        ("query", "key", "value"),
        bad=(
            Bad("query", {"query": np.ones((5, 2, 3))}),
            Bad("key", {"key": np.ones((2, 4, 1, 4))}),
            Bad("value", {"value": np.ones((2, 3, 1, 2))}),
            Bad("anchors", {"anchors": np.ones((3, 3), np.int32)}),
            Bad("anchors", {"anchors": np.ones((2, 3))}),
            Bad("bias", {"bias": np.ones((2, 2, 5, 4))}),
            Bad("mask", {"mask": np.ones((2, 2, 5, 4), bool)}),
            Bad("is_causal", {"is_causal": True}),
        ),
    )
]
