"""Batches of clusters of embeddings: whole ones, or one example of each."""

import numpy as np
from jaxtyping import Float, Int

from ..numerics import check, check_floating, check_integer, check_rank
from .neighbours import unit
from .samplers import Batches, Seed, check_count, in_batches


def _halve(
    x: Float[np.ndarray, "rows features"], rng: np.random.Generator, tolerance: float
) -> tuple[Int[np.ndarray, "half"], Int[np.ndarray, "half"]]:
    """Balanced spherical 2-means: two halves of the rows, each about a direction."""
    centres = x[rng.choice(len(x), 2, replace=False)]
    before, now = -np.inf, -2.0
    while now - before >= tolerance:
        lean = x @ (centres[1] - centres[0])
        halves = np.array_split(np.argsort(lean, kind="stable"), 2)
        centres = unit(np.stack([x[half].mean(0) for half in halves]))
        before = now
        now = sum(float(np.sum(x[h] @ c)) for h, c in zip(halves, centres, strict=True)) / len(x)
    return halves[0], halves[1]


def balanced_clusters(
    embeddings: Float[np.ndarray, "examples features"],
    *,
    cluster_size: int,
    tolerance: float = 1e-4,
    seed: Seed = 0,
) -> Int[np.ndarray, "examples"]:
    """Clusters of equal size by halving again and again, each time with spherical 2-means.

    Two rows are the first centres; the rows are sorted by `<x, c_1 - c_0>` and cut in the middle;
    the centres become the directions of the halves' means, until the mean cosine of the rows with
    their centre gains less than `tolerance`.

    Args:
      embeddings: the examples [examples, features].
      cluster_size: how large clusters are, at most; they are halved until there are
        `2^ceil(log2(examples / cluster_size))`. With 1 every example is its own.
      tolerance: the least gain for another iteration.
      seed: of the first centres.

    Returns:
      Number of the cluster of every example [examples]; sizes differ by one at most.

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: NGAME: Negative Mining-aware Mini-batching for Extreme Classification, arXiv
    2207.04452, Section 3; `cluster_balance` with `b_kmeans_dense` in `xclib/utils/clustering.py` of
    kunaldahiya/pyxclib, which the authors' code calls, agrees.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
    >>> cluster = balanced_clusters(x, cluster_size=2)
    >>> bool(cluster[0] == cluster[2] != cluster[1] == cluster[3])
    True
    """
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    check_count(cluster_size=cluster_size)
    check(tolerance > 0, "tolerance", f"got {tolerance}, takes a positive number")
    examples = len(embeddings)
    if cluster_size == 1:
        return np.arange(examples)
    x, rng = unit(embeddings), np.random.default_rng(seed)
    clusters = [np.arange(examples)]
    while len(clusters) * cluster_size < examples:
        halves = ((c, _halve(x[c], rng, tolerance)) for c in clusters)
        clusters = [c[half] for c, two in halves for half in two]
    number = np.empty(examples, np.int64)
    for i, members in enumerate(clusters):
        number[members] = i
    return number


def cluster_batches(
    clusters: Int[np.ndarray, "examples"], *, batch_size: int, seed: Seed = 0
) -> Batches:
    """Batches of whole clusters in a random order: the negatives of a batch are hard ones.

    Args:
      clusters: number of the cluster of every example, as of `balanced_clusters` [examples].
      batch_size: how many examples a batch has; a cluster that does not fit goes on in the next
        batch, and what does not fill the last is left out.
      seed: of the order; a tuple such as `(seed, epoch)` draws anew every epoch.

    Returns:
      Numbers of examples [examples // batch_size, batch_size].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: NGAME: Negative Mining-aware Mini-batching for Extreme Classification, arXiv
    2207.04452, Section 3; `indices_permutation` in `ngame/libs/sdataset.py` of
    Extreme-classification/ngame agrees.

    >>> sorted(map(sorted, cluster_batches(np.array([0, 1, 1, 0]), batch_size=2).tolist()))
    [[0, 3], [1, 2]]
    """
    check_integer(clusters=clusters)
    check_rank("clusters", clusters, 1)
    check_count(batch_size=batch_size)
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    place = rng.permutation(number.max(initial=-1) + 1)
    return in_batches(np.argsort(place[number], kind="stable"), batch_size)


def one_per_cluster_batches(
    clusters: Int[np.ndarray, "examples"], *, batch_size: int, seed: Seed | None = 0
) -> Batches:
    """Batches of examples of different clusters: few of them are negatives of their own kind.

    Every cluster gives its first example, then every cluster its second, and so on; the order is
    cut into batches. With as many clusters as a batch has examples, each batch has one of each
    until the smallest cluster is used up; what is left of large clusters comes together.

    Args:
      clusters: number of the cluster, or pseudo-label, of every example [examples].
      batch_size: how many examples a batch has; what does not fill the last is left out.
      seed: of the order within clusters and of the batches; a tuple such as `(seed, epoch)` draws
        anew every epoch. None for the order that the examples have.

    Returns:
      Numbers of examples [examples // batch_size, batch_size].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
    Labelling, arXiv 2009.12007; the notebooks of ariG23498/G-SimCLR sort by the rank within the
    cluster once, without a seed, and keep these batches for all epochs.

    >>> one_per_cluster_batches(np.array([0, 0, 1, 1, 2, 2]), batch_size=3, seed=None).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    check_integer(clusters=clusters)
    check_rank("clusters", clusters, 1)
    check_count(batch_size=batch_size)
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    rng = None if seed is None else np.random.default_rng(seed)
    order = np.arange(len(number)) if rng is None else rng.permutation(len(number))
    grouped = order[np.argsort(number[order], kind="stable")]
    sizes = np.bincount(number)
    turn = np.arange(len(number)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    batches = in_batches(grouped[np.argsort(turn, kind="stable")], batch_size)
    return batches if rng is None else rng.permutation(batches)
