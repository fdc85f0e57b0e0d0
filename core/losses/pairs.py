"""The engine of the pair losses: which pairs there are, and sums over them that fit in memory.

A loss of this kind is a short formula over the pairs (anchor, reference) of a batch. `Pairs` knows
which pairs are positive and which negative, and offers reductions over the references of each
anchor: `total`, `log_sum_exp`, `largest` and the several largest, `hardest`. They see the
references block by block, so the same formula runs

- on the whole matrix of pairs (the default),
- on chunks of `chunk_size` references, with memory in proportion to the batch,
- on the batches of all devices of a mesh axis, gathered (`axis_name`), or
- with the references going round the devices of that axis (`ring=True`), so that no device ever
  holds the embeddings of all.

All of them have exact derivatives of first and second order; those of a ring in reverse mode first
(`grad`, `jvp` of `grad`, `grad` of `grad`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import check, check_integer, check_rank, check_shape
from .similarity import Similarity


class PairMasks(NamedTuple):
    """Which pairs are positive and which negative, in place of labels.

    Attributes:
      positive: true where the reference belongs to the anchor [anchors, references].
      negative: true where it does not [anchors, references]; a pair may be neither.
    """

    positive: Bool[Array, "anchors references"]
    negative: Bool[Array, "anchors references"]


Labels = Int[Array, "batch"] | Bool[Array, "batch labels"] | PairMasks


def _related(labels: Array, others: Array) -> Bool[Array, "anchors references"]:
    """Equal labels, or sets of labels that meet."""
    if labels.ndim == 1:
        return labels[:, None] == others[None]
    return jnp.matmul(labels.astype(jnp.float32), others.astype(jnp.float32).T) > 0


def check_pair_labels(name: str, labels: Any, rows: int) -> None:
    """Raise unless `labels` are integers [rows] or booleans [rows, labels]."""
    check_rank(name, labels, (1, 2))
    if jnp.ndim(labels) == 1:
        check_integer(**{name: labels})
    else:
        check(
            jnp.result_type(labels) == jnp.bool_,
            name,
            f"got dtype {jnp.result_type(labels)} and two axes, takes booleans [batch, labels]",
        )
    check(
        jnp.shape(labels)[0] == rows,
        name,
        f"got shape {jnp.shape(labels)}, takes {rows} rows, one an embedding",
    )


def pair_masks(
    labels: Int[Array, "anchors"] | Bool[Array, "anchors labels"],
    reference_labels: Int[Array, "references"] | Bool[Array, "references labels"] | None = None,
) -> PairMasks:
    """Positive and negative pairs from labels.

    A pair is positive where the labels are equal or, with several labels an example, where the two
    share one; every other pair is negative. An example makes no pair with itself.

    Args:
      labels: the class of each anchor [anchors], or booleans, which labels each has
        [anchors, labels].
      reference_labels: the same of the references [references] or [references, labels]; by default
        the references are the anchors.

    Returns:
      `PairMasks` of arrays [anchors, references].

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: the usual convention of metric learning, as in
    KevinMusgrave/pytorch-metric-learning.

    >>> pair_masks(jnp.array([0, 1, 0])).positive.astype(int).tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    check_rank("labels", labels, (1, 2))
    check_pair_labels("labels", labels, jnp.shape(labels)[0])
    labels = jnp.asarray(labels)
    if reference_labels is None:
        same = _related(labels, labels)
        other = ~jnp.eye(len(labels), dtype=bool)
        return PairMasks(same & other, ~same & other)
    check_shape("reference_labels", reference_labels, (None, *labels.shape[1:]), "as labels")
    check_pair_labels("reference_labels", reference_labels, jnp.shape(reference_labels)[0])
    same = _related(labels, jnp.asarray(reference_labels))
    return PairMasks(same, ~same)


class Block(NamedTuple):
    """The pairs of all anchors with some of the references.

    Attributes:
      values: similarities or distances [anchors, block].
      positive: which pairs are positive [anchors, block].
      negative: which pairs are negative [anchors, block].
      number: which reference each column is [block].
    """

    values: Float[Array, "anchors block"]
    positive: Bool[Array, "anchors block"]
    negative: Bool[Array, "anchors block"]
    number: Int[Array, "block"]


Relate = Callable[[Any, Any], tuple[Array, Array]]
"""From labels of anchors and of references to masks [anchors, references]: positive, negative."""

Term = Callable[..., Any]
"""`term(block, *per_anchor) -> [anchors, block]`, `per_anchor` arrays as columns [anchors, 1]."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The pairs of a batch of anchors with references. Made by the module `batch_pairs`.

    Attributes:
      anchors: embeddings [anchors, features], labels or `PairMasks`, index [anchors].
      references: embeddings [references, features], labels, index [references].
      compare: similarity or distance of two sets of embeddings.
      exclude_self: whether an anchor makes no pair with the reference of its own index.
      chunk_size: how many references are looked at together; all of them for None.
      ring_axis: the mesh axis round which the references go; None without.
      relate: which pairs are positive and which negative; by equal or shared labels for None.
    """

    anchors: tuple[Any, Any, Any]
    references: tuple[Any, Any, Any]
    compare: Similarity
    exclude_self: bool = True
    chunk_size: int | None = None
    ring_axis: str | None = None
    relate: Relate | None = None

    @property
    def size(self) -> int:
        """How many references there are on all devices."""
        devices = 1 if self.ring_axis is None else jax.lax.axis_size(self.ring_axis)
        return int(self.references[2].shape[0] * devices)

    @property
    def dtype(self) -> Any:
        """The dtype that sums are formed in."""
        return self.anchors[0].dtype

    def _block(self, anchors: Any, references: Any) -> Block:
        (x, labels, index), (y, other_labels, other_index) = anchors, references
        there = (other_index >= 0)[None]
        if isinstance(labels, PairMasks):
            positive, negative = (jnp.take(m, other_index, axis=1, mode="clip") for m in labels)
        elif self.relate is not None:
            positive, negative = self.relate(labels, other_labels)
        else:
            positive = _related(labels, other_labels)
            negative = ~positive
        if self.exclude_self:
            there &= index[:, None] != other_index[None]
        return Block(self.compare(x, y), positive & there, negative & there, other_index)

    @functools.cached_property
    def dense(self) -> Block:
        """All pairs at once; for the losses that need every pair of an anchor together."""
        return self._block(self.anchors, self.references)

    def _blocks(self) -> Any:
        """The references in chunks: arrays [chunks, chunk_size, ...]; absent ones have index -1."""
        count = self.references[2].shape[0]
        size = min(self.chunk_size or count, count)
        chunks = -(-count // size)

        def split(x: Array, fill: int = 0) -> Array:
            padding = [(0, chunks * size - count)] + [(0, 0)] * (x.ndim - 1)
            return jnp.pad(x, padding, constant_values=fill).reshape(chunks, size, *x.shape[1:])

        y, labels, index = self.references
        return split(y), jax.tree.map(split, labels), split(index, -1)

    def _fold(self, term: Term, per_anchor: tuple[Array, ...], reduce: Any, merge: Any) -> Any:
        """`reduce(term(block))` [anchors], of several blocks those together that `merge` merges."""

        def part(floats: Any, integers: Any, references: Any) -> Any:
            x, columns = floats
            return reduce(term(self._block((x, *integers), references), *columns), 1)

        x, *integers = self.anchors
        floats = (x, tuple(jnp.asarray(c, self.dtype)[:, None] for c in per_anchor))
        if self.ring_axis is not None:
            return _ring(part, merge, self.ring_axis, floats, integers, self.references)
        if self.chunk_size is None:
            return reduce(term(self.dense, *floats[1]), 1)
        # The backward pass forms each block anew.
        one = jax.checkpoint(lambda chunk: part(floats, integers, chunk))
        first, *rest = (
            jax.tree.map(lambda a, s=s: a[s], self._blocks()) for s in (0, slice(1, None))
        )
        return jax.lax.scan(lambda out, chunk: (merge(out, one(chunk)), None), one(first), *rest)[0]

    def constant(self) -> "Pairs":
        """The same pairs without gradient."""
        stop = jax.lax.stop_gradient
        return dataclasses.replace(
            self,
            anchors=(stop(self.anchors[0]), *self.anchors[1:]),
            references=(stop(self.references[0]), *self.references[1:]),
        )

    def total(self, term: Term, *per_anchor: Array) -> Float[Array, "anchors"]:
        """`sum_j term(block, *per_anchor)` over the references of each anchor."""
        return self._fold(term, per_anchor, jnp.sum, jnp.add)

    def bound(self, term: Term, *per_anchor: Array) -> Float[Array, "anchors"]:
        """`max_j term(block, *per_anchor)`, a constant for every derivative."""
        per_anchor = jax.lax.stop_gradient(per_anchor)
        top = self.constant()._fold(term, per_anchor, jnp.max, jnp.maximum)
        return jax.lax.stop_gradient(top)

    def count(self, which: Callable[[Block], Array]) -> Float[Array, "anchors"]:
        """How many references of each anchor `which(block)` is true for."""
        return self.total(lambda block: which(block).astype(self.dtype))

    def tally(self, term: Term, size: int) -> Float[Array, "anchors size"]:
        """Weights summed by the place that they are for.

        `term(block) -> places, weights`, both [anchors, block, any], places from 0 to `size - 1`.
        """

        def add(pair: tuple[Array, Array], axis: int) -> Array:
            del axis
            places, weights = (x.reshape(len(x), -1) for x in pair)
            # Of an array, so that the zeros vary over the mesh as the weights do.
            zeros = jnp.broadcast_to(0 * weights[:, :1], (len(weights), size))
            return zeros.at[jnp.arange(len(weights))[:, None], places].add(weights)

        return self._fold(term, (), add, jnp.add)

    def log_sum_exp(
        self, term: Term, which: Callable[[Block], Array], *per_anchor: Array
    ) -> Float[Array, "anchors"]:
        """`log sum_j exp(term_j)` over the pairs that `which` picks; minus infinity over none."""
        lowest = jnp.finfo(self.dtype).min

        def masked(block: Block, *columns: Array) -> Array:
            return jnp.where(which(block), term(block, *columns), lowest)

        def shifted(block: Block, top: Array, *columns: Array) -> Array:
            there = which(block)
            exponent = jnp.where(there, term(block, *columns) - top, 0)
            return jnp.where(there, jnp.exp(exponent), 0)

        top = self.bound(masked, *per_anchor)
        total = self.total(shifted, top, *per_anchor)
        none = total == 0
        return jnp.where(none, -jnp.inf, top + jnp.log(jnp.where(none, 1, total)))

    def largest(self, which: Callable[[Block], Array], sign: int = 1) -> Float[Array, "anchors"]:
        """The largest (smallest for `sign=-1`) value among the pairs that `which` picks.

        Zero where there are none; of equal ones the first.
        """
        lowest = jnp.finfo(self.dtype).min

        # By the number of the reference, not by its value: computed anew, that may round otherwise.
        def term(b: Block) -> tuple[Array, Array]:
            value = jnp.where(which(b), sign * b.values, lowest)
            return value, jnp.broadcast_to(b.number, value.shape)

        def first(pair: tuple[Array, Array], axis: int) -> tuple[Array, Array]:
            place = jnp.argmax(pair[0], axis, keepdims=True)
            value, index = (jnp.take_along_axis(x, place, axis).squeeze(axis) for x in pair)
            return value, index

        def merge(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
            better = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
            return jnp.where(better, b[0], a[0]), jnp.where(better, b[1], a[1])

        _, chosen = self.constant()._fold(term, (), first, merge)
        return self.total(
            lambda b, number: jnp.where(which(b) & (b.number == number), b.values, 0), chosen
        )

    def ranked(self, which: Callable[[Block], Array], count: int) -> tuple[Array, Array]:
        """The `count` largest values that `which` picks, and their references [anchors, count].

        In descending order, of equal ones the first, without gradient. Where there are fewer, the
        lowest number of the dtype.
        """
        lowest = jnp.finfo(self.dtype).min

        def term(b: Block) -> tuple[Array, Array]:
            value = jnp.where(which(b), b.values, lowest)
            return value, jnp.broadcast_to(b.number, value.shape)

        def first(pair: tuple[Array, Array], axis: int) -> tuple[Array, Array]:
            short = ((0, 0), (0, max(count - pair[0].shape[axis], 0)))
            value, number = (jnp.pad(x, short, constant_values=c) for x, c in zip(pair, fill))
            value, place = jax.lax.top_k(value, count)
            return value, jnp.take_along_axis(number, place, axis)

        def merge(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
            value, number = (jnp.concatenate(x, 1) for x in zip(a, b))
            down, number = jax.lax.sort((-value, number), dimension=1, num_keys=2)
            return -down[:, :count], number[:, :count]

        fill = (lowest, -1)
        return self.constant()._fold(term, (), first, merge)

    def hardest(
        self, which: Callable[[Block], Array], count: int
    ) -> tuple[Float[Array, "anchors count"], Bool[Array, "anchors count"]]:
        """The `count` largest values that `which` picks, and which are there; zero elsewhere."""
        count = min(count, self.size)
        lowest = jnp.finfo(self.dtype).min
        if self.chunk_size is None and self.ring_axis is None:
            masked = jnp.where(which(self.dense), self.dense.values, lowest)
            value, _ = jax.lax.top_k(masked, count)
            there = value > lowest
            return jnp.where(there, value, 0), there

        def at(b: Block, number: Array) -> Array:
            hit = which(b)[..., None] & (b.number[:, None] == number)
            return jnp.where(hit, b.values[..., None], 0)

        top, chosen = self.ranked(which, count)
        return self.total(at, chosen), top > lowest


def positive(block: Block) -> Bool[Array, "anchors block"]:
    """The positive pairs."""
    return block.positive


def negative(block: Block) -> Bool[Array, "anchors block"]:
    """The negative pairs."""
    return block.negative


def either(block: Block) -> Bool[Array, "anchors block"]:
    """The pairs that are positive or negative."""
    return block.positive | block.negative


def _ring(part: Any, merge: Any, axis: str, floats: Any, integers: Any, references: Any) -> Any:
    """`part(floats, integers, references)` merged over the references of all devices of `axis`.

    The references go round, so a device never holds more than one other device's. JAX would keep
    every block that passed for the backward pass; this one sends them round again, together
    with their gradients.
    """
    size = jax.lax.axis_size(axis)
    shift = [(i, (i - 1) % size) for i in range(size)]
    y, *rest = references

    def send(tree: Any) -> Any:
        return jax.tree.map(lambda a: jax.lax.ppermute(a, axis, shift), tree)

    def like(tree: Any) -> Any:
        # A product, so that the zeros vary over the mesh as the array does.
        return jax.tree.map(lambda a: a * 0, tree)

    def forward(floats: Any, y: Any, integers: Any, rest: Any) -> Any:
        first = part(floats, integers, (y, *rest))

        def step(carry: Any, _: None) -> Any:
            total, y, rest = carry
            y, rest = send((y, rest))
            return (merge(total, part(floats, integers, (y, *rest))), y, rest), None

        (total, _, _), _ = jax.lax.scan(step, (first, y, rest), None, length=size - 1)
        return total

    if merge is not jnp.add:
        return forward(floats, y, integers, rest)

    # Everything traced is an argument: a rule of this kind may not close over it.
    fold = jax.custom_vjp(forward)

    def backward(saved: Any, ct: Array) -> Any:
        floats, y, integers, rest = saved

        def step(carry: Any, _: None) -> Any:
            floats_ct, y_ct, y, rest = carry
            _, pull = jax.vjp(lambda f, y: part(f, integers, (y, *rest)), floats, y)
            more, here = pull(ct)
            floats_ct = jax.tree.map(jnp.add, floats_ct, more)
            return (floats_ct, *send((y_ct + here, y, rest))), None

        start = (like(floats), like(y), y, rest)
        (floats_ct, y_ct, _, _), _ = jax.lax.scan(step, start, None, length=size)
        return floats_ct, y_ct, None, None

    fold.defvjp(lambda *args: (forward(*args), args), backward)
    return fold(floats, y, integers, rest)
