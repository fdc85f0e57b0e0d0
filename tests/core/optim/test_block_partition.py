"""Partitions against sorting in NumPy, and the choice against every block."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.optim import (
    cyclic_block,
    partition_coordinates,
    sample_from_partition,
    select_from_partition,
)

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(10, 8)) * RNG.uniform(0.2, 4, 8)
H = ROOT.T @ ROOT
BLOCKS = np.array([[3, 6], [0, 1], [7, 2], [5, 4]])


def test_partitions():
    curvature = jnp.array([5.0, 1.0, 9.0, 7.0, 2.0, 8.0])
    group = lambda **options: partition_coordinates(curvature, size=3, **options)  # noqa: E731
    assert group().tolist() == [[1, 4, 0], [3, 5, 2]]
    assert group(rule="ordered").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert group(rule="averaged").tolist() == [[1, 2, 4], [5, 0, 3]]
    chances = [group(rule="random", key=jax.random.key(i)) for i in range(3)]
    for blocks in chances:
        assert sorted(np.ravel(blocks).tolist()) == list(range(6))
    assert any(np.any(chances[0] != blocks) for blocks in chances[1:])


def test_averaged_partition_of_an_odd_number_of_coordinates():
    blocks = partition_coordinates(jnp.arange(9.0), size=3, rule="averaged")
    assert blocks.tolist() == [[0, 8, 1], [7, 2, 6], [3, 5, 4]]


@pytest.mark.parametrize("rule", ["gs", "gsl", "gsd", "gsq"])
def test_the_best_block(rule):
    def bound(b):
        sub = H[np.ix_(b, b)]
        top = np.linalg.eigvalsh(sub)[-1]
        diagonal = np.diag(np.abs(H).sum(1)[b])
        return {"gs": np.eye(2), "gsl": top * np.eye(2), "gsd": diagonal, "gsq": sub}[rule]

    select = jax.jit(lambda g: select_from_partition(g, BLOCKS, jnp.asarray(H), rule=rule))
    chosen = set()
    with jax.enable_x64(True):
        for g in RNG.normal(size=(20, 8)) * np.array([1, 4, 1, 1, 2, 1, 1, 1]):
            want = max(BLOCKS.tolist(), key=lambda b: g[b] @ np.linalg.solve(bound(b), g[b]))
            assert np.asarray(select(jnp.asarray(g))).tolist() == want
            chosen.add(tuple(want))
    assert len(chosen) > 1


def test_every_block_has_its_turn():
    turn = jax.jit(jax.vmap(cyclic_block, in_axes=(None, 0, None)))
    steps = jnp.arange(12)
    assert np.array_equal(turn(BLOCKS, steps, None), np.tile(BLOCKS, (3, 1)))
    mixed = np.asarray(turn(BLOCKS, steps, jax.random.key(0))).reshape(3, 4, 2)
    for sweep in mixed:
        assert sorted(map(tuple, sweep.tolist())) == sorted(map(tuple, BLOCKS.tolist()))
    assert np.any(mixed[0] != mixed[1]) or np.any(mixed[0] != mixed[2])


def test_steep_blocks_are_drawn_more_often():
    draw = jax.jit(jax.vmap(sample_from_partition, in_axes=(0, None, None)))
    keys = jax.random.split(jax.random.key(0), 4000)
    tops = np.array([np.linalg.eigvalsh(H[np.ix_(b, b)])[-1] for b in BLOCKS])
    for hessian, chances in (
        (jnp.asarray(H, jnp.float32), tops / tops.sum()),
        (None, np.ones(4) / 4),
    ):
        count = collections.Counter(np.asarray(draw(keys, BLOCKS, hessian))[:, 0].tolist())
        got = np.array([count[b[0]] for b in BLOCKS.tolist()]) / 4000
        np.testing.assert_allclose(got, chances, atol=0.03)  # four standard errors
