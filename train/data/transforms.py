"""Maps on one example: augmentation, and resizing of images that vary in size.

A transform is a function of an example, or of an example and a NumPy generator. Generators are
seeded by the pipeline's seed, the epoch and the example's place in it, so augmentation resumes
exactly and does not depend on the number of processes.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from papyrax.train.errors import UserError

__all__ = ["random_crop", "random_flip"]

Example = dict[str, np.ndarray]


def random_crop(
    example: Example, rng: np.random.Generator, *, padding: int | None = None
) -> Example:
    """Shifts the image by up to `padding` pixels, filled with zeros.

    Args:
      example: with "inputs" [height, width, channels].
      rng: the example's own generator.
      padding: pixels on every side; an eighth of the shorter side by default.

    Returns:
      The example with the shifted image, of the same shape.

    >>> example = {"inputs": np.ones((8, 8, 1))}
    >>> random_crop(example, np.random.default_rng(0))["inputs"].shape
    (8, 8, 1)
    """
    image = example["inputs"]
    height, width = image.shape[:2]
    padding = min(height, width) // 8 if padding is None else padding
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return {**example, "inputs": padded[top : top + height, left : left + width]}


def random_flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrors the image left to right, half of the time.

    Args:
      example: with "inputs" [height, width, channels].
      rng: the example's own generator.

    Returns:
      The example, mirrored or not.

    >>> example = {"inputs": np.arange(4.0).reshape(1, 4, 1)}
    >>> random_flip(example, np.random.default_rng(0))["inputs"].ravel().tolist()
    [3.0, 2.0, 1.0, 0.0]
    """
    if rng.random() < 0.5:
        return example
    return {**example, "inputs": example["inputs"][:, ::-1]}


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The largest central square of a uint8 image [height, width, channels], at `size` x `size`."""
    from PIL import Image

    height, width, channels = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    picture = Image.fromarray(square[..., 0] if channels == 1 else square)
    scaled = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(scaled).reshape(size, size, channels)


def as_random(transform: Any) -> Callable[[Example, np.random.Generator], Example]:
    """A transform in any of its forms as a function of an example and a generator.

    Args:
      transform: a function of (example) or of (example, generator), or a `grain.transforms.Map` or
        `RandomMap`.

    Returns:
      The function.

    Raises:
      UserError: for anything else.
    """
    if hasattr(transform, "random_map"):
        function: Callable[[Example, np.random.Generator], Example] = transform.random_map
        return function
    if hasattr(transform, "map"):
        return _Plain(transform.map)
    if not callable(transform):
        raise UserError(f"transforms: got {transform!r}, takes functions of an example")
    required = [
        p
        for p in inspect.signature(transform).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return transform if len(required) > 1 else _Plain(transform)


class _Plain:
    """A function of an example that ignores the generator; unlike a lambda it can be sent on."""

    def __init__(self, function: Callable[[Example], Example]):
        self.function = function

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return self.function(example)
