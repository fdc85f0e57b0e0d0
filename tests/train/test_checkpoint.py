"""Checkpoints: everything comes back, what is kept, and what is done about damage."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine import small

from papyrax.train import checkpoint, fit
from papyrax.train import config as C
from papyrax.train.checkpoint import Checkpoints, checksums
from papyrax.train.errors import UserError
from papyrax.train.sharding import batch_sharding, make_mesh

TREE = {
    "half": jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4) / 7,
    "float": {0: jnp.linspace(-1, 1, 8), 1: jnp.float32(3)},
    "int": (jnp.arange(5), jnp.int8([1, -1])),
    "bool": jnp.array([True, False]),
    "word": jnp.uint32([0, 2**32 - 1]),
    "nothing": {},
}


def abstract(tree):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_every_dtype_and_structure_comes_back(tmp_path):
    saved = Checkpoints(tmp_path, C.Checkpoint())
    saved.save(3, TREE, {"step": 3, "data": {"position": 9}})
    saved.close()
    again = Checkpoints(tmp_path, C.Checkpoint())
    tree, record = again.restore(abstract(TREE))
    again.close()
    same(tree, TREE)
    assert record == {"step": 3, "data": {"position": 9}}


def test_a_folder_without_checkpoints_gives_none(tmp_path):
    empty = Checkpoints(tmp_path, C.Checkpoint())
    assert empty.restore(abstract(TREE)) is None
    empty.close()


def test_a_state_may_be_donated_once_it_is_being_saved(tmp_path):
    saved = Checkpoints(tmp_path, C.Checkpoint())
    state = {"x": jnp.arange(1 << 16, dtype=jnp.float32)}
    double = jax.jit(lambda s: jax.tree.map(lambda x: x * 2 + 1, s), donate_argnums=0)
    for step in range(1, 4):
        saved.save(step, state, {"step": step})
        state = double(state)
    saved.close()
    again = Checkpoints(tmp_path, C.Checkpoint())
    tree, _ = again.restore(abstract(state))
    again.close()
    np.testing.assert_array_equal(tree["x"], (np.arange(1 << 16, dtype=np.float32) * 2 + 1) * 2 + 1)


def test_an_array_comes_back_to_the_sharding_that_is_asked_for(tmp_path):
    tree = {"x": jnp.arange(16.0)}
    saved = Checkpoints(tmp_path, C.Checkpoint())
    saved.save(1, tree, {})
    where = batch_sharding(make_mesh(C.Mesh(data=8)))
    asked = {"x": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=where)}
    found, _ = saved.restore(asked)
    saved.close()
    assert found["x"].sharding == where
    same(found, tree)


@pytest.mark.parametrize(("best", "expected"), [("loss", [2, 4, 5, 6]), ("accuracy", [1, 3, 5, 6])])
def test_the_last_and_the_best_are_kept(best, expected, tmp_path):
    config = C.Checkpoint(keep_last=2, keep_best=2, best=best)
    saved = Checkpoints(tmp_path, config)
    measured = {1: 5.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: float("nan"), 6: 3.0}
    for step, value in measured.items():
        score = saved.score({"loss": value, "accuracy": value})
        saved.save(step, TREE, {}, score)
    saved.close()
    found = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert found == expected


def test_the_checksum_sees_every_bit_and_the_order():
    rng = np.random.default_rng(0)
    for x in (
        rng.normal(size=(5, 7)).astype(np.float32),
        rng.normal(size=(3, 2, 2)).astype(jnp.bfloat16),
        rng.integers(0, 2**32, 9, np.uint32),
        rng.integers(0, 2, 6).astype(bool),
        np.int8([3, 0, -1]),
        np.float32(1.5),
    ):
        base = int(checksums({"x": jnp.asarray(x)})["x"])
        raw = np.ascontiguousarray(x).view(np.uint8).reshape(-1)
        bits = [0] if x.dtype == bool else range(8)
        for byte in range(len(raw)):
            for bit in bits:
                changed = raw.copy()
                changed[byte] ^= 1 << bit
                other = changed.view(x.dtype).reshape(x.shape)
                assert int(checksums({"x": jnp.asarray(other)})["x"]) != base
        if x.size > 1:
            swapped = np.roll(x.reshape(-1), 1).reshape(x.shape)
            assert int(checksums({"x": jnp.asarray(swapped)})["x"]) != base


def test_the_checksum_is_the_same_on_every_mesh():
    x = jax.random.normal(jax.random.key(0), (16, 4))
    spread = jax.device_put(x, batch_sharding(make_mesh(C.Mesh(data=8))))
    assert int(checksums({"x": x})["x"]) == int(checksums({"x": spread})["x"])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A finished run of eight steps with checkpoints 4 and 8."""
    out = tmp_path_factory.mktemp("runs") / "two"
    return fit(small(steps=8, checkpoint=C.Checkpoint(every=4), out=str(out)))


def copy(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    config = dataclasses.replace(run.config, out=str(tmp_path / "run"))
    return config, tmp_path / "run" / "checkpoints"


def data_file(step):
    """The file with the arrays: the largest one."""
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(step):
    path = data_file(step)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(step):
    path = data_file(step)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(step):
    for path in step.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def change_record(step):
    """A data position that is off by one, in valid JSON."""
    path = step / "record" / "metadata"
    text = path.read_text()
    assert '\\"position\\": 8' in text
    path.write_text(text.replace('\\"position\\": 8', '\\"position\\": 9'))


def remove_state(step):
    shutil.rmtree(step / "state")


DAMAGE = [flip, truncate, empty, change_record, remove_state]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_left_for_the_one_before(damage, two, tmp_path, capfd):
    config, checkpoints = copy(two, tmp_path)
    damage(checkpoints / "00000008")
    again = fit(config)
    warning = capfd.readouterr().err
    assert "papyrax: warning: checkpoint 8 cannot be read" in warning
    assert "Traceback" not in warning
    assert again.metrics == two.metrics
    for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(two.state), strict=True):
        np.testing.assert_array_equal(a, b)
    # The run has saved a good one in its place.
    assert fit(config).metrics == two.metrics
    assert "warning" not in capfd.readouterr().err


def test_where_none_can_be_read_the_run_says_so(two, tmp_path):
    config, checkpoints = copy(two, tmp_path)
    for step in ("00000004", "00000008"):
        flip(checkpoints / step)
    with pytest.raises(UserError) as error:
        fit(config)
    message = str(error.value)
    assert str(checkpoints) in message
    assert "checkpoint 4 cannot be read" in message
    assert "there is no other; delete it" in message
    assert "\n" not in message


def test_metrics_after_the_checkpoint_are_written_again(two, tmp_path):
    config, checkpoints = copy(two, tmp_path)
    shutil.rmtree(checkpoints / "00000008")
    path = tmp_path / "run" / "metrics.jsonl"
    expected = path.read_bytes()
    path.write_bytes(expected + b'{"step": 9, "split": "train", "loss"')  # cut off while written
    assert fit(config).metrics == two.metrics
    assert path.read_bytes() == expected


def test_a_lost_metrics_file_does_not_stop_a_run(two, tmp_path, capfd):
    config, checkpoints = copy(two, tmp_path)
    shutil.rmtree(checkpoints / "00000008")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:200])  # within the second record
    again = fit(config)
    assert "warning: metrics.jsonl is shorter than at the checkpoint" in capfd.readouterr().err
    assert [r["step"] for r in again.metrics if r["split"] == "train"] == [1, 5, 6, 7, 8]


def test_data_of_another_kind_in_the_checkpoint_is_refused(two, tmp_path):
    """A checkpoint whose arrays have other shapes than the model's."""
    config, _ = copy(two, tmp_path)
    other = dataclasses.replace(config, model=C.Part("mlp", {"widths": [8]}))
    (tmp_path / "run" / "config.json").write_text(json.dumps(C.to_json(other)))
    with pytest.raises(UserError, match="cannot be read"):
        fit(other)


def test_paths_are_readable():
    assert set(checkpoint.flatten(TREE)) == {
        "half", "float/0", "float/1", "int/0", "int/1", "bool", "word"
    }  # fmt: skip
