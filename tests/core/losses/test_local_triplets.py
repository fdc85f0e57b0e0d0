"""Triplets of local descriptors against the authors' code and against loops."""

import jax
import jax.numpy as jnp
import numpy as np
from authors_code import compare, recorded

from papyrax.losses import Matches, attended_matches, local_triplet_loss

MATCH = jax.jit(attended_matches, static_argnames=("share",))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_authors():
    entry = recorded("local_triplets")["local_triplet_loss"]

    def loss(query, positive, negatives, attention):
        matches = attended_matches(positive, query, attention)
        return local_triplet_loss(query, positive, negatives, matches, **entry["static"])

    compare(entry, loss)
    query, positive, _, attention = (np.array(x) for x in entry["arrays"].values())
    partner, _, is_match = map(np.asarray, MATCH(positive, query, attention))
    found = [[int(i), int(partner[i])] for i in np.flatnonzero(is_match)]
    assert found == entry["pairs"]


def slow_matches(x, y, attention, ratio, share):
    d = np.linalg.norm(unit(x)[:, None] - unit(y), axis=-1)
    attended = np.argsort(-attention)[: int(share * len(x))]
    pairs = []
    for i in range(len(x)):
        first, second = np.sort(d[i])[:2]
        j = d[i].argmin()
        if d[:, j].argmin() == i and first <= ratio * second and i in attended:
            pairs.append((i, int(j)))
    return pairs


def test_matches_against_loops():
    rng, found = np.random.default_rng(0), 0
    for share in (0.3, 0.5, 1.0):
        for _ in range(3):
            x, attention = rng.normal(size=(9, 3)), rng.uniform(size=9)
            y = 3 * x[rng.permutation(9)[:7]] + 0.7 * rng.normal(size=(7, 3))
            want = slow_matches(x, y, attention, 0.8, share)
            partner, cosine, is_match = map(
                np.asarray, MATCH(x, y, attention, ratio=0.8, share=share)
            )
            assert [(i, int(partner[i])) for i in np.flatnonzero(is_match)] == want
            np.testing.assert_allclose(cosine, (unit(x) @ unit(y).T).max(1), rtol=1e-4)
            found += len(want)
    assert found > 10


def test_of_two_equal_patches_none_is_the_match():
    x = np.eye(3)
    twice = np.concatenate([x, x[:1]])
    assert MATCH(x, twice, None).is_match.tolist() == [False, True, True]
    assert MATCH(x, x[:1], None).is_match.tolist() == [True, False, False]  # an only candidate


def test_loss_against_loops():
    rng = np.random.default_rng(1)
    query, positive, negatives = (rng.normal(size=s) for s in ((4, 3), (5, 3), (2, 6, 3)))
    partner, is_match = np.array([0, 3, 1, 1, 2]), np.array([1, 0, 1, 0, 1], bool)
    want = 0.0
    for i in np.flatnonzero(is_match):
        q = unit(query)[partner[i]]
        for image in unit(negatives):
            far = ((q - image) ** 2).sum(-1).min()
            want += max(((q - unit(positive)[i]) ** 2).sum() - far + 0.3, 0)
    matches = Matches(partner, np.zeros(5), is_match)
    got = local_triplet_loss(*map(jnp.asarray, (query, positive, negatives)), matches, margin=0.3)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    nothing = Matches(partner, np.zeros(5), is_match & False)
    assert local_triplet_loss(query, positive, negatives, nothing) == 0
