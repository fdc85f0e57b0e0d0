"""Declarations for the losses over pairs of a labelled batch, and their distances."""

import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES = 6, 4
LABELS = np.array([0, 0, 1, 1, 1, 2], np.int32)


def labelled(rng):
    return {"embeddings": rng.normal(size=(BATCH, FEATURES)), "labels": LABELS}


def two(rng):
    return {"x": 0.4 * rng.normal(size=(4, 3)), "y": 0.4 * rng.normal(size=(5, 3))}


BAD = (
    Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
    Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
    Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
    Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
    Bad("references: got shape", {"references": np.zeros((3, FEATURES + 1))}),
    Bad("reference_labels", {"references": np.zeros((3, FEATURES))}),
    Bad("ring", {"ring": True}),
    Bad("chunk_size", {"chunk_size": 0}),
)
DISTANCE = (Bad("distance", {"distance": "taxicab"}),)
COLD = (Bad("temperature", {"temperature": 0.0}),)
SIMILARITY = (Bad("similarity", {"similarity": "taxicab"}),)
BAD_PAIR = (
    Bad("x: got dtype", {"x": np.zeros((4, 3), np.int32)}),
    Bad("y: got shape", {"y": np.zeros((5, 2))}),
)


def loss(name, *bad, label="", static=None, **more):
    return Case(
        f"papyrax.losses.{name}",
        labelled,
        ("embeddings",),
        static=static or {},
        label=label,
        bad=(*BAD, *bad),
        **more,
    )


def dense(name, *bad, label="", static=None, **more):
    """A loss that needs all pairs at once, or bins them, and takes no ring."""
    return Case(
        f"papyrax.losses.{name}",
        labelled,
        ("embeddings",),
        static=static or {},
        label=label,
        bad=(*BAD[:6], *bad),
        **more,
    )


def distance(name, *bad, **more):
    return Case(f"papyrax.losses.{name}", two, ("x", "y"), rows=None, bad=(*BAD_PAIR, *bad), **more)


CASES = [
    loss(
        "contrastive_loss",
        *DISTANCE,
        Bad("power", {"power": 3}),
        Bad("reduction", {"reduction": "max"}),
        Bad("negative_margin", {"negative_margin": -1.0}),
        static={"negative_margin": 2.0},
    ),
    loss("contrastive_loss", label="chunked", static={"negative_margin": 3.0, "chunk_size": 4}),
    loss("triplet_loss", *DISTANCE, Bad("margin", {"margin": -1.0}), static={"margin": 1.0}),
    loss(
        "triplet_loss",
        Bad("mining", {"mining": "easy"}),
        Bad("margin", {"margin": None}),
        Bad("chunk_size", {"chunk_size": 2}),
        label="all",
        static={"mining": "all", "margin": 1.0},
    ),
    loss("triplet_loss", label="semi hard", static={"mining": "semi_hard", "margin": 1.0}),
    # The square of an embedding of size 1e4 is beyond what a bf16 product can tell apart.
    loss("n_pair_loss", *SIMILARITY, Bad("l2_penalty", {"l2_penalty": -1.0})),
    loss("lifted_structure_loss", *DISTANCE),
    loss(
        "lifted_structure_loss",
        Bad(
            "references: got an array",
            {"references": np.ones((BATCH, FEATURES)), "reference_labels": LABELS},
        ),
        label="pairwise",
        static={"is_pairwise": True},
    ),
    loss("multi_similarity_loss", *SIMILARITY, Bad("positive_scale", {"positive_scale": 0.0})),
    loss(
        "circle_loss",
        *SIMILARITY,
        Bad("scale", {"scale": 0.0}),
        static={"scale": 8.0},
        # Its weights are constants for the gradient, not for the value.
        finite_differences=False,
    ),
    loss(
        "threshold_consistent_margin_loss",
        Bad("positive_margin", {"positive_margin": 2.0}),
        static={"negative_margin": -0.5},
        second_order=True,
    ),
    loss(
        "margin_loss",
        *DISTANCE,
        Bad("boundary", {"boundary": 0.0}),
        Bad("margin", {"margin": -1.0}),
        Bad("reduction", {"reduction": "max"}),
    ),
    loss(
        "ranked_list_loss",
        *DISTANCE,
        Bad("boundary", {"boundary": 0.1}),
        Bad("negative_weight", {"negative_weight": 2.0}),
        # Its weights are constants for the gradient, not for the value.
        finite_differences=False,
    ),
    loss("ranked_list_loss", label="whole gradient", static={"is_weight_constant": False}),
    dense("angular_loss", Bad("angle", {"angle": 70.0})),
    loss(
        "tuplet_margin_loss",
        Bad("scale", {"scale": 0.0}),
        Bad("margin", {"margin": -1.0}),
        static={"scale": 8.0},
    ),
    loss("intra_pair_variance_loss", Bad("positive_slack", {"positive_slack": -1.0})),
    loss("nca_loss", *DISTANCE, Bad("scale", {"scale": 0.0})),
    dense("smooth_ap_loss", *SIMILARITY, *COLD, static={"temperature": 0.1}),
    dense(
        "smooth_ap_loss", label="with itself", static={"temperature": 0.1, "includes_anchor": True}
    ),
    *(
        dense(
            "pnp_loss",
            *SIMILARITY,
            *COLD,
            Bad("variant", {"variant": "Du"}),
            label=variant,
            static={"temperature": 0.1, "variant": variant},
        )
        for variant in ("O", "Ib", "Dq")
    ),
    dense("fast_ap_loss", Bad("bins", {"bins": 0}), static={"bins": 5}),
    dense("histogram_loss", Bad("bins", {"bins": 0}), static={"bins": 5}),
    Case(
        "papyrax.losses.pair_masks",
        lambda rng: {"labels": LABELS, "reference_labels": np.arange(4, dtype=np.int32)},
        rows=None,
        differentiable=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
            Bad("reference_labels", {"reference_labels": np.zeros((4, 2), np.int32)}),
        ),
    ),
    distance("pairwise_dot"),
    distance("pairwise_cosine"),
    distance("pairwise_euclidean"),
    distance("pairwise_squared_euclidean"),
    distance("pairwise_snr"),
    distance("pairwise_poincare", Bad("curvature", {"curvature": 0.0}), Bad("clip", {"clip": 0.0})),
    distance("pairwise_lorentz", Bad("curvature", {"curvature": -1.0})),
]
