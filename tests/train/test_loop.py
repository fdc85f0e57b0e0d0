"""The loop: what a run leaves, what it measures, and how it ends when something is wrong."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import engine
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine import small
from flax import nnx

from papyrax.train import build, configs, feed, fit, folder
from papyrax.train import config as C
from papyrax.train.cli import main
from papyrax.train.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    rate = C.Optimizer(learning_rate=1e-2)
    return fit(small(out=str(out), ema=0.9, steps=30, eval=C.Eval(every=10), optimizer=rate))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_folder_has_what_a_run_leaves(run):
    assert run.folder is not None
    assert not run.stopped
    records = lines(run.folder / "metrics.jsonl")
    assert records == list(run.metrics)
    train = [r for r in records if r["split"] == "train"]
    assert [r["step"] for r in train] == list(range(1, 31))
    assert [r["step"] for r in records if r["split"] == "test"] == [10, 20, 30]
    assert set(train[0]) == {
        "step", "split", "loss", "accuracy", "grad_norm", "learning_rate"
    }  # fmt: skip
    assert C.load(run.folder / "config.json") == run.config
    timings = lines(run.folder / "timings.jsonl")
    assert [t["step"] for t in timings] == list(range(1, 31))
    assert all(t["steps_per_second"] > 0 for t in timings)
    assert not set(timings[0]) & set(train[0]) - {"step"}
    assert list((run.folder / "checkpoints").glob("*30"))


def test_the_loss_falls(run):
    train = [r["loss"] for r in run.metrics if r["split"] == "train"]
    assert np.mean(train[-3:]) < 0.8 * np.mean(train[:3])


def test_tensorboard_has_the_same_numbers(run):
    from tensorboardX.proto import event_pb2

    found = {}
    (path,) = (run.folder / "tensorboard").iterdir()
    data = path.read_bytes()
    while data:  # length, its checksum, the record, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    for record in run.metrics:
        for name in ("loss", "accuracy"):
            value = found[f"{record['split']}/{name}", record["step"]]
            np.testing.assert_allclose(value, record[name], rtol=1e-6)


def test_an_evaluation_counts_every_example_once(run):
    test = feed.open_split(run.config, split="test")
    batches = list(test)
    rows = {k: np.concatenate([b[k] for b in batches])[:359] for k in ("inputs", "labels")}
    logits = np.asarray(run.model(rows["inputs"]), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    last = [r for r in run.metrics if r["split"] == "test"][-1]
    loss = -log_p[np.arange(359), rows["labels"]].mean()
    np.testing.assert_allclose(last["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(last["accuracy"], (logits.argmax(-1) == rows["labels"]).mean())
    graph_only = nnx.merge(run.built.graphdef, run.params, run.state.model)
    assert not np.allclose(graph_only(rows["inputs"]), logits)  # the model is the average


def test_a_finished_run_is_only_read(run):
    before = (run.folder / "metrics.jsonl").read_bytes()
    again = fit(run.config)
    assert again.metrics == run.metrics
    assert (run.folder / "metrics.jsonl").read_bytes() == before
    for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(run.state)):
        np.testing.assert_array_equal(a, b)


def test_another_config_in_the_same_folder_is_refused(run):
    changed = dataclasses.replace(run.config, seed=3, optimizer=C.Optimizer("sgd", 1e-2))
    with pytest.raises(UserError, match=r"holds a run with another optimizer\.name, seed;"):
        fit(changed)
    assert C.load(run.folder / "config.json") == run.config


def test_two_runs_cannot_write_to_one_folder(run):
    refused = pytest.raises(UserError, match="another run is writing to")
    with folder.open_folder(run.config), refused:
        fit(run.config)
    with folder.open_folder(run.config):
        pass


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fit(small(steps=3, eval=C.Eval(every=0), log_every=2))
    assert result.folder is None
    assert [(r["step"], r["split"]) for r in result.metrics] == [(2, "train"), (3, "train")]
    assert list(tmp_path.iterdir()) == []


def test_no_steps_give_the_initial_parameters():
    result = fit(small(steps=0))
    assert result.metrics == ()
    first = build(small(steps=0)).init(jax.random.key(0))
    for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(first)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["file", "under_a_file"])
def test_a_folder_that_cannot_be_written_is_said_first(where, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" if where == "file" else tmp_path / "file" / "run"

    def never(*args, **kwargs):
        raise AssertionError("work was done before the folder was tried")

    monkeypatch.setattr(feed, "load", never)
    assert main(["train", "digits-mlp", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"papyrax: error: out: cannot write to {out}" in error
    assert error.count("\n") == 1


def test_a_step_that_is_not_finite_ends_the_run_and_can_be_looked_at(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--optimizer.name", "sgd", "--optimizer.learning-rate", "1e4", "--steps", "50"]
    words += ["--schedule.name", "constant", "--out", str(out), "--data.batch-size", "32"]
    assert main(["train", "digits-mlp", "--mesh.data", "1", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "papyrax: error: step " in error
    assert "not finite" in error
    assert f"see {out / 'failed'}" in error
    step = int((out / "failed" / "step.txt").read_text())
    assert f"step {step}: " in error
    batch = dict(np.load(out / "failed" / "batch.npz"))
    params = dict(np.load(out / "failed" / "params.npz"))
    config = C.load(out / "failed" / "config.json")
    assert config == C.load(out / "config.json")
    assert all(np.isfinite(x).all() for x in params.values())
    # What was saved is what the step was given: it fails in the same way.
    built = build(config)
    state = built.init(jax.random.key(config.seed))
    saved = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(
            params["params/" + jax.tree_util.keystr(path, simple=True, separator="/")]
        ),
        state.params,
    )
    state = dataclasses.replace(state, params=saved)
    state, metrics = built.train_step(False)(state, batch)
    assert not metrics["ok"]
    # And nothing that is not finite was saved as a checkpoint.
    assert all(r["step"] < step for r in lines(out / "metrics.jsonl"))


def test_the_preset_for_digits_learns_them():
    config = dataclasses.replace(
        configs.get("digits-mlp"), mesh=C.Mesh(data=1), out=None, eval=C.Eval(every=400)
    )
    assert fit(config).metrics[-1]["accuracy"] > 0.95


def test_text_and_numbers_train_too():
    text = small(
        model=C.Part("lm", {"width": 16, "layers": 1, "heads": 2, "scan": True}),
        data=C.Data("python_source", batch_size=8, options={"sequence_length": 32}),
        optimizer=C.Optimizer("adam", 1e-2),
        eval=C.Eval(every=30, batches=2),
        steps=30,
    )
    train = [r for r in fit(text).metrics if r["split"] == "train"]
    assert abs(train[0]["loss"] - np.log(256)) < 0.5
    assert train[-1]["loss"] < 4.5
    numbers = small(
        data=C.Data("diabetes", batch_size=32),
        loss=C.Part("squared_error"),
        optimizer=C.Optimizer("adam", 1e-2),
        eval=C.Eval(every=60),
        steps=60,
    )
    last = fit(numbers).metrics[-1]
    assert set(last) == {"step", "split", "loss"}
    assert last["loss"] < 0.75  # labels are standardised: their mean has an error of about 1


def test_a_set_without_labels_is_refused():
    with pytest.raises(UserError, match="photo_patches has no labels to train on"):
        fit(small(data=C.Data("photo_patches")))


def test_the_command_line_shows_and_saves_a_run(tmp_path):
    command = [sys.executable, "-m", "papyrax.train", "train", "digits-mlp", "--steps", "5"]
    command += ["--mesh.data", "1", "--eval.batches", "1", "--out", "run", "--log-every", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    assert "test 5" in done.stdout
    assert "5/5" in done.stderr
    records = lines(pathlib.Path(tmp_path) / "run" / "metrics.jsonl")
    assert len(records) == 6


def test_importing_the_engine_is_light():
    code = (
        "import sys, papyrax.train as t; t.Config\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'tyro', 'rich', 'tensorflow_datasets'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import papyrax.train

    for name in papyrax.train.__all__:
        assert getattr(papyrax.train, name).__module__.startswith("papyrax.train.")
    with pytest.raises(AttributeError):
        papyrax.train.nothing  # noqa: B018
    assert engine.small() == engine.small()
