"""The data of a config, as the step takes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from papyrax.train import objectives, parts, sharding
from papyrax.train.config import Config
from papyrax.train.data import Pipeline, load

_GIVEN = (
    "name",
    "split",
    "batch_size",
    "seed",
    "epochs",
    "shuffle",
    "drop_remainder",
    "process_index",
    "process_count",
    "transforms",
    "with_index",
)


def open_split(config: Config, mesh: Mesh | None = None, *, split: str | None = None) -> Pipeline:
    """Opens the training split, or the one that is named, for this process.

    Args:
      config: the run.
      mesh: says which part of each batch this process reads; all of it by default.
      split: a split for evaluation, which is read once, in order and whole.

    Returns:
      The pipeline.

    Raises:
      UserError: where the data set or its options do not fit.
    """
    data = config.data
    parts.check_options("data", data.name, data.options, load, given=_GIVEN)
    index, count = (0, 1) if mesh is None else sharding.data_shard(mesh)
    common: dict[str, Any] = {
        "batch_size": data.batch_size,
        "process_index": index,
        "process_count": count,
        **data.options,
    }
    if split is None:
        transforms = [parts.find("transform", name) for name in data.transforms]
        chosen: dict[str, Any] = {
            "split": "train",
            "seed": config.seed,
            "transforms": transforms,
            "with_index": objectives.needs_index(config),
        }
    else:
        chosen = {"split": split, "shuffle": False, "epochs": 1, "drop_remainder": False}
    return parts.build_part("data", data.name, lambda: load(data.name, **common, **chosen))


def rename(key: str) -> str:
    """What the step calls a key of a batch: what is to be learned is "labels" for text too."""
    return "labels" if key == "targets" else key


def prepare(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of a pipeline with the step's names."""
    return {rename(key): value for key, value in batch.items()}
