"""Declarations for the samplers, which run on the host."""

import numpy as np

from contracts.case import Bad, Case

LABELS = np.array([0, 0, 1, 1, 1, 2, 2], np.int32)


def spread(count):
    """Unit vectors at angles far enough apart for half precision to order alike."""
    angles = np.array([0.1, 0.5, 1.2, 2.2, 3.6, 5.3])[:count]
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def host(name, arrays, *bad, **static):
    return Case(
        f"papyrax.data.{name}",
        lambda rng: arrays,
        static=static,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        jittable=False,
        vmappable=False,
        bad=bad,
    )


CASES = [
    host(
        "class_balanced_batches",
        {"labels": LABELS},
        Bad("labels: got dtype", {"labels": np.zeros(7)}),
        Bad("labels: got shape", {"labels": np.zeros((7, 1), np.int32)}),
        Bad("classes_per_batch: got 4", {"classes_per_batch": 4, "examples_per_class": 1}),
        Bad("examples_per_class: got 0", {"examples_per_class": 0}),
        Bad("batches: got 0", {"batches": 0}),
        classes_per_batch=2,
        examples_per_class=2,
    ),
    host(
        "hierarchical_batches",
        {"labels": LABELS, "groups": np.array([0, 0, 0, 0, 0, 1, 1], np.int32)},
        Bad("labels: got dtype", {"labels": np.zeros(7)}),
        Bad("groups: got shape", {"groups": np.zeros(3, np.int32)}),
        Bad("groups_per_batch: got 2", {"classes_per_group": 2, "batches": 1}),
        Bad("examples_per_class: got 0", {"examples_per_class": 0}),
        classes_per_group=1,
        examples_per_class=2,
    ),
    host(
        "dirichlet_clients",
        {"labels": LABELS},
        Bad("labels: got dtype", {"labels": np.zeros(7)}),
        Bad("labels: got shape", {"labels": np.zeros((7, 1), np.int32)}),
        Bad("clients: got 0", {"clients": 0}),
        Bad("concentration: got 0", {"concentration": 0.0}),
        Bad("examples_per_client: got 4", {"examples_per_client": 4}),
        clients=3,
        concentration=0.5,
    ),
    host(
        "location_neighbours",
        {"locations": np.array([[0.0, 0.0], [10.0, 3.0], [40.0, -60.0], [-30.0, 100.0]])},
        Bad("locations: got dtype", {"locations": np.zeros((4, 2), np.int32)}),
        Bad("locations: got shape", {"locations": np.zeros((4, 3))}),
        Bad("count: got 4", {"count": 4}),
        count=2,
    ),
    host(
        "similarity_neighbours",
        {"queries": spread(6), "references": spread(6)},
        Bad("queries: got dtype", {"queries": np.zeros((6, 2), np.int32)}),
        Bad("references: got shape", {"references": np.zeros((5, 2))}),
        Bad("count: got 0", {"count": 0}),
        Bad("chunk_size", {"chunk_size": 0}),
        count=3,
    ),
    host(
        "neighbour_batches",
        {"neighbours": np.array([[1, 3], [0, 3], [3, 0], [2, 0]], np.int32)},
        Bad("neighbours: got dtype", {"neighbours": np.zeros((4, 2))}),
        Bad("neighbours: takes numbers", {"neighbours": np.full((4, 2), 4)}),
        Bad("batch_size: got 0", {"batch_size": 0}),
        Bad("select: got 3", {"select": 3}),
        batch_size=2,
        select=2,
    ),
    host(
        "balanced_clusters",
        {"embeddings": spread(6)},
        Bad("embeddings: got dtype", {"embeddings": np.zeros((6, 2), np.int32)}),
        Bad("embeddings: got shape", {"embeddings": np.zeros(6)}),
        Bad("cluster_size: got 0", {"cluster_size": 0}),
        Bad("tolerance: got 0", {"tolerance": 0}),
        cluster_size=3,
    ),
    host(
        "cluster_batches",
        {"clusters": LABELS},
        Bad("clusters: got dtype", {"clusters": np.zeros(7)}),
        Bad("clusters: got shape", {"clusters": np.zeros((7, 1), np.int32)}),
        Bad("batch_size: got 0", {"batch_size": 0}),
        batch_size=3,
    ),
    host(
        "one_per_cluster_batches",
        {"clusters": LABELS},
        Bad("clusters: got dtype", {"clusters": np.zeros(7)}),
        Bad("clusters: got shape", {"clusters": np.zeros((7, 1), np.int32)}),
        Bad("batch_size: got 0", {"batch_size": 0}),
        batch_size=3,
    ),
]
