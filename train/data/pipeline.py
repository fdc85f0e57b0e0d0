"""Batches by position: `load` and the iterator that it returns."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from papyrax.train.data import prepare
from papyrax.train.data.source import Source, open_source
from papyrax.train.data.spec import Decode, Example, Spec, decoder
from papyrax.train.data.transforms import as_random
from papyrax.train.errors import UserError

Batch = dict[str, np.ndarray]

LONGEST = 1 << 16
"""The longest sequence of text; the test split holds a few of these."""


def load(
    name: str,
    *,
    batch_size: int,
    split: str = "train",
    seed: int = 0,
    epochs: int | None = None,
    shuffle: bool = True,
    drop_remainder: bool = True,
    process_index: int = 0,
    process_count: int = 1,
    data_dir: str | os.PathLike[str] | None = None,
    num_workers: int = 0,
    transforms: Sequence[Any] = (),
    image_size: int | None = None,
    sequence_length: int | None = None,
    with_index: bool = False,
) -> "Pipeline":
    """Opens a data set as a pipeline of batches, preparing it first where it is embedded.

    Global batch k holds the same examples whatever the number of processes; each process reads
    its `batch_size / process_count` of them. For an evaluation that counts every example once, give
    `shuffle=False, epochs=1, drop_remainder=False`: the last batch is filled up to the one shape,
    and "mask" [batch] is False where a row is filling.

    Args:
      name: an embedded set (`EMBEDDED`), or a TFDS name, "name/config:version", that is prepared
        as ArrayRecord. A name with "/" or ":" is always TFDS's.
      batch_size: examples a batch, over all processes.
      split: "train", "test", or TFDS's slicing such as "train[:90%]".
      seed: of the order and of random transforms, 0 or more.
      epochs: passes over the split; None goes on for ever.
      shuffle: draw a new order for every epoch.
      drop_remainder: leave out what does not fill a batch at the end of an epoch; False fills the
        last batch up and adds "mask".
      process_index: which process this is.
      process_count: how many there are.
      data_dir: where prepared sets are, instead of `$PAPYRAX_DATA` (embedded sets) or
        `$TFDS_DATA_DIR`.
      num_workers: processes that read ahead; 0 reads in threads of this one. The processes import
        the main script again, whose work must be under `if __name__ == "__main__":`.
      transforms: maps on one example, in order (see `papyrax.train.data.transforms`).
      image_size: side of the square that images are cut and resized to.
      sequence_length: of `python_source`, 256 by default.
      with_index: add "index" [batch], the number of each example in the split, for losses that
        remember something of every example.

    Returns:
      The pipeline, at its first batch.

    Raises:
      UserError: where the data set cannot be had; one line that says what to do.
      ValueError: for numbers that do not fit together.

    >>> batches = load("iris", batch_size=8)
    >>> next(batches)["inputs"].shape
    (8, 4)
    >>> batches.spec.num_classes
    3
    """
    least = {
        "batch_size": (batch_size, 1),
        "seed": (seed, 0),
        "epochs": (epochs, 1),
        "process_count": (process_count, 1),
        "num_workers": (num_workers, 0),
        "image_size": (image_size, 1),
        "sequence_length": (sequence_length, 1),
    }
    for argument, (value, low) in least.items():
        if value is not None and value < low:
            raise ValueError(f"{argument}: got {value}, takes {low} or more")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index: got {process_index}, takes 0 to {process_count - 1}")
    if batch_size % process_count:
        raise ValueError(
            f"batch_size: got {batch_size}, takes a multiple of process_count, {process_count}"
        )
    if sequence_length is not None and sequence_length > LONGEST:
        raise ValueError(f"sequence_length: got {sequence_length}, takes at most {LONGEST}")
    if sequence_length is not None and name != "python_source":
        raise UserError(f"{name}: takes no sequence_length; only python_source does")

    functions = [as_random(transform) for transform in transforms]
    builder = prepare.find(name, data_dir=data_dir, sequence_length=sequence_length or 256)
    decode = decoder(name, builder.info, image_size)
    source = open_source(name, builder, split)
    if drop_remainder and batch_size > len(source):
        raise UserError(
            f"{name}: batch_size {batch_size} is more than the {len(source)} examples of {split}"
        )
    batches = Batches(
        source=source,
        decode=decode,
        transforms=functions,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_remainder=drop_remainder,
        process_index=process_index,
        process_count=process_count,
        with_index=with_index,
    )
    example = batches.example(source.read([0])[0], (0, 0), Randomness(seed))
    spec = Spec(
        name=name,
        split=split,
        task=decode.task,
        num_examples=len(source),
        features={
            k: jax.ShapeDtypeStruct(np.shape(v), np.asarray(v).dtype) for k, v in example.items()
        },
        num_classes=decode.num_classes,
        vocab_size=decode.vocab_size,
    )
    if with_index:
        index = jax.ShapeDtypeStruct((), np.int32)
        spec = dataclasses.replace(spec, features={**spec.features, "index": index})
    identity = {
        "name": builder.info.full_name,
        "split": split,
        "num_examples": len(source),
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "drop_remainder": drop_remainder,
    }
    return Pipeline(batches, epochs=epochs, spec=spec, identity=identity, num_workers=num_workers)


@dataclasses.dataclass
class Batches:
    """The batch at any position, by position alone."""

    source: Source
    decode: Decode
    transforms: Sequence[Callable[[Example, np.random.Generator], Example]]
    batch_size: int
    seed: int
    shuffle: bool
    drop_remainder: bool
    process_index: int
    process_count: int
    with_index: bool = False

    def __post_init__(self) -> None:
        whole, rest = divmod(len(self.source), self.batch_size)
        self.per_epoch = whole if self.drop_remainder or not rest else whole + 1
        self._order: tuple[int, np.ndarray] | None = None

    def __call__(self, position: int) -> Batch:
        """The rows of this process of the global batch at `position`, counted over all epochs."""
        epoch, number = divmod(position, self.per_epoch)
        start = number * self.batch_size
        places = np.arange(start + self.process_index, start + self.batch_size, self.process_count)
        mask = places < len(self.source)
        places = np.where(mask, places, 0)
        numbers = self.order(epoch)[places]
        records = self.source.read(numbers.tolist())
        randomness = Randomness(self.seed)
        rows = [
            self.example(record, (epoch, int(place)), randomness)
            for record, place in zip(records, places, strict=True)
        ]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        if self.with_index:
            batch["index"] = numbers.astype(np.int32)
        return batch if self.drop_remainder else {**batch, "mask": mask}

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of the records in the order of an epoch."""
        if not self.shuffle:
            epoch = 0  # which all epochs share
        order = self._order  # that threads share, and two of them may be in different epochs
        if order is None or order[0] != epoch:
            size = len(self.source)
            rng = np.random.default_rng((self.seed, epoch))
            order = epoch, rng.permutation(size) if self.shuffle else np.arange(size)
            self._order = order
        return order[1]

    def example(self, record: Any, place: tuple[int, int], randomness: "Randomness") -> Example:
        """The example of a record at its place, an epoch and a number in it."""
        example = self.decode(record)
        for number, transform in enumerate(self.transforms):
            example = transform(example, randomness.at(*place, number))
        return example


class Randomness:
    """A generator that is set to a place, since making one takes longer than most transforms."""

    def __init__(self, seed: int):
        self._bits = np.random.Philox(key=seed)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def at(self, epoch: int, place: int, number: int) -> np.random.Generator:
        """The generator at the start of the stream of this place."""
        self._state["state"]["counter"][:] = (0, number, place, epoch)
        self._bits.state = self._state
        return self._generator


class Pipeline(Iterator[Batch]):
    """An iterator of batches that knows where it stands.

    Attributes:
      spec: what the data set holds.
      batches_per_epoch: batches of one pass, the same for every process.
      position: batches given so far, over all epochs.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        epochs: int | None,
        spec: Spec,
        identity: dict[str, Any],
        num_workers: int = 0,
    ):
        self.spec = spec
        self.batches_per_epoch = batches.per_epoch
        self.position = 0
        self._batches = batches
        self._end = sys.maxsize if epochs is None else epochs * batches.per_epoch
        self._identity = identity
        self._num_workers = num_workers
        self._iterator: Any = None

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch: Batch = next(self._iterator)
        self.position += 1
        return batch

    def _start(self) -> Iterator[Batch]:
        import grain

        if self.position >= self._end:
            return iter(())
        # Threads read ahead of the loop; a few batches are enough to hide their making.
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        positions = grain.MapDataset.range(self.position, self._end)
        dataset = positions.map(self._batches).to_iter_dataset(options)
        if self._num_workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # grain's workers look at absl's flags
                flags.FLAGS.mark_as_parsed()
            workers = grain.MultiprocessingOptions(num_workers=self._num_workers)
            dataset = dataset.mp_prefetch(workers)
        iterator: Iterator[Batch] = iter(dataset)
        return iterator

    def seek(self, position: int) -> None:
        """Makes the batch at `position`, counted over all epochs from 0, the next one."""
        self.close()
        self.position = position

    def get_state(self) -> dict[str, Any]:
        """Where the pipeline stands, as JSON: the position, and what it is a position in."""
        return {"position": self.position, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was called: the same batches follow.

        The number of processes and of workers may differ from then.

        Raises:
          UserError: for the state of a pipeline with other batches.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise UserError(
                    f"data: the saved position is for {key} {state.get(key)!r}, not {value!r}"
                )
        self.seek(state["position"])

    def close(self) -> None:
        """Ends reading ahead; the next batch starts it again."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        self._iterator = None
