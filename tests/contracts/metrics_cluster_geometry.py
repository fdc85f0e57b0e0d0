"""Declarations for measures of the geometry of clusters."""

import numpy as np

from contracts.case import Bad, Case

EXAMPLES, FEATURES = 7, 3
LABELS = np.array([0, 0, 2, 2, 2, 3, 3], np.int32)
BAD = (
    Bad("embeddings: got dtype", {"embeddings": np.zeros((EXAMPLES, FEATURES), np.int32)}),
    Bad("embeddings: got shape", {"embeddings": np.zeros(EXAMPLES)}),
    Bad("labels: got dtype", {"labels": np.zeros(EXAMPLES)}),
    Bad("labels: got shape", {"labels": np.zeros(EXAMPLES + 1, np.int32)}),
    Bad("count: got", {"count": 0}),
)


def clusters(rng):
    return {"embeddings": rng.normal(size=(EXAMPLES, FEATURES)), "labels": LABELS}


def answers(rng):
    return {k: rng.normal(size=(4, FEATURES)) for k in ("safe", "unsafe", "jailbreak")}


CASES = [
    Case(
        "papyrax.metrics.davies_bouldin",
        clusters,
        ("embeddings",),
        static={"count": 5},
        bad=BAD,
    ),
    Case(
        "papyrax.metrics.dunn_index",
        clusters,
        ("embeddings",),
        static={"count": 5},
        bad=(*BAD, Bad("between: got", {"between": "means"})),
    ),
    Case(
        "papyrax.metrics.dunn_index",
        clusters,
        ("embeddings",),
        label="centres",
        static={"count": 5, "between": "centres"},
    ),
    Case(
        "papyrax.metrics.avqi",
        answers,
        ("safe", "unsafe", "jailbreak"),
        bad=(
            Bad("safe: got dtype", {"safe": np.zeros((4, FEATURES), np.int32)}),
            Bad("unsafe: got shape", {"unsafe": np.zeros((4, FEATURES + 1))}),
        ),
    ),
    Case(
        "papyrax.metrics.avqi",
        answers,
        ("safe", "unsafe", "jailbreak"),
        label="one cluster",
        static={"one_adversarial_cluster": True},
    ),
]
