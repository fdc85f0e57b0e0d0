"""The embedded sets as TFDS builders, made from packages that are installed anyway.

| name            | train / test  | inputs                  | labels                          |
|-----------------|---------------|-------------------------|---------------------------------|
| `digits`        | 1438 / 359    | 8x8x1 images in [0, 1]  | 10 classes                      |
| `breast_cancer` | 456 / 113     | 30 standardised numbers | 2 classes                       |
| `wine`          | 142 / 36      | 13 standardised numbers | 3 classes                       |
| `iris`          | 120 / 30      | 4 standardised numbers  | 3 classes                       |
| `diabetes`      | 354 / 88      | 10 standardised numbers | a standardised number           |
| `photo_patches` | 6100 / 1300   | 32x32x3 images in [0,1] | none                            |
| `python_source` | 4 MiB/512 KiB | T bytes                 | the next byte of each           |

Splits are drawn once with a fixed seed, a fifth for testing, in equal shares of every class.
Statistics for standardising are those of the training split. A change to what is stored is a new
`VERSION`, which is a new folder.
"""

import hashlib
import pathlib
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

Records = Iterator[tuple[int, dict[str, Any]]]


def split_rows(groups: np.ndarray, test: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for testing, with the same share of every group in both.

    Args:
      groups: [rows]: the class of every row; equal numbers where there are no classes.
      test: share for testing.

    Returns:
      Sorted row numbers of the two splits, the same on every call.
    """
    rng = np.random.default_rng(0)
    held_out = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        held_out[rows[: round(test * len(rows))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the embedded sets share; they stay out of TFDS's own list of names."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar[dict[str, Any]] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        keys = ("image", "label") if "label" in self.FEATURES else None
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.FEATURES),
            supervised_keys=keys,
        )

    def _generate_examples(self, columns: dict[str, Iterable[Any]]) -> Records:
        for i, values in enumerate(zip(*columns.values(), strict=True)):
            yield i, dict(zip(columns, values, strict=True))


class Digits(_Builder):
    """Handwritten digits of scikit-learn."""

    FEATURES: ClassVar = {
        "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.float32),
        "label": tfds.features.ClassLabel(num_classes=10),
    }

    def _split_generators(self, dl_manager: Any) -> dict[str, Records]:
        from sklearn import datasets

        pixels, labels = datasets.load_digits(return_X_y=True)
        images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
        splits = zip(("train", "test"), split_rows(labels), strict=True)
        return {
            name: self._generate_examples({"image": images[rows], "label": labels[rows]})
            for name, rows in splits
        }


class _Table(_Builder):
    """A table of numbers of scikit-learn, standardised by the training split."""

    LOADER = ""
    NUM_FEATURES = 0
    NUM_CLASSES: int | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        label = (
            tfds.features.ClassLabel(num_classes=self.NUM_CLASSES)
            if self.NUM_CLASSES
            else tfds.features.Scalar(dtype=np.float32)
        )
        inputs = tfds.features.Tensor(shape=(self.NUM_FEATURES,), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"inputs": inputs, "label": label}),
            supervised_keys=("inputs", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Records]:
        from sklearn import datasets

        inputs, labels = getattr(datasets, self.LOADER)(return_X_y=True)
        is_regression = self.NUM_CLASSES is None
        train, test = split_rows(np.zeros(len(labels)) if is_regression else labels)
        inputs = _standardize(inputs, train)
        labels = _standardize(labels, train) if is_regression else labels
        return {
            name: self._generate_examples({"inputs": inputs[rows], "label": labels[rows]})
            for name, rows in (("train", train), ("test", test))
        }


def _standardize(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mean, deviation = values[rows].mean(axis=0), values[rows].std(axis=0)
    return ((values - mean) / deviation).astype(np.float32)


class BreastCancer(_Table):
    """Diagnoses from measurements of cell nuclei (Wisconsin)."""

    LOADER, NUM_FEATURES, NUM_CLASSES = "load_breast_cancer", 30, 2


class Wine(_Table):
    """Three cultivars of wine from chemical analyses."""

    LOADER, NUM_FEATURES, NUM_CLASSES = "load_wine", 13, 3


class Iris(_Table):
    """Three species of iris from four lengths."""

    LOADER, NUM_FEATURES, NUM_CLASSES = "load_iris", 4, 3


class Diabetes(_Table):
    """Progression of diabetes after a year, standardised: the mean has an error of about 1."""

    LOADER, NUM_FEATURES = "load_diabetes", 10


class PhotoPatches(_Builder):
    """Patches of scikit-learn's two photographs; test patches lie right of all training ones."""

    SIZE, STRIDE, BORDER = 32, 8, 512
    FEATURES: ClassVar = {
        "image": tfds.features.Tensor(shape=(SIZE, SIZE, 3), dtype=np.uint8, encoding="bytes")
    }

    def _split_generators(self, dl_manager: Any) -> dict[str, Records]:
        from sklearn import datasets

        photos = np.stack(datasets.load_sample_images().images)  # [2, 427, 640, 3]
        parts = {"train": photos[:, :, : self.BORDER], "test": photos[:, :, self.BORDER :]}
        return {
            name: self._generate_examples({"image": list(self._patches(part))})
            for name, part in parts.items()
        }

    def _patches(self, photos: np.ndarray) -> Iterator[np.ndarray]:
        for photo in photos:
            for top in range(0, photo.shape[0] - self.SIZE + 1, self.STRIDE):
                for left in range(0, photo.shape[1] - self.SIZE + 1, self.STRIDE):
                    yield photo[top : top + self.SIZE, left : left + self.SIZE]


class PythonSource(_Builder):
    """The interpreter's standard library as bytes, cut into sequences.

    Files are in the order of a hash of their paths; a tenth of them, by the same hash, is for
    testing. Each ends with a zero byte, which no source file holds. A sequence starts on the last
    byte of the one before, so that every byte is predicted once. The text is that of the
    interpreter at hand, and so is the folder's name.
    """

    SIZES: ClassVar = {"train": 4 << 20, "test": 512 << 10}

    LENGTH = 256

    def _info(self) -> tfds.core.DatasetInfo:
        tokens = tfds.features.Tensor(shape=(self.LENGTH + 1,), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"tokens": tokens})
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Records]:
        texts = read_source(self.SIZES)
        return {
            name: self._generate_examples({"tokens": cut(text, self.LENGTH)})
            for name, text in texts.items()
        }


def builder_class(name: str, sequence_length: int) -> type[_Builder]:
    """The builder of an embedded set; of text, the one with a config for this length."""
    found: type[_Builder] = {
        "breast_cancer": BreastCancer,
        "diabetes": Diabetes,
        "digits": Digits,
        "iris": Iris,
        "photo_patches": PhotoPatches,
        "python_source": PythonSource,
        "wine": Wine,
    }[name]
    if found is not PythonSource:
        return found
    config = f"python{platform.python_version()}_length{sequence_length}"
    body = {
        "LENGTH": sequence_length,
        "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name=config)],
        "__module__": __name__,
    }
    return type("PythonSource", (PythonSource,), body, skip_registration=True)


def cut(text: bytes, length: int) -> list[np.ndarray]:
    """Sequences of length + 1 bytes, each starting on the last byte of the one before."""
    data = np.frombuffer(text, np.uint8)
    return [data[i : i + length + 1] for i in range(0, len(data) - length, length)]


def read_source(sizes: dict[str, int]) -> dict[str, bytes]:
    """The standard library's files as "train" and "test" text of at most the given sizes."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    files = {}
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        # _sysconfigdata holds the paths of the machine that the interpreter was built on.
        if not skipped & set(relative.parts) and not path.name.startswith("_sysconfigdata"):
            files[hashlib.sha256(relative.as_posix().encode()).digest()] = path
    parts: dict[str, list[bytes]] = {"train": [], "test": []}
    filled = dict.fromkeys(parts, 0)
    for digest in sorted(files):
        split = "test" if digest[-1] % 10 == 0 else "train"
        if filled[split] < sizes[split]:
            parts[split].append(files[digest].read_bytes().replace(b"\r\n", b"\n") + b"\0")
            filled[split] += len(parts[split][-1])
    return {split: b"".join(texts)[: sizes[split]] for split, texts in parts.items()}
