"""Declarations for penalties on parameters."""

import numpy as np

from contracts.case import Bad, Case


def embeddings(rng):
    return {
        "table": rng.normal(size=(6, 3)),
        "ids": np.array([[0, 2, 2], [5, 1, 0]], np.int32),
        "counts": np.array([4, 1, 7, 2, 0, 3], np.int32),
        "where": np.array([[1, 1, 1], [1, 0, 1]], bool),
    }


def of_blocks(fn, first, second, third, **kwargs):
    return fn([first, second, third], **kwargs)


def blocks(rng):
    shapes = {"first": (2, 3, 2), "second": (2, 3, 2), "third": (2, 3, 4)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def proxies(rng):
    return {"proxies": rng.normal(size=(4, 3))}


BAD_PROXIES = (
    Bad("proxies: got dtype", {"proxies": np.ones((4, 3), np.int32)}),
    Bad("proxies: got shape", {"proxies": np.ones(4)}),
)

CASES = [
    Case("papyrax.losses.regular_face_penalty", proxies, ("proxies",), bad=BAD_PROXIES),
    Case("papyrax.losses.center_invariant_penalty", proxies, ("proxies",), bad=BAD_PROXIES),
    Case(
        "papyrax.losses.mini_batch_aware_l2",
        embeddings,
        ("table",),
        rows=None,
        bad=(
            Bad("table: got", {"table": np.ones(3)}),
            Bad("table: got dtype", {"table": np.ones((6, 3), np.int32)}),
            Bad("ids: got dtype", {"ids": np.ones((2, 3))}),
            Bad("counts: got shape", {"counts": np.ones(5, np.int32)}),
            Bad("where: got dtype", {"where": np.ones((2, 3))}),
            Bad("where: got shape", {"where": np.ones((2, 2), bool)}),
        ),
    ),
    Case(
        "papyrax.losses.slow_feedback_loss",
        blocks,
        ("first", "second", "third"),
        call=of_blocks,
        rows=None,
        bad=(
            Bad("kernels: got dtype", {"first": np.ones((2, 3, 2), np.int32)}),
            Bad("kernels: got shape", {"second": np.ones((3, 3, 2))}),
            Bad("kernels: got 3 channels", {"third": np.ones((2, 3, 3))}),
        ),
    ),
]
