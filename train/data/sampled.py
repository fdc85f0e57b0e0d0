"""Batches that a sampler picks, as a grain data set."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Rows = Callable[[int], np.ndarray]
"""`rows(epoch) -> [batches, batch_size]`, numbers of examples; the same shape every epoch."""


def sampled(rows: Rows, read: Callable[[np.ndarray], Any], *, epochs: int | None = None) -> Any:
    """A data set whose batches are those that a sampler picks for each epoch.

    A batch is a function of its position alone, so that reading goes on where it stopped, in any
    process. What `rows` returns is kept for the epoch.

    Args:
      rows: the numbers of the examples of every batch of an epoch; such as a sampler of
        `papyrax.data` with the seed `(seed, epoch)`.
      read: the batch with these numbers [batch_size], a pytree of arrays.
      epochs: passes; None goes on for ever.

    Returns:
      A `grain.MapDataset` of batches; shuffle nothing, make an iterator of it.

    Raises:
      ValueError: if an epoch has no batches, or not as many as the first.

    >>> from papyrax.data import class_balanced_batches
    >>> x, labels = np.arange(8.0), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    >>> pick = lambda epoch: class_balanced_batches(
    ...     labels, classes_per_batch=2, examples_per_class=2, seed=(0, epoch)
    ... )
    >>> batches = sampled(pick, lambda rows: {"inputs": x[rows], "labels": labels[rows]}, epochs=3)
    >>> len(batches), batches[0]["inputs"].shape
    (6, (4,))
    """
    import grain

    picked = _Picked(rows, read)
    positions = grain.MapDataset.range(len(picked)).repeat(epochs)
    # A repeated range counts anew in every epoch; with the index the position is known.
    return positions.map_with_index(picked)


@dataclasses.dataclass
class _Picked:
    """The batch at any position."""

    rows: Rows
    read: Callable[[np.ndarray], Any]

    def __post_init__(self) -> None:
        self._kept: tuple[int, np.ndarray] = (0, np.asarray(self.rows(0)))
        self._count = len(self._kept[1])
        if not self._count:
            raise ValueError("rows: got no batches for the first epoch, takes one or more")

    def __len__(self) -> int:
        return self._count

    def __call__(self, position: int, _: Any) -> Any:
        epoch, number = divmod(position, self._count)
        kept = self._kept  # that threads share, and two of them may be in different epochs
        if kept[0] != epoch:
            kept = epoch, np.asarray(self.rows(epoch))
            if len(kept[1]) != self._count:
                raise ValueError(
                    f"rows: got {len(kept[1])} batches for epoch {epoch}, takes {self._count} as "
                    "for the first"
                )
            self._kept = kept
        return self.read(kept[1][number])
