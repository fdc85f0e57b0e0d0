"""Clients of unlike classes: each example once, and shares as the Dirichlet distribution has."""

import numpy as np

from papyrax.data import dirichlet_clients

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 400))


def shares(rows):
    return np.stack([np.bincount(LABELS[row], minlength=5) / rows.shape[1] for row in rows])


def test_every_example_once():
    rows = dirichlet_clients(LABELS, clients=7, concentration=0.3, seed=1)
    assert rows.shape == (7, 285)
    assert len(np.unique(rows)) == rows.size
    np.testing.assert_array_equal(
        rows, dirichlet_clients(LABELS, clients=7, concentration=0.3, seed=1)
    )
    assert (rows != dirichlet_clients(LABELS, clients=7, concentration=0.3, seed=2)).any()


def test_classes_follow_the_distribution():
    """Clients that take little of a class see the variance of the distribution and of the draw."""
    for concentration in (0.2, 1.0, 50.0):
        rows = np.concatenate(
            [
                dirichlet_clients(
                    LABELS,
                    clients=20,
                    concentration=concentration,
                    examples_per_client=20,
                    seed=(3, i),
                )
                for i in range(15)
            ]
        )
        got = shares(rows)
        dirichlet = 0.2 * 0.8 / (5 * concentration + 1)
        draw = 0.2 * 0.8 * (1 - 1 / (5 * concentration + 1)) / 20
        np.testing.assert_allclose(got.var(0).mean(), dirichlet + draw, rtol=0.15)
        np.testing.assert_allclose(got.mean(0), 0.2, atol=0.07)


def test_all_examples_of_few_classes():
    """Where all are given out, classes run out, and what is left is taken."""
    rows = dirichlet_clients(np.array([0, 0, 0, 1]), clients=2, concentration=1e-3)
    assert sorted(rows.ravel()) == [0, 1, 2, 3]
