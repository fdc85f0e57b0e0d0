"""Batches by class and by groups of classes, and what all samplers share."""

from typing import Any

import numpy as np
from jaxtyping import Int

from .. import numerics
from ..numerics import check, check_integer, check_rank, check_shape

Seed = int | tuple[int, ...]
Batches = Int[np.ndarray, "batches batch_size"]


def check_count(**values: Any) -> None:
    """Raise unless every number (given by name) is an integer of one or more, NumPy's too."""
    for name, value in values.items():
        numerics.check_count(**{name: int(value) if isinstance(value, np.integer) else value})


def in_batches(order: Int[np.ndarray, "examples"], batch_size: int) -> Batches:
    """An order cut into batches; what does not fill one is left out."""
    whole = len(order) // batch_size
    return order[: whole * batch_size].reshape(whole, batch_size)


def class_balanced_batches(
    labels: Int[np.ndarray, "examples"],
    *,
    classes_per_batch: int,
    examples_per_class: int,
    batches: int | None = None,
    seed: Seed = 0,
) -> Batches:
    """Batches of a few classes with equally many examples each, as pair losses want them.

    The classes of a batch are drawn without repetition, every class once before one comes again.
    So are the examples of a class, within a batch and, until all have come, over the batches; a
    class with fewer examples than a batch takes of it repeats some.

    Args:
      labels: the class of every example [examples].
      classes_per_batch: `P`, how many classes a batch has.
      examples_per_class: `K`, how many examples of each; they lie side by side.
      batches: how many batches; as many as the examples fill for None.
      seed: of the draw; a tuple such as `(seed, epoch)` draws anew every epoch.

    Returns:
      Numbers of examples [batches, classes_per_batch * examples_per_class].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: In Defense of the Triplet Loss for Person Re-Identification, arXiv 1703.07737,
    Section 2 (batches of P classes and K examples); `MPerClassSampler` of
    KevinMusgrave/pytorch-metric-learning draws alike, but starts every batch with a new shuffle.

    >>> labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    >>> rows = class_balanced_batches(labels, classes_per_batch=2, examples_per_class=2)
    >>> [len(set(labels[row])) for row in rows]
    [2, 2]
    """
    check_integer(labels=labels)
    check_rank("labels", labels, 1)
    check_count(classes_per_batch=classes_per_batch, examples_per_class=examples_per_class)
    labels = np.asarray(labels)
    size = classes_per_batch * examples_per_class
    batches = len(labels) // size if batches is None else batches
    check_count(batches=batches)
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    members = np.split(order, starts[1:])
    classes = len(members)
    check(
        classes_per_batch <= classes,
        "classes_per_batch",
        f"got {classes_per_batch}, takes at most the {classes} classes there are",
    )
    turns = _rounds(rng, classes, classes_per_batch, batches)
    out = np.empty((batches, classes_per_batch, examples_per_class), np.int64)
    for c, own in enumerate(members):
        batch, place = np.nonzero(turns == c)
        out[batch, place] = own[_rounds(rng, len(own), examples_per_class, len(batch))]
    return out.reshape(batches, size)


def hierarchical_batches(
    labels: Int[np.ndarray, "examples"],
    groups: Int[np.ndarray, "examples"],
    *,
    groups_per_batch: int = 2,
    classes_per_group: int,
    examples_per_class: int,
    batches: int | None = None,
    seed: Seed = 0,
) -> Batches:
    """Batches of classes from a few groups of classes: negatives of the same group are hard ones.

    The groups of a batch are drawn without repetition, every group once before one comes again,
    and of each of them classes and examples as in `class_balanced_batches`.

    Args:
      labels: the class of every example [examples].
      groups: the group of its class, such as the category of a product [examples].
      groups_per_batch: how many groups a batch has.
      classes_per_group: how many classes of each; groups of fewer are left out.
      examples_per_class: how many examples of each class; those of a group lie side by side.
      batches: how many batches; as many as the examples fill for None.
      seed: of the draw; a tuple such as `(seed, epoch)` draws anew every epoch.

    Returns:
      Numbers of examples [batches, groups_per_batch * classes_per_group * examples_per_class].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Deep Metric Learning to Rank (Cakir, He, Xia, Kulis, Sclaroff, CVPR 2019), Section 3.3;
    `HierarchicalSampler` of KevinMusgrave/pytorch-metric-learning makes as many batches of every
    set of groups.

    >>> labels = np.repeat(np.arange(8), 3)
    >>> rows = hierarchical_batches(
    ...     labels, labels // 2, classes_per_group=2, examples_per_class=2
    ... )
    >>> rows.shape, [len(set(labels[row] // 2)) for row in rows]
    ((3, 8), [2, 2, 2])
    """
    check_integer(labels=labels, groups=groups)
    check_rank("labels", labels, 1)
    check_shape("groups", groups, np.shape(labels), "[examples], as labels")
    check_count(groups_per_batch=groups_per_batch, classes_per_group=classes_per_group)
    check_count(examples_per_class=examples_per_class)
    labels, groups = np.asarray(labels), np.asarray(groups)
    part = classes_per_group * examples_per_class
    batches = len(labels) // (groups_per_batch * part) if batches is None else batches
    check_count(batches=batches)
    members = [np.nonzero(groups == g)[0] for g in np.unique(groups)]
    members = [own for own in members if len(np.unique(labels[own])) >= classes_per_group]
    check(
        groups_per_batch <= len(members),
        "groups_per_batch",
        f"got {groups_per_batch}, takes at most the {len(members)} groups of "
        f"{classes_per_group} classes or more",
    )
    seeds = seed if isinstance(seed, tuple) else (seed,)
    rng = np.random.default_rng(seeds)
    turns = _rounds(rng, len(members), groups_per_batch, batches)
    out = np.empty((batches, groups_per_batch, part), np.int64)
    for g, own in enumerate(members):
        batch, place = np.nonzero(turns == g)
        if len(batch):
            rows = class_balanced_batches(
                labels[own],
                classes_per_batch=classes_per_group,
                examples_per_class=examples_per_class,
                batches=len(batch),
                seed=(*seeds, g),
            )
            out[batch, place] = own[rows]
    return out.reshape(batches, groups_per_batch * part)


def _rounds(
    rng: np.random.Generator, count: int, size: int, rows: int
) -> Int[np.ndarray, "rows size"]:
    """Rows of `size` of `count` things; each comes once before one comes again, none twice a row.

    With fewer things than a row takes, a row has every thing as often as it can.
    """
    out = np.empty((rows, size), np.int64)
    left = rng.permutation(count)
    for row in range(rows):
        taken = left[:size]
        left = left[size:]
        while len(taken) < size:
            fresh = rng.permutation(count)
            # What the row has goes to the end of the new round.
            late = np.isin(fresh, taken)
            fresh = np.concatenate([fresh[~late], fresh[late]])
            missing = size - len(taken)
            taken, left = np.concatenate([taken, fresh[:missing]]), fresh[missing:]
        out[row] = taken
    return out
