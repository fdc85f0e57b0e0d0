"""A run that is killed at any moment and started again ends as if it had not been."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import engine
import numpy as np
import pytest
from engine import small

from papyrax.train import config as C
from papyrax.train import fit
from papyrax.train.checkpoint import Checkpoints, flatten

DEADLINE = 240

# Everything that has a state: dropout, augmentation, an average, the loss, curvature every third
# step, the best evaluation so far.
CONFIG = small(
    model=C.Part("mlp", {"widths": [16], "dropout": 0.2}),
    data=C.Data("digits", batch_size=32, transforms=("random_crop", "random_flip")),
    loss=C.Part("engine.moving_prior"),
    optimizer=C.Optimizer("engine.root_newton", 0.05, clip_norm=1.0),
    curvature=C.Curvature(every=3),
    schedule=C.Schedule("cosine_decay", warmup=5),
    ema=0.9,
    checkpoint=C.Checkpoint(every=4, best="accuracy"),
    eval=C.Eval(every=6, batches=2),
    steps=80,
)


def into(folder):
    return dataclasses.replace(CONFIG, out=str(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    return fit(into(tmp_path_factory.mktemp("runs") / "whole"))


def wait(child, condition):
    """Waits until the condition holds or the process has ended."""
    end = time.monotonic() + DEADLINE
    while child.is_alive() and not condition():
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.001)


def records(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def writing(folder):
    """Whether a checkpoint is being written."""
    return any("tmp" in p.name for p in folder.glob("checkpoints/*"))


def ended(child):
    child.join(DEADLINE)
    assert child.exitcode is not None
    return child.exitcode


def same_end(folder, whole):
    """Metrics to the byte, and the last checkpoint to the bit."""
    assert (folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()
    saved = Checkpoints(folder, CONFIG.checkpoint)
    state, record = saved.restore(whole.built.state)
    saved.close()
    assert record["step"] == CONFIG.steps
    for path, x in flatten(whole.state).items():
        np.testing.assert_array_equal(flatten(state)[path], x, err_msg=path)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(seed, whole, tmp_path):
    rng = random.Random(seed)
    folder, log = tmp_path / "run", tmp_path / "stderr"
    kills = 0
    for attempt in range(6):
        child = engine.process(into(folder), log)
        if attempt < 4:
            # Some progress or none, then any moment; every second time amid a checkpoint.
            least = records(folder) + rng.choice([0, 1, 7, 15])
            wait(child, lambda n=least: records(folder) >= n)
            if attempt % 2:
                wait(child, lambda: writing(folder))
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child.pid, signal.SIGKILL)
            kills += ended(child) == -signal.SIGKILL
        else:
            assert ended(child) == 0, log.read_text()
            break
    assert kills >= 3
    same_end(folder, whole)
    assert "cannot be read" not in log.read_text()  # a kill never leaves a damaged checkpoint


def test_killed_before_the_first_checkpoint(whole, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "stderr"
    child = engine.process(into(folder), log)
    wait(child, lambda: (folder / "config.json").exists())
    os.kill(child.pid, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    assert not list(folder.glob("checkpoints/0*"))
    child = engine.process(into(folder), log)
    assert ended(child) == 0, log.read_text()
    same_end(folder, whole)


def test_sigterm_saves_and_ends_well(whole, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "stderr"
    child = engine.process(into(folder), log)
    wait(child, lambda: records(folder) >= 10)
    os.kill(child.pid, signal.SIGTERM)
    assert ended(child) == 0, log.read_text()
    steps = sorted(int(p.name) for p in folder.glob("checkpoints/0*"))
    stopped = steps[-1]
    assert 10 - 2 <= stopped < CONFIG.steps  # two of the records may be of evaluations
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    assert f'"step": {stopped},' in last  # nothing was done after the step that is saved
    child = engine.process(into(folder), log)
    assert ended(child) == 0, log.read_text()
    same_end(folder, whole)


def test_resumed_in_the_same_process_from_every_checkpoint(whole, tmp_path):
    """The state after `restore` is the one that was saved, whichever step it is."""
    shutil.copytree(whole.folder, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / f"{CONFIG.steps:08d}"
    shutil.rmtree(newest)
    before = sorted(int(p.name) for p in newest.parent.iterdir())[-1]
    assert before < CONFIG.steps
    fit(into(tmp_path / "run"))
    same_end(tmp_path / "run", whole)


def test_the_command_is_killed_and_resumed_by_itself(tmp_path):
    """The command line, with a signal to a real process; then the same command again."""
    words = ["train", "digits-mlp", "--mesh.data", "1", "--steps", "120", "--log-every", "1"]
    words += ["--checkpoint.every", "5", "--eval.every", "40"]
    command = [sys.executable, "-m", "papyrax.train", *words]
    run = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run([*command, "--out", "whole"], timeout=DEADLINE, **run)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "killed"
    for end in (signal.SIGKILL, signal.SIGTERM):
        least = records(folder) + 20
        with subprocess.Popen([*command, "--out", "killed"], **run) as child:
            while records(folder) < least and child.poll() is None:
                time.sleep(0.002)
            child.send_signal(end)
            out, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == (0 if end is signal.SIGTERM else -end), err
    assert "the same command goes on from here" in out
    done = subprocess.run([*command, "--out", "killed"], timeout=DEADLINE, **run)
    assert done.returncode == 0, done.stderr
    whole, killed = ((tmp_path / n / "metrics.jsonl").read_bytes() for n in ("whole", "killed"))
    assert whole == killed
