"""The training loop: feeds the step, keeps the metrics, evaluates, saves and resumes."""

import contextlib
import dataclasses
import itertools
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from papyrax.train import checkpoint, distributed, feed, metrics, parts, sharding
from papyrax.train import folder as folder_lib
from papyrax.train.config import Config, validate
from papyrax.train.errors import UserError
from papyrax.train.files import write_atomic
from papyrax.train.step import Built, State, build


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a run leaves.

    Attributes:
      config: what was run.
      folder: where it is saved; None for a run that is not.
      metrics: every record, in order: {"step", "split", "loss", "accuracy", ...}.
      built: model, step and shardings.
      state: the last state: parameters, their average, the optimizer's state.
      stopped: whether the run was asked to stop (SIGTERM) before its end.
    """

    config: Config
    folder: pathlib.Path | None
    metrics: tuple[dict[str, Any], ...]
    built: Built
    state: State
    stopped: bool

    @property
    def params(self) -> Any:
        """The parameters by path, as nested dicts."""
        return self.state.params

    @property
    def model(self) -> Any:
        """The trained model, with the averaged parameters where they were kept."""
        params = self.state.params if self.state.ema is None else self.state.ema
        return nnx.merge(self.built.graphdef, params, self.state.model)


def fit(config: Config, *, show: bool = False) -> FitResult:
    """Trains a model.

    A run with a folder (`config.out`) that was stopped, however, goes on where it was saved last,
    and ends with the metrics that it would have had. One that fails before its first step leaves
    no folder that was not there before.

    Args:
      config: the run.
      show: show a progress bar on standard error.

    Returns:
      Metrics, parameters and where they are.

    Raises:
      UserError: where something in the config does not fit, or a step is not finite.

    >>> from papyrax.train.config import Config, Data, Mesh
    >>> result = fit(Config(data=Data("iris", batch_size=32), mesh=Mesh(data=1), steps=60))
    >>> result.metrics[0]["loss"] > result.metrics[-1]["loss"]
    True
    >>> result.model(np.zeros((1, 4), np.float32)).shape
    (1, 3)
    """
    validate(config)
    first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_on_sigterm(config.out is not None))
        place = None
        if config.out is not None:
            place = stack.enter_context(folder_lib.open_folder(config, first=first))
        mesh = sharding.make_mesh(config.mesh)
        train = feed.open_split(config, mesh)
        stack.callback(train.close)
        built = build(config, mesh, train.spec)
        if place is not None:
            place.keep(config)
        run = _Run(config, built, train, place, show=show and first)
        return run(stack, stop)


class _Run:
    """One run of `fit`."""

    def __init__(
        self,
        config: Config,
        built: Built,
        train: Any,
        place: folder_lib.Folder | None,
        *,
        show: bool,
    ):
        self.config, self.built, self.train = config, built, train
        self.place, self.show = place, show
        self.refresh_every = parts.curvature_plan(config)[1]
        self.test: Any = None
        self.best: float | None = None
        self.checkpoints: checkpoint.Checkpoints | None = None

    def __call__(self, stack: contextlib.ExitStack, stop: threading.Event) -> FitResult:
        state, step, offset = self._start(stack)
        path = None if self.place is None else self.place.path
        log = metrics.Log(path if jax.process_index() == 0 else None, offset, step)
        stack.callback(log.close)
        bar = stack.enter_context(metrics.bar(self.config.steps, step, show=self.show))
        pending: tuple[int, Any, Any] | None = None
        stopped = distributed.any_process(stop.is_set())
        while step < self.config.steps and not stopped:
            batch = next(self.train)
            refresh = self.built.refreshes and step % self.refresh_every == 0
            arrays = sharding.put(feed.prepare(batch), self.built.mesh)
            state, measured = self.built.train_step(refresh)(state, arrays)
            step += 1
            # One step behind, so that the device is never idle while the host looks.
            if pending is not None:
                self._check(*pending, state)
            pending = (step, batch, measured)
            last = step == self.config.steps
            logs = last or step % self.config.log_every == 0
            evaluates = self.config.eval.every and (last or step % self.config.eval.every == 0)
            saves = last or step % self.config.checkpoint.every == 0
            if jax.process_count() == 1:
                stopped = stop.is_set()
            elif logs or evaluates or saves:
                stopped = distributed.any_process(stop.is_set())
            bar.update(step)
            if not (logs or evaluates or saves or stopped):
                continue
            self._check(*pending, state)
            pending = None
            if logs:
                values = {n: float(v) for n, v in jax.device_get(measured).items() if n != "ok"}
                bar.update(step, log.write(step, "train", values))
                log.time(step)
            score = None
            if evaluates:
                record = log.write(step, self.config.eval.split, self._evaluate(state))
                bar.update(step, record)
                score = self._score(record)
            is_best = score is not None and (self.best is None or score > self.best)
            self.best = score if is_best else self.best
            if self.checkpoints is not None and (
                saves or stopped or (is_best and self.config.checkpoint.keep_best)
            ):
                saved = {
                    "step": step,
                    "data": self.train.get_state(),
                    "offset": log.offset,
                    "best": self.best,
                }
                self.checkpoints.save(step, state, saved, score)
        return FitResult(
            self.config, path, tuple(log.records), self.built, state, step < self.config.steps
        )

    def _start(self, stack: contextlib.ExitStack) -> tuple[State, int, int]:
        """The state to go on from, its step and the length of the metrics file there."""
        if self.place is not None:
            self.checkpoints = checkpoint.Checkpoints(self.place.path, self.config.checkpoint)
            stack.callback(self.checkpoints.close)
            found = self.checkpoints.restore(self.built.state)
            if found is not None:
                state, record = found
                self.train.set_state(record["data"])
                self.best = record["best"]
                if self.show and record["step"] < self.config.steps:
                    print(f"papyrax: resuming at step {record['step']}", file=sys.stderr)
                return state, record["step"], record["offset"]
        return self.built.init(jax.random.key(self.config.seed)), 0, 0

    def _score(self, record: dict[str, Any]) -> float | None:
        return None if self.checkpoints is None else self.checkpoints.score(record)

    def _evaluate(self, state: State) -> dict[str, float]:
        """Means over the examples of the evaluation's split."""
        chosen = self.config.eval
        if self.test is None:
            self.test = feed.open_split(self.config, self.built.mesh, split=chosen.split)
        self.test.seek(0)
        totals: dict[str, float] = {}
        for batch in itertools.islice(self.test, chosen.batches):
            arrays = sharding.put(feed.prepare(batch), self.built.mesh)
            for name, value in jax.device_get(self.built.eval_step(state, arrays)).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        self.test.close()
        examples = totals.pop("examples")
        return {name: value / examples for name, value in totals.items()}

    def _check(self, step: int, batch: Any, measured: Any, state: State) -> None:
        """Raises for a step that was not finite, and saves what led to it."""
        ok = bool(measured["ok"])  # waits for the step, which the device may not be able to do
        if self.place is not None:
            self.place.begun = True
        if ok:
            return
        values = {n: float(v) for n, v in jax.device_get(measured).items() if n != "ok"}
        wrong = [n for n, v in values.items() if not np.isfinite(v)] or ["update"]
        where = "" if self.place is None else f"; see {self._save_failure(step, batch, state)}"
        raise UserError(
            f"step {step}: the {' and the '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} "
            f"not finite (loss {values['loss']:g}){where}"
        )

    def _save_failure(self, step: int, batch: Any, state: State) -> pathlib.Path:
        """Batch, config and the parameters before the step, as files that NumPy reads."""
        assert self.place is not None
        target = self.place.path / "failed"
        target.mkdir(exist_ok=True)
        part = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
        np.savez(target / f"batch{part}.npz", **batch)
        arrays = checkpoint.flatten({"params": state.params, "model": state.model})
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            arrays = multihost_utils.process_allgather(arrays, tiled=True)
        if jax.process_index() == 0:
            np.savez(target / "params.npz", **{n: np.asarray(x) for n, x in arrays.items()})  # type: ignore[arg-type]
            write_atomic(target / "config.json", f"{self.config}\n")
            write_atomic(target / "step.txt", f"{step}\n")
        return target


@contextlib.contextmanager
def _on_sigterm(active: bool) -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs, where the run can be resumed."""
    asked = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
