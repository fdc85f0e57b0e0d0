"""What a data set holds, and how its stored features become `inputs` and `labels`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from papyrax.train.data.transforms import resize
from papyrax.train.errors import UserError

Example = dict[str, np.ndarray]
Task = Literal["classification", "regression", "language_model", "images"]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a model has to know of a data set.

    Attributes:
      name: the data set.
      split: the split that is read.
      task: what is to be learned.
      num_examples: examples in the split.
      features: shape and dtype of every key of one example, without the batch axis.
      num_classes: of a classification.
      vocab_size: of a language model.
    """

    name: str
    split: str
    task: Task
    num_examples: int
    features: Mapping[str, jax.ShapeDtypeStruct]
    num_classes: int | None = None
    vocab_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Decode:
    """Turns a stored record into an example; made by `decoder`.

    Attributes:
      task: what is to be learned.
      inputs: the stored feature that becomes "inputs".
      labels: the stored feature that becomes "labels"; None where there are none.
      image_size: side of the square that images are resized to; None leaves them.
      num_classes: of a classification.
      vocab_size: of a language model.
    """

    task: Task
    inputs: str
    labels: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    vocab_size: int | None = None

    def __call__(self, record: Mapping[str, Any]) -> Example:
        """The example of a record."""
        values = np.asarray(record[self.inputs])
        if self.task == "language_model":
            tokens = values.astype(np.int32)
            return {"inputs": tokens[:-1], "targets": tokens[1:]}
        if values.dtype == np.uint8 and values.ndim == 3:
            if self.image_size is not None:
                values = resize(values, self.image_size)
            values = values.astype(np.float32) / np.float32(255)
        example = {"inputs": values.astype(np.float32)}
        if self.labels is not None:
            dtype = np.int32 if self.task == "classification" else np.float32
            example["labels"] = np.asarray(record[self.labels], dtype)
        return example


def decoder(name: str, info: Any, image_size: int | None) -> Decode:
    """How the records of a prepared set become examples, by their features alone.

    "tokens" (bytes) make a language model; TFDS's supervised pair makes a classification where the
    label is a ClassLabel and a regression where it is a float; a lone image makes images.

    Args:
      name: the data set, for messages.
      info: its `tfds.core.DatasetInfo`.
      image_size: side of the square that images are resized to.

    Returns:
      The map from record to example.

    Raises:
      UserError: where the features are not of these kinds, or vary in shape.
    """
    import tensorflow_datasets as tfds

    features = info.features
    if "tokens" in features:
        return Decode("language_model", "tokens", vocab_size=256)
    keys = info.supervised_keys or ("image", "label")
    inputs, labels = keys[0], keys[1]
    if not all(isinstance(k, str) and k in features for k in keys[:2]):
        if list(features) != ["image"]:
            raise UserError(
                f"{name}: has no pair of inputs and labels; its features are {', '.join(features)}"
            )
        inputs, labels = "image", None

    shape, dtype = features[inputs].shape, np.dtype(features[inputs].np_dtype)
    is_image = dtype == np.uint8 and len(shape) == 3
    if dtype.kind not in "biuf":
        raise UserError(f"{name}: inputs {inputs!r} are neither images nor numbers")
    if image_size is not None and not is_image:
        raise UserError(f"{name}: takes no image_size; inputs {inputs!r} are not uint8 images")
    if None in shape and not (is_image and image_size is not None):
        hint = "; give image_size" if is_image else ""
        raise UserError(f"{name}: inputs {inputs!r} vary in shape, {shape}{hint}")

    if labels is None:
        return Decode("images", inputs, image_size=image_size)
    label = features[labels]
    if isinstance(label, tfds.features.ClassLabel):
        return Decode("classification", inputs, labels, image_size, label.num_classes)
    if np.dtype(label.np_dtype).kind == "f" and None not in label.shape:
        return Decode("regression", inputs, labels, image_size)
    raise UserError(f"{name}: labels {labels!r} are neither classes nor numbers: {label}")
