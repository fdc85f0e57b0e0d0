"""Batches of neighbours: what lies close together is hard to tell apart."""

import numpy as np
from jaxtyping import Float, Int

from ..numerics import check, check_floating, check_rank, check_shape
from .samplers import Batches, Seed, check_count, in_batches

Neighbours = Int[np.ndarray, "examples count"]


def _nearest(distances: Float[np.ndarray, "rows columns"], count: int) -> Neighbours:
    """The columns of the smallest numbers of each row, nearest first, of equal ones the first."""
    return np.argsort(distances, -1, kind="stable")[:, :count]


def _check_neighbours(count: int, examples: int) -> None:
    check_count(count=count)
    check(count < examples, "count", f"got {count}, takes fewer than the {examples} examples")


def location_neighbours(
    locations: Float[np.ndarray, "examples 2"], *, count: int = 128, chunk_size: int = 1024
) -> Neighbours:
    """The examples that were taken closest by, from latitude and longitude.

    By the great-circle distance `2 arcsin(sqrt(hav(dlat) + cos(lat) cos(lat') hav(dlon)))` with
    `hav(x) = sin(x / 2)^2`.

    Args:
      locations: latitude and longitude of every example, in degrees [examples, 2].
      count: how many neighbours.
      chunk_size: rows of the distance matrix at a time.

    Returns:
      Numbers of the other examples, nearest first [examples, count].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation, arXiv 2303.11851,
    sampling by GPS; `calc_distance_cvusa.py` of Skyy93/Sample4Geo gives degrees to a function
    that takes radians, here they are converted.

    >>> places = np.array([[0.0, 179.0], [0.0, 170.0], [0.0, -178.0]])
    >>> location_neighbours(places, count=1).tolist()
    [[2], [0], [0]]
    """
    check_floating(locations=locations)
    check_shape("locations", locations, (None, 2), "[examples, 2], latitude and longitude")
    examples = len(locations)
    _check_neighbours(count, examples)
    check_count(chunk_size=chunk_size)
    latitude, longitude = np.radians(np.asarray(locations, np.float64)).T
    out = []
    for start in range(0, examples, chunk_size):
        rows = slice(start, start + chunk_size)
        up = np.sin((latitude[rows, None] - latitude) / 2) ** 2
        along = np.sin((longitude[rows, None] - longitude) / 2) ** 2
        # The distance grows with this, so it ranks alike.
        squared = up + np.cos(latitude[rows, None]) * np.cos(latitude) * along
        own = np.arange(len(squared))
        squared[own, start + own] = np.inf
        out.append(_nearest(squared, count))
    return np.concatenate(out)


def similarity_neighbours(
    queries: Float[np.ndarray, "examples features"],
    references: Float[np.ndarray, "examples features"],
    *,
    count: int = 128,
    chunk_size: int = 1024,
) -> Neighbours:
    """The references most similar to each query, without its own, the one in its row.

    The largest cosines `<q_i, r_j> / (|q_i| |r_j|)`, `j != i`.

    Args:
      queries: embeddings of one view of every example [examples, features].
      references: embeddings of the other view, or the queries again [examples, features].
      count: how many neighbours.
      chunk_size: rows of the matrix of cosines at a time.

    Returns:
      Numbers of the other examples, most similar first [examples, count].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation, arXiv 2303.11851,
    dynamic similarity sampling; `calculate_nearest` in `sample4geo/evaluate` of
    Skyy93/Sample4Geo agrees for unit vectors, which it is given.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> similarity_neighbours(x, x, count=2).tolist()
    [[1, 2], [0, 2], [1, 0]]
    """
    check_floating(queries=queries, references=references)
    check_rank("queries", queries, 2)
    check_shape("references", references, np.shape(queries), "[examples, features], as queries")
    _check_neighbours(count, len(queries))
    check_count(chunk_size=chunk_size)
    x, y = unit(queries), unit(references)
    out = []
    for start in range(0, len(x), chunk_size):
        far = -x[start : start + chunk_size] @ y.T
        own = np.arange(len(far))
        far[own, start + own] = np.inf
        out.append(_nearest(far, count))
    return np.concatenate(out)


def unit(x: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    """Rows of length one in float32 or wider; zero rows stay."""
    x = np.asarray(x)
    x = x.astype(np.promote_types(x.dtype, np.float32))
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def neighbour_batches(
    neighbours: Neighbours, *, batch_size: int = 128, select: int = 64, seed: Seed = 0
) -> Batches:
    """Batches in which examples meet their neighbours, as hard negatives of each other.

    In a random order, every example that is not yet taken goes into the batch, and after it its
    neighbours that are not: the `select / 2` nearest, then `select / 2` drawn from the others of
    its row. A full batch is closed; an example is taken once, and the last, incomplete batch is
    left out.

    Args:
      neighbours: numbers of the neighbours of every example, nearest first, as
        `location_neighbours` or `similarity_neighbours` gives them [examples, count].
      batch_size: how many examples a batch has.
      select: how many neighbours of an example are put beside it; 0 for a plain shuffle.
      seed: of the draw; a tuple such as `(seed, epoch)` draws anew every epoch.

    Returns:
      Numbers of examples [examples // batch_size, batch_size].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation, arXiv 2303.11851,
    `shuffle` in `sample4geo/dataset/cvusa.py` of Skyy93/Sample4Geo. The code never takes example
    0 as a neighbour and stops after 1,024 taken examples in a row; neither is done here.

    >>> near = np.array([[1, 3], [0, 3], [3, 0], [2, 0]])
    >>> sorted(sorted(row) for row in neighbour_batches(near, batch_size=2, select=2).tolist())
    [[0, 1], [2, 3]]
    """
    check(
        np.issubdtype(np.asarray(neighbours).dtype, np.integer),
        "neighbours",
        f"got dtype {np.asarray(neighbours).dtype}, takes integers",
    )
    check_rank("neighbours", neighbours, 2)
    check_count(batch_size=batch_size)
    good = isinstance(select, int) and select >= 0 and select % 2 == 0
    check(good, "select", f"got {select!r}, takes an even integer of 0 or more")
    near = np.asarray(neighbours)
    examples, half = len(near), select // 2
    check(
        near.size == 0 or (near.min() >= 0 and near.max() < examples),
        "neighbours",
        f"takes numbers from 0 to {examples - 1}, one row an example",
    )
    rng = np.random.default_rng(seed)
    free = np.ones(examples, bool)
    order: list[int] = []
    for example in rng.permutation(examples):
        if not free[example]:
            continue
        others = np.concatenate(
            [near[example, :half], rng.permutation(near[example, half:])[:half]]
        )
        # An example may be a neighbour of itself or twice; the first of each counts.
        company = dict.fromkeys([int(example), *others[free[others]].tolist()])
        room = batch_size - len(order) % batch_size
        taken = list(company)[:room]
        free[taken] = False
        order += taken
    return in_batches(np.array(order, np.int64), batch_size)
