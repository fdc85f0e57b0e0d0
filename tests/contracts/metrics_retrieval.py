"""Declarations for the measures of retrieval, clusters and representations."""

import numpy as np

from contracts.case import Bad, Case

QUERIES, ITEMS, FEATURES = 5, 7, 3


def scored(rng):
    # A permutation of well separated numbers, so that half precision ranks alike.
    scores = np.stack([rng.permutation(ITEMS) for _ in range(QUERIES)]).astype(np.float64)
    targets = rng.integers(0, 2, (QUERIES, ITEMS)).astype(np.int32)
    targets[2] = 0
    return {"scores": scores, "targets": targets}


def clustered(rng):
    return {
        "labels": rng.integers(0, 3, 12).astype(np.int32),
        "clusters": rng.integers(0, 4, 12).astype(np.int32),
    }


def embedded(rng):
    return {"embeddings": rng.normal(size=(QUERIES, FEATURES))}


BAD_SCORES = (
    Bad("scores: got dtype", {"scores": np.zeros((QUERIES, ITEMS), np.int32)}),
    Bad("targets: got shape", {"targets": np.zeros((QUERIES, ITEMS + 1), np.int32)}),
)
BAD_K = (Bad("k: got 0", {"k": 0}), Bad("k: got 8", {"k": ITEMS + 1}))
BAD_EMBEDDINGS = (
    Bad("embeddings: got dtype", {"embeddings": np.zeros((QUERIES, FEATURES), np.int32)}),
    Bad("embeddings: got shape", {"embeddings": np.zeros(QUERIES)}),
)


def ranking(name, *bad, **more):
    return Case(
        f"papyrax.metrics.{name}",
        scored,
        ("scores",),
        differentiable=False,
        keeps_dtype=False,
        bad=(*BAD_SCORES, *bad),
        **more,
    )


def clusters(name):
    return Case(
        f"papyrax.metrics.{name}",
        clustered,
        static={"count": 5},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(12)}),
            Bad("clusters: got shape", {"clusters": np.zeros(3, np.int32)}),
            Bad("count", {"count": 0}),
        ),
    )


CASES = [
    ranking("precision_at_k", *BAD_K, static={"k": 3}),
    ranking("recall_at_k", *BAD_K, static={"k": 3}),
    ranking("hit_at_k", *BAD_K, static={"k": 2}),
    ranking("r_precision"),
    ranking("map_at_r"),
    ranking("ndcg_at_k", *BAD_K, static={"k": 4}),
    Case(
        "papyrax.metrics.propensity_scored_precision_at_k",
        lambda rng: {**scored(rng), "propensities": rng.uniform(0.2, 1, ITEMS)},
        ("scores",),
        rows_in=("scores", "targets"),
        static={"k": 2},
        differentiable=False,
        keeps_dtype=False,
        bad=(*BAD_SCORES, *BAD_K, Bad("propensities", {"propensities": np.ones(2)})),
    ),
    Case(
        "papyrax.metrics.propensity_scored_precision_at_k",
        lambda rng: {**scored(rng), "propensities": rng.uniform(0.2, 1, ITEMS)},
        ("scores",),
        rows_in=("scores", "targets"),
        static={"k": 2, "is_normalized": False},
        label="not normalized",
        differentiable=False,
        keeps_dtype=False,
    ),
    Case(
        "papyrax.metrics.label_propensities",
        lambda rng: {"counts": rng.integers(0, 100, ITEMS).astype(np.int32)},
        static={"examples": 1000},
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("examples", {"examples": 1}), Bad("a", {"a": 0.0})),
    ),
    Case(
        "papyrax.metrics.retrieval_scores",
        lambda rng: {
            "queries": rng.normal(size=(QUERIES, FEATURES)),
            "labels": np.array([0, 1, 0, 2, 3], np.int32),
            "references": rng.normal(size=(6, FEATURES)),
            "reference_labels": np.array([0, 0, 1, 1, 2, 0], np.int32),
        },
        ("queries",),
        rows_in=("queries", "labels"),
        static={"k": (1, 2), "chunk_size": 2},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("queries: got shape", {"queries": np.zeros(3)}),
            Bad("labels: got dtype", {"labels": np.zeros(QUERIES)}),
            Bad("references: got shape", {"references": np.zeros((6, FEATURES + 1))}),
            Bad("reference_labels", {"reference_labels": None}),
            Bad("k", {"k": (9,)}),
            Bad("chunk_size", {"chunk_size": 0}),
            Bad("similarity", {"similarity": "taxicab"}),
        ),
    ),
    Case(
        "papyrax.metrics.threshold_inconsistency",
        lambda rng: {
            "embeddings": rng.normal(size=(12, FEATURES)),
            "labels": np.repeat(np.arange(3), 4).astype(np.int32),
        },
        ("embeddings",),
        static={"classes": 3, "false_accept_range": (0.05, 0.5), "thresholds": 20},
        differentiable=False,
        keeps_dtype=False,
        # Thresholds are distances of pairs, on whose exact order the counts depend.
        tolerance=0.1,
        bad=(
            Bad("embeddings: got shape", {"embeddings": np.zeros(QUERIES)}),
            Bad("labels: got dtype", {"labels": np.zeros(12)}),
            Bad("classes", {"classes": 0}),
            Bad("thresholds", {"thresholds": 1}),
            Bad("false_accept_range", {"false_accept_range": (0.5, 0.1)}),
            Bad("worst_share", {"worst_share": 0.0}),
        ),
    ),
    clusters("normalized_mutual_information"),
    clusters("adjusted_rand_index"),
    clusters("adjusted_mutual_information"),
    clusters("clustering_accuracy"),
    Case(
        "papyrax.metrics.uniformity",
        embedded,
        ("embeddings",),
        bad=(*BAD_EMBEDDINGS, Bad("scale", {"scale": 0.0})),
    ),
    Case(
        "papyrax.metrics.alignment",
        lambda rng: {
            "first": rng.normal(size=(QUERIES, FEATURES)),
            "second": rng.normal(size=(QUERIES, FEATURES)),
        },
        ("first", "second"),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((QUERIES, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((QUERIES, 2))}),
            Bad("power", {"power": -1.0}),
        ),
    ),
    Case(
        "papyrax.metrics.tolerance",
        lambda rng: {**embedded(rng), "labels": np.array([0, 0, 1, 1, 1], np.int32)},
        ("embeddings",),
        bad=(*BAD_EMBEDDINGS, Bad("labels: got dtype", {"labels": np.zeros(QUERIES)})),
    ),
    Case(
        "papyrax.metrics.utilization",
        lambda rng: {
            "queries": rng.normal(size=(QUERIES, FEATURES)),
            "references": rng.normal(size=(ITEMS, FEATURES)),
        },
        ("queries", "references"),
        static={"chunk_size": 4},
        rows_in=("queries",),
        bad=(
            Bad("queries: got shape", {"queries": np.zeros(QUERIES)}),
            Bad("references: got shape", {"references": np.zeros((ITEMS, FEATURES + 1))}),
            Bad("references: got no rows", {"references": np.zeros((0, FEATURES))}),
            Bad("chunk_size", {"chunk_size": 0}),
        ),
    ),
    Case(
        "papyrax.metrics.rankme",
        embedded,
        ("embeddings",),
        # Equal or zero singular values have no derivative.
        differentiable=False,
        bad=(*BAD_EMBEDDINGS, Bad("epsilon", {"epsilon": 0.0})),
    ),
]
