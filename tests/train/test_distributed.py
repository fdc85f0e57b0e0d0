"""Several processes on this machine train as one."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import engine
import numpy as np
import pytest
from engine import small
from xla_flags import xla_flags

from papyrax.train import config as C
from papyrax.train import distributed, fit
from papyrax.train.errors import UserError

DEADLINE = 240

CONFIG = small(
    model=C.Part("mlp", {"widths": [32]}),
    optimizer=C.Optimizer("adamw", 1e-2),
    ema=0.9,
    mesh=C.Mesh(data=2, model=2),
    checkpoint=C.Checkpoint(every=4),
    eval=C.Eval(every=6),
    steps=24,
)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "JAX_NUM_PROCESSES: got nothing, takes a number"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES: got 'two', takes a number"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID: got nothing"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID: got 2, takes 0 to 1"),
    ],
)
def test_an_incomplete_environment_is_named(environ, message):
    with pytest.raises(UserError, match=message):
        distributed.initialize({"JAX_COORDINATOR_ADDRESS": "localhost:1", **environ})


def test_without_a_coordinator_there_is_one_process():
    distributed.initialize({})
    assert distributed.any_process(True)
    assert not distributed.any_process(False)


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def start(config, folder, processes=2, devices=2):
    """The command line, once a process, as a user would start it."""
    path = folder.parent / "config.json"
    path.write_text(str(dataclasses.replace(config, out=str(folder))))
    port, children = free_port(), []
    for index in range(processes):
        environ = {
            **os.environ,
            "PYTHONPATH": os.path.dirname(engine.__file__),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags(devices),
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "papyrax.train", "train", str(path)],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return children


def finish(children):
    try:
        outputs = [child.communicate(timeout=DEADLINE) for child in children]
    finally:
        for child in children:
            child.kill()
    return [child.returncode for child in children], outputs


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def records(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two processes of two devices each: the batch over the processes, parameters within them."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    codes, outputs = finish(start(CONFIG, folder))
    assert codes == [0, 0], outputs
    return folder, outputs


def compare(found, expected):
    assert len(found) == len(expected)
    for x, y in zip(found, expected):
        assert x.keys() == y.keys()
        for name, value in x.items():
            if isinstance(value, float):
                np.testing.assert_allclose(value, y[name], rtol=5e-5, atol=1e-6, err_msg=name)
            else:
                assert value == y[name]


def test_two_processes_agree_with_one(together):
    folder, outputs = together
    alone = fit(dataclasses.replace(CONFIG, mesh=C.Mesh(data=1)))
    compare(lines(folder), alone.metrics)
    # The first process speaks for both.
    assert "folder" in outputs[0][0]
    # Gloo's threads write into each other's lines.
    spoken = [line for line in outputs[1][0].splitlines() if "peer ranks" not in line]
    assert spoken == []


def test_parameters_can_span_processes(together, tmp_path):
    """Both processes read every row, and each holds half of the parameters."""
    folder = tmp_path / "run"
    config = dataclasses.replace(CONFIG, mesh=C.Mesh(data=1, model=4), steps=6)
    codes, outputs = finish(start(config, folder))
    assert codes == [0, 0], outputs
    until = [r for r in lines(together[0]) if r["step"] <= 6]
    compare(lines(folder), until)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_processes_that_are_stopped_go_on_to_the_same_end(end, together, tmp_path):
    folder = tmp_path / "run"
    children = start(CONFIG, folder)
    limit = time.monotonic() + DEADLINE
    while records(folder) < 8 and all(c.poll() is None for c in children):
        assert time.monotonic() < limit
        time.sleep(0.005)
    # The signal to stop reaches only one of them; a kill both, as a machine that fails would.
    for child in children[1:] if end is signal.SIGTERM else children:
        child.send_signal(end)
    codes, outputs = finish(children)
    assert codes == ([0, 0] if end is signal.SIGTERM else [-end, -end]), outputs
    assert records(folder) < records(together[0])
    codes, outputs = finish(start(CONFIG, folder))
    assert codes == [0, 0], outputs
    assert (folder / "metrics.jsonl").read_bytes() == (together[0] / "metrics.jsonl").read_bytes()
