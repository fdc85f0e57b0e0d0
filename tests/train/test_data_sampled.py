"""Batches of a sampler through grain: by position, over epochs, from two threads."""

import itertools

import numpy as np
import pytest

from papyrax import data
from papyrax.train.data import sampled

LABELS = np.arange(12) % 3


def rows(epoch):
    return data.class_balanced_batches(
        LABELS, classes_per_batch=2, examples_per_class=2, seed=(7, epoch)
    )


def test_batches_are_the_samplers():
    batches = sampled(rows, lambda r: {"index": r, "labels": LABELS[r]}, epochs=2)
    want = np.concatenate([rows(0), rows(1)])
    assert len(batches) == len(want) == 6
    assert not np.array_equal(rows(0), rows(1))
    got = [b["index"] for b in batches.to_iter_dataset()]
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(batches[4]["labels"], LABELS[want[4]])
    endless = sampled(rows, lambda r: r)
    taken = list(itertools.islice(iter(endless.to_iter_dataset()), 8))
    np.testing.assert_array_equal(taken[6:], rows(2)[:2])


def test_pseudo_label_batches():
    pick = lambda epoch: data.one_per_cluster_batches(  # noqa: E731
        LABELS, batch_size=3, seed=(7, epoch)
    )
    batches = list(sampled(pick, lambda r: LABELS[r], epochs=2).to_iter_dataset())
    assert len(batches) == 8
    assert all(sorted(b) == [0, 1, 2] for b in batches)


def test_epochs_of_other_lengths_say_so():
    with pytest.raises(ValueError, match="rows: got no batches"):
        sampled(lambda epoch: rows(epoch)[:0], lambda r: r)
    uneven = sampled(lambda epoch: rows(epoch)[: 3 - epoch], lambda r: r, epochs=2)
    with pytest.raises(ValueError, match="rows: got 2 batches for epoch 1, takes 3"):
        _ = uneven[3]
