"""Declarations for the losses with one proxy a class."""

import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES, CLASSES = 5, 4, 3


def arrays(rng):
    return {
        "embeddings": rng.normal(size=(BATCH, FEATURES)),
        "labels": np.array([0, 0, 1, 2, 2], np.int32),
        "proxies": rng.normal(size=(CLASSES, FEATURES)),
    }


BAD = (
    Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
    Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
    Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
    Bad("proxies: got shape", {"proxies": np.zeros((CLASSES, FEATURES + 1))}),
)
SCALE = (Bad("scale", {"scale": 0.0}),)


def proxy(name, *bad, static=None, **more):
    return Case(
        f"papyrax.losses.{name}",
        arrays,
        more.pop("wrt", ("embeddings", "proxies")),
        static=static or {},
        rows_in=("embeddings", "labels"),
        bad=(*BAD, *bad),
        **more,
    )


LOW = {"scale": 8.0}


def several(name, *bad, static=None):
    return Case(
        f"papyrax.losses.{name}",
        lambda rng: {**arrays(rng), "proxies": rng.normal(size=(CLASSES, 2, FEATURES))},
        ("embeddings", "proxies"),
        static=static or {},
        rows_in=("embeddings", "labels"),
        bad=(*BAD[:3], Bad("proxies: got shape", {"proxies": np.zeros((CLASSES, FEATURES))}), *bad),
    )


CASES = [
    proxy("normalized_softmax_loss", *SCALE),
    proxy("arcface_loss", *SCALE, Bad("margin", {"margin": 4.0}), static={"scale": 8.0}),
    proxy("cosface_loss", *SCALE, Bad("margin", {"margin": -1.0}), static={"scale": 8.0}),
    proxy(
        "margin_cosines",
        Bad("angular_margin", {"angular_margin": 4.0}),
        static={"angular_margin": 0.4, "cosine_margin": 0.1},
    ),
    proxy(
        "adacos_scale",
        Bad("proxies", {"proxies": np.zeros((2, FEATURES))}),
        differentiable=False,
        wrt=("embeddings",),
    ),
    proxy("proxy_nca_loss", *SCALE),
    proxy("proxy_nca_loss", label="all classes", static={"include_positive": True, "scale": 9.0}),
    proxy("proxy_anchor_loss", *SCALE, static={"scale": 8.0}),
    proxy(
        "unified_negative_pair_loss",
        *SCALE,
        Bad("whisker", {"whisker": -1.0}),
        static={"scale": 8.0},
    ),
    proxy("p2s_grad_loss"),
    proxy("sphereface_loss", *SCALE, Bad("margin", {"margin": 0}), static={"margin": 3}),
    proxy(
        "sphereface_loss",
        Bad("annealing", {"annealing": -1.0}),
        label="large margin",
        static={"margin": 2, "normalize_proxies": False, "annealing": 5.0},
    ),
    several("soft_triple_loss", *SCALE, Bad("temperature", {"temperature": 0.0})),
    several("sub_center_arcface_loss", *SCALE, Bad("margin", {"margin": 4.0}), static=LOW),
    Case(
        "papyrax.losses.center_merging_penalty",
        lambda rng: {"proxies": rng.normal(size=(CLASSES, 2, FEATURES))},
        ("proxies",),
        bad=(Bad("proxies: got shape", {"proxies": np.zeros((CLASSES, FEATURES))}),),
    ),
    Case(
        "papyrax.losses.box_whisker_mask",
        lambda rng: {"values": rng.normal(size=20), "where": rng.uniform(size=20) < 0.7},
        rows=None,
        differentiable=False,
        bad=(
            Bad("whisker", {"whisker": -1.0}),
            Bad("where", {"where": np.zeros(3, bool)}),
            Bad("values: got dtype", {"values": np.zeros(20, np.int32)}),
        ),
    ),
]
