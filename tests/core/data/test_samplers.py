"""What batches hold, against what is said of them and against plain loops."""

import numpy as np
import pytest

from papyrax import data


def test_class_balanced_batches():
    labels = np.repeat([3, 5, 7, 9], [8, 12, 2, 10])
    rows = data.class_balanced_batches(
        labels, classes_per_batch=3, examples_per_class=4, batches=20, seed=1
    )
    assert rows.shape == (20, 12)
    classes = labels[rows].reshape(20, 3, 4)
    assert np.all(classes == classes[..., :1])
    assert all(len(set(row)) == 3 for row in classes[..., 0])
    counts = [np.sum(classes[..., 0] == c) for c in (3, 5, 7, 9)]
    assert counts == [15] * 4
    for row in rows:
        for group in row.reshape(3, 4):
            # The class of two repeats both.
            assert len(set(group)) == (2 if labels[group[0]] == 7 else 4)
    # Every example of a class comes before one comes again: 60 places for 12 and for 8 examples.
    uses = np.bincount(rows.ravel(), minlength=len(labels))
    assert set(uses[labels == 5]) == {5}
    assert set(uses[labels == 3]) == {7, 8}
    again = data.class_balanced_batches(
        labels, classes_per_batch=3, examples_per_class=4, batches=20, seed=1
    )
    np.testing.assert_array_equal(rows, again)
    other = data.class_balanced_batches(labels, classes_per_batch=3, examples_per_class=4, seed=2)
    assert other.shape == (2, 12)
    assert not np.array_equal(rows[:2], other)


def test_hierarchical_batches():
    labels = np.repeat(np.arange(14), 6)
    groups = np.repeat([4, 4, 4, 7, 7, 1, 1, 1, 1, 9, 5, 5, 5, 5], 6)  # 9 has one class
    kw = {"classes_per_group": 2, "examples_per_class": 3, "batches": 12}
    rows = data.hierarchical_batches(labels, groups, groups_per_batch=2, seed=3, **kw)
    assert rows.shape == (12, 12)
    parts = rows.reshape(12, 2, 2, 3)
    assert np.all(groups[parts] == groups[parts][:, :, :1, :1])
    assert np.all(labels[parts] == labels[parts][..., :1])
    for part in parts:
        assert len(set(groups[part][:, 0, 0])) == 2
        assert len(set(labels[part][..., 0].ravel())) == 4
        assert len(set(part.ravel())) == 12
    # Every group before one comes again, and so the classes of a group and the examples of a class.
    assert [np.sum(groups[parts][:, :, 0, 0] == g) for g in (1, 4, 5, 7, 9)] == [6, 6, 6, 6, 0]
    assert [np.sum(labels[parts][..., 0] == c) for c in (5, 6, 7, 8)] == [3] * 4
    assert np.bincount(rows.ravel(), minlength=84)[labels == 3].tolist() == [3] * 6
    again, other = (
        data.hierarchical_batches(labels, groups, groups_per_batch=2, seed=s, **kw) for s in (3, 4)
    )
    np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(rows, other)


def test_neighbours_against_loops():
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(-90, 90, 40), rng.uniform(-180, 180, 40)], 1)
    lat, lon = np.radians(places).T
    sphere = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    got = data.location_neighbours(places, count=5, chunk_size=16)
    for i in range(40):
        others = sorted((np.linalg.norm(sphere[i] - sphere[j]), j) for j in range(40) if j != i)
        assert got[i].tolist() == [j for _, j in others[:5]]
    x, y = rng.normal(size=(2, 40, 3))
    got = data.similarity_neighbours(x, y, count=5, chunk_size=16)
    for i in range(40):
        cosine = [x[i] @ r / np.linalg.norm(x[i]) / np.linalg.norm(r) for r in y]
        others = sorted((-cosine[j], j) for j in range(40) if j != i)
        assert got[i].tolist() == [j for _, j in others[:5]]


def hardest(x, rows):
    """Mean over examples of the largest cosine with another one of the batch."""
    z = x[rows] / np.linalg.norm(x[rows], axis=-1, keepdims=True)
    s = z @ np.swapaxes(z, 1, 2) - 3 * np.eye(rows.shape[1])
    return s.max(-1).mean()


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(25, 8))
    return (centres[np.arange(200) % 25] + 0.3 * rng.normal(size=(200, 8))).astype(np.float32)


def test_neighbour_batches(points):
    near = data.similarity_neighbours(points, points, count=16)
    rows = data.neighbour_batches(near, batch_size=16, select=8, seed=0)
    assert rows.shape == (12, 16)
    assert len(set(rows.ravel())) == rows.size
    plain = data.neighbour_batches(near, batch_size=16, select=0, seed=0)
    np.testing.assert_array_equal(
        plain.ravel(), np.random.default_rng(0).permutation(200)[: plain.size]
    )
    assert hardest(points, rows) > hardest(points, plain) + 0.1
    # The first example of a batch comes with its four nearest, all free at the beginning.
    assert set(near[rows[0, 0], :4]) <= set(rows[0])
    # Example 0 is a neighbour like any other.
    assert data.neighbour_batches(np.array([[1], [0]]), batch_size=2, select=2).shape == (1, 2)


def test_clusters(points):
    by_size = []
    for size in (1, 2, 8, 25):
        clusters = data.balanced_clusters(points, cluster_size=size, seed=4)
        counts = np.bincount(clusters)
        assert counts.max() - counts.min() <= 1
        assert counts.max() <= size
        assert len(counts) == (200 if size == 1 else 2 ** int(np.ceil(np.log2(200 / size))))
        rows = data.cluster_batches(clusters, batch_size=20, seed=5)
        assert sorted(rows.ravel()) == list(range(200))
        # Clusters are whole: each lies in one stretch.
        order = clusters[rows.ravel()]
        assert np.sum(order[1:] != order[:-1]) == len(counts) - 1
        by_size.append(hardest(points, rows))
    # Clusters of eight are as large as the groups of the data.
    assert by_size[0] + 0.05 < by_size[1]
    assert by_size[1] + 0.05 < by_size[2]


def test_clusters_find_what_is_apart():
    # Four directions, ten examples of each, and a fifth of zeros that must not break a norm.
    x = np.repeat(np.concatenate([np.eye(4), np.zeros((1, 4))]), 8, axis=0)
    found = data.balanced_clusters(x[:32], cluster_size=8)
    assert all(len(set(found[i : i + 8])) == 1 for i in range(0, 32, 8))
    assert np.bincount(data.balanced_clusters(x, cluster_size=5)).tolist() == [5] * 8


def test_one_per_cluster():
    clusters = np.repeat([4, 1, 9, 7], [5, 3, 6, 3])
    rows = data.one_per_cluster_batches(clusters, batch_size=4, seed=None)
    assert rows.shape == (4, 4)
    assert all(sorted(clusters[row]) == [1, 4, 7, 9] for row in rows[:3])
    assert sorted(clusters[rows[3]]) == [4, 4, 9, 9]
    # A pandas-free dense rank: the n-th of a cluster comes before the n+1st of any.
    turn = np.array([np.sum(clusters[:i] == c) for i, c in enumerate(clusters)])
    assert np.all(np.diff(turn[rows.ravel()]) >= 0)
    np.testing.assert_array_equal(
        data.one_per_cluster_batches(np.zeros(7, int), batch_size=3, seed=None),
        [[0, 1, 2], [3, 4, 5]],
    )
    many = np.repeat(np.arange(8), 5)
    first, again, other = (
        data.one_per_cluster_batches(many, batch_size=8, seed=s) for s in ((3, 0), (3, 0), (3, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.sort(first), np.sort(other))
    for got in (first, other):
        assert sorted(got.ravel()) == list(range(40))
        assert all(len(set(many[row])) == 8 for row in got)
