"""Checkpoints: written beside the training by Orbax, whole or not at all, and checked when read.

A checkpoint holds the state of `papyrax.train.step` under the paths of its arrays, and a record of
plain numbers: the data's position, the length of the metrics file, the best measure so far. Both
carry checksums, since a bit that flips on a disk is otherwise read as just another parameter.
"""

import contextlib
import json
import logging
import math
import pathlib
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, UInt32
from orbax.checkpoint import checkpoint_managers

from papyrax.train.config import Checkpoint as CheckpointConfig
from papyrax.train.errors import UserError
from papyrax.train.sharding import path_name
from papyrax.train.terminal import warn

Record = dict[str, Any]


def _checksum(x: Array) -> UInt32[Array, ""]:
    """A sum over the bits of an array that changes with every bit and with their order.

    Integers that wrap around add up the same in any order, so it is exact on every mesh.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = x.dtype.itemsize * 8
    words = jax.lax.bitcast_convert_type(x, jnp.uint32 if bits >= 32 else f"uint{bits}")
    words = words.astype(jnp.uint32)
    total = jnp.zeros((), jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis in range(words.ndim):
        place = place * jnp.uint32(words.shape[axis]) + jax.lax.broadcasted_iota(
            jnp.uint32, words.shape, axis
        )
    # Odd multipliers are invertible, so that no change of a single word goes unseen.
    return total + jnp.sum(words * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)


@jax.jit
def checksums(tree: Any) -> Any:
    """The checksum of every array of a tree."""
    return jax.tree.map(_checksum, tree)


def flatten(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, folder: pathlib.Path, config: CheckpointConfig):
        self._config = config
        self._sign = 1.0 if config.best == "accuracy" else -1.0
        policies = checkpoint_managers
        with _quiet():
            self._manager = ocp.CheckpointManager(
                folder.absolute() / "checkpoints",
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(
                        [
                            policies.LatestN(config.keep_last),
                            policies.BestN(
                                get_metric_fn=lambda metrics: metrics["score"],
                                n=config.keep_best,
                                keep_checkpoints_without_metrics=False,
                            ),
                        ]
                    ),
                    step_format_fixed_length=8,
                    cleanup_tmp_directories=True,
                    lightweight_initialize=False,
                ),
            )

    def score(self, measured: Mapping[str, float] | None) -> float | None:
        """How good an evaluation is, more being better; None for none."""
        if measured is None or self._config.best not in measured:
            return None
        score = self._sign * measured[self._config.best]
        return score if math.isfinite(score) else -math.inf

    def save(self, step: int, state: Any, record: Record, score: float | None = None) -> None:
        """Starts to save; the state may be donated once this returns.

        Args:
          step: the step.
          state: a pytree of arrays.
          record: plain numbers and strings.
          score: of the evaluation at this step, where there was one.
        """
        flat = flatten(state)
        sums = {path: int(x) for path, x in jax.device_get(checksums(flat)).items()}
        text = json.dumps({"record": record, "checksums": sums})
        metrics = None if score is None or not math.isfinite(score) else {"score": score}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(flat),
                record=ocp.args.JsonSave({"text": text, "checksum": zlib.crc32(text.encode())}),
            ),
            metrics=metrics,
            force=True,
        )

    def restore(self, abstract: Any) -> tuple[Any, Record] | None:
        """The newest checkpoint that can be read.

        Args:
          abstract: the state's shapes, dtypes and shardings.

        Returns:
          The state and its record, or None where there is no checkpoint. Newer ones that could not
          be read are deleted.

        Raises:
          UserError: where there are checkpoints and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                with _quiet():
                    found = self._read(step, abstract)
            except Exception as error:
                last = step == steps[-1]
                why = " ".join(str(error).split())[:120]
                text = f"checkpoint {step} cannot be read ({type(error).__name__}: {why})"
                if last:
                    where = self._manager.directory
                    raise UserError(f"{where}: {text}, and there is no other; delete it") from error
                warn(f"{text}; going back to the one before")
                continue
            for newer in steps[: steps.index(step)]:
                self._manager.delete(newer)
            return found
        return None

    def _read(self, step: int, abstract: Any) -> tuple[Any, Record]:
        flat = flatten(abstract)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    flat, restore_args=ocp.checkpoint_utils.construct_restore_args(flat)
                ),
                record=ocp.args.JsonRestore(),
            ),
        )
        text = restored.record["text"]
        if zlib.crc32(text.encode()) != restored.record["checksum"]:
            raise ValueError("the record's checksum does not match")
        saved = json.loads(text)
        for path, x in jax.device_get(checksums(restored.state)).items():
            if int(x) != saved["checksums"].get(path):
                raise ValueError(f"the checksum of {path} does not match")
        leaves = [restored.state[path] for path in flat]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves), saved["record"]

    def close(self) -> None:
        """Waits until everything is on the disk."""
        self._manager.wait_until_finished()
        self._manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's own account of a checkpoint that cannot be read from the terminal."""
    logger = logging.getLogger("absl")
    level, hook = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.unraisablehook = hook
