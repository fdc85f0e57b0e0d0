"""The pairs of a batch: on one device, on all devices of a mesh axis, or with a memory."""

from typing import Any

import jax
import jax.numpy as jnp

from ..numerics import check, check_boolean, check_floating, check_rank, check_shape, upcast
from ._shared import everyone, rows_before, rows_of_all
from .pairs import PairMasks, Pairs, Relate, check_pair_labels
from .similarity import Similarity


def check_engine(chunk_size: Any, axis_name: Any, ring: Any) -> None:
    """Raise unless the arguments that every in-batch loss shares fit together."""
    good = chunk_size is None or (isinstance(chunk_size, int) and chunk_size > 0)
    check(good, "chunk_size", f"got {chunk_size!r}, takes None or a positive integer")
    check(not ring or axis_name is not None, "ring", "got True without an axis_name to go round")
    check(
        not ring or chunk_size is None,
        "chunk_size",
        "got a number together with ring, whose blocks are the batches of the devices",
    )


def across(
    x: Any,
    y: Any,
    *,
    compare: Similarity,
    labels: Any = None,
    reference_labels: Any = None,
    exclude_self: bool = False,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
    index: Any = None,
    relate: Relate | None = None,
) -> Pairs:
    """Pairs of anchors `x` with references `y`; without labels, equal rows are the positives."""
    check_engine(chunk_size, axis_name, ring)
    rows, columns = jnp.shape(x)[0], jnp.shape(y)[0]
    if index is None:
        index = jnp.arange(rows, dtype=jnp.int32) + rows_before(rows, axis_name)
    other = jnp.arange(columns, dtype=jnp.int32) + rows_before(columns, axis_name)
    if labels is None:
        labels, reference_labels = index, other
    if isinstance(labels, PairMasks):
        total = rows_of_all(columns, axis_name)
        for name, mask in labels._asdict().items():
            check_shape(name, mask, (rows, total), "[anchors, references of all devices]")
            check_boolean(**{name: mask})
        labels, reference_labels = PairMasks(*map(jnp.asarray, labels)), ()
    references = (jnp.asarray(y), jax.tree.map(jnp.asarray, reference_labels), other)
    if not ring:
        references = everyone(references, axis_name)
    a, b = upcast(jnp.asarray(x), references[0])
    return Pairs(
        (a, jax.tree.map(jnp.asarray, labels), index),
        (b, *references[1:]),
        compare,
        exclude_self,
        chunk_size,
        axis_name if ring else None,
        relate,
    )


def in_batch(
    embeddings: Any,
    labels: Any,
    references: Any = None,
    reference_labels: Any = None,
    *,
    compare: Similarity,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Pairs:
    """Pairs of a labelled batch with itself or with given references, checked."""
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    check(jnp.shape(embeddings)[0] > 0, "embeddings", "got no rows, takes one or more")
    if not isinstance(labels, PairMasks):
        check_pair_labels("labels", labels, jnp.shape(embeddings)[0])
    own = references is None
    if own:
        references, reference_labels = embeddings, labels
    else:
        check_floating(references=references)
        check_shape("references", references, (None, jnp.shape(embeddings)[1]), "as embeddings")
        if not isinstance(labels, PairMasks):
            check(
                reference_labels is not None and jnp.ndim(reference_labels) == jnp.ndim(labels),
                "reference_labels",
                "takes the labels of the references, of the kind of labels",
            )
            check_pair_labels("reference_labels", reference_labels, jnp.shape(references)[0])
    return across(
        embeddings,
        references,
        compare=compare,
        labels=labels,
        reference_labels=reference_labels,
        exclude_self=own,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
