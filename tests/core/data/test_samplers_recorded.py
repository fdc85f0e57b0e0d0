"""Samplers against what the authors' code made of the same random draws."""

import numpy as np
from authors_code import recorded
from sklearn.metrics import DistanceMetric

from papyrax import data

ENTRIES = recorded("samplers", "data")


class Draws(np.random.Generator):
    """A generator whose permutations and pairs are given."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls, np.random.PCG64(0))

    def __init__(self, order=None, rest=(), pairs=()):
        super().__init__(np.random.PCG64(0))
        self.order, self.pairs = order, iter(pairs)
        self.rest = {tuple(sorted(row)): row for row in rest}

    def permutation(self, x):
        if np.ndim(x) == 0:
            return np.array(self.order)
        return np.array(self.rest.get(tuple(sorted(np.asarray(x).tolist())), x))

    def choice(self, count, size, replace):
        return np.array(next(self.pairs))


def test_neighbour_batches():
    entry = ENTRIES["neighbour_batches"]
    far = [tuple(sorted(row)) for row in entry["far"]]
    assert len(set(far)) == len(far)  # or one draw would stand for two
    draws = Draws(entry["order"], entry["far"])
    got = data.neighbour_batches(np.array(entry["neighbours"]), **entry["static"], seed=draws)
    np.testing.assert_array_equal(got, entry["value"])


def test_similarity_neighbours():
    entry = ENTRIES["similarity_neighbours"]
    queries, references = (np.array(entry[k]) for k in ("queries", "references"))
    got = data.similarity_neighbours(queries, references, count=4, chunk_size=4)
    np.testing.assert_array_equal(got, entry["value"])


def test_location_neighbours():
    """The distance that Sample4Geo takes from scikit-learn, given radians as it asks for."""
    places = np.random.default_rng(0).uniform((-90, -180), (90, 180), (30, 2))
    distances = DistanceMetric.get_metric("haversine").pairwise(np.radians(places))
    np.fill_diagonal(distances, np.inf)
    got = data.location_neighbours(places, count=6, chunk_size=7)
    np.testing.assert_array_equal(got, np.argsort(distances, 1)[:, :6])


def test_balanced_clusters():
    entry = ENTRIES["balanced_clusters"]
    x, size = np.array(entry["embeddings"]), entry["cluster_size"]
    got = data.balanced_clusters(x, cluster_size=size, seed=Draws(pairs=entry["centres"]))
    np.testing.assert_array_equal(got, entry["value"])


def test_cluster_batches():
    entry = ENTRIES["cluster_batches"]
    draws = Draws(entry["place"])
    got = data.cluster_batches(np.array(entry["clusters"]), batch_size=4, seed=draws)
    np.testing.assert_array_equal(got, entry["value"])


def test_one_per_cluster_batches():
    """The notebook's sort does not keep the order of equal ranks, which are a set here."""
    entry = ENTRIES["one_per_cluster_batches"]
    clusters, ranks, value = (np.array(entry[k]) for k in ("clusters", "ranks", "value"))
    got = data.one_per_cluster_batches(clusters, batch_size=1, seed=None)[:, 0]
    for rank in np.unique(ranks):
        assert set(got[ranks == rank]) == set(value[ranks == rank])
