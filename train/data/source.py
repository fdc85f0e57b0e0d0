"""Random access to the records of a prepared split."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from papyrax.train.data import prepare
from papyrax.train.errors import UserError

_KEPT_BYTES = 256 << 20


class Source:
    """The records of a split, by number.

    A split that fits is kept in memory as it is read, since decoding a record takes longer than a
    step of a small model. A record that cannot be read says which folder is damaged.
    """

    def __init__(self, records: Any, folder: str | os.PathLike[str]):
        self._records, self._folder = records, folder
        self._kept: dict[int, Any] | None = None
        [first] = self.read([0])
        if sum(np.asarray(value).nbytes for value in first.values()) * len(self) <= _KEPT_BYTES:
            self._kept = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, Any]:
        # What was read stays behind when the source is sent to a worker.
        return {**self.__dict__, "_kept": None if self._kept is None else {}}

    def read(self, numbers: Sequence[int]) -> list[Any]:
        """The records with these numbers, in one access where the files allow it."""
        kept: dict[int, Any] = {} if self._kept is None else self._kept
        missing = [n for n in dict.fromkeys(numbers) if n not in kept]
        try:
            new = dict(zip(missing, self._records.__getitems__(missing), strict=True))
            if any(all(value is None for value in record.values()) for record in new.values()):
                raise ValueError("a record is empty")  # of a file that was cut off
        except Exception as error:
            raise prepare.unreadable(self._folder, error) from error
        if self._kept is not None:
            self._kept.update(new)
        return [new[n] if n in new else kept[n] for n in numbers]


def open_source(name: str, builder: Any, split: str) -> Source:
    """The records of a split.

    Args:
      name: the data set, for messages.
      builder: its prepared `tfds.core.DatasetBuilder`.
      split: a split or a slice of one.

    Returns:
      The source; it holds one record or more.

    Raises:
      UserError: where there is no such split, or the files have no random access or are damaged.
    """
    info = builder.info
    for part in split.split("+"):
        if part.split("[")[0].strip() not in info.splits:
            raise UserError(f"{name}: has no split {part!r}; takes {', '.join(info.splits)}")
    try:
        count = info.splits[split].num_examples
    except Exception as error:
        raise UserError(f"{name}: split {split!r}: {' '.join(str(error).split())}") from error
    if not count:
        raise UserError(f"{name}: split {split!r} is empty")
    try:
        return Source(builder.as_data_source(split), builder.data_dir)
    except NotImplementedError as error:
        root = str(builder.data_dir).removesuffix(info.full_name)
        raise UserError(
            f"{name}: is prepared as {info.file_format.value}, which has no random access; "
            f"delete {builder.data_dir} and {prepare.how_to_prepare(name, root)}"
        ) from error
    except UserError:
        raise
    except Exception as error:
        raise prepare.unreadable(builder.data_dir, error) from error
