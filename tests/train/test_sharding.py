"""Shardings: what rules say, and that every mesh trains as one device does."""

import dataclasses
import functools
import types

import engine
import jax
import numpy as np
import pytest
from engine import small
from jax.sharding import PartitionSpec as P

from papyrax.train import build, fit, sharding
from papyrax.train import config as C
from papyrax.train.errors import UserError

MESHES = {"1x1": (1, 1), "8x1": (8, 1), "1x8": (1, 8), "4x2": (4, 2)}

MODELS = {
    "mlp": (C.Part("mlp", {"widths": [32, 32]}), C.Data("digits", batch_size=32)),
    "resnet": (
        C.Part("resnet", {"widths": [8], "blocks": [1], "norm": "batch"}),
        C.Data("digits", batch_size=32),
    ),
    "vit": (engine.VIT, C.Data("digits", batch_size=32)),
    "lm": (
        C.Part("lm", {"width": 16, "layers": 1, "heads": 8, "positions": "learned"}),
        C.Data("python_source", batch_size=16, options={"sequence_length": 16}),
    ),
}


def spec(path, shape, data=4, model=2, rules=()):
    mesh = sharding.make_mesh(C.Mesh(data=data, model=model))
    return sharding.spec(path, shape, mesh, (*rules, *sharding.RULES))


def test_rules_find_parameters_moments_and_stacked_layers():
    for path in (
        "params/stack/blocks/0/attention/query/kernel",
        "ema/stack/blocks/0/attention/query/kernel",
        "optimizer/1/0/mu/stack/blocks/0/attention/query/kernel",
    ):
        assert spec(path, (16, 8, 2)) == P(None, "model", None)
    scanned = "params/stack/blocks/attention/query/kernel"
    assert spec(scanned, (6, 16, 8, 2)) == P(None, None, "model", None)
    assert spec("params/head/bias", (10,)) == P("model")
    assert spec("params/norm/scale", (16,)) == P()
    assert spec("step", ()) == P()


def test_what_an_axis_does_not_divide_stays_whole():
    assert spec("params/head/kernel", (16, 9)) == P(None, None)
    assert spec("optimizer/0/v_row/head/kernel", (16,)) == P()


def test_rules_of_the_config_come_first():
    rules = (("head/kernel$", ("data", None)), ("kernel$", ()))
    assert spec("params/head/kernel", (16, 10), rules=rules) == P("data", None)
    assert spec("params/up/kernel", (16, 64), rules=rules) == P(None, None)


def fake(processes, local):
    """Devices of several processes, in the order that JAX lists them."""
    return [
        types.SimpleNamespace(process_index=p, id=p * local + i)
        for p in range(processes)
        for i in range(local)
    ]


@pytest.mark.parametrize(
    ("processes", "local", "data", "model", "expected"),
    [
        (1, 8, 8, 1, [(0, 1)]),
        (2, 4, 8, 1, [(0, 2), (1, 2)]),
        (2, 4, 4, 2, [(0, 2), (1, 2)]),
        (2, 4, 1, 8, [(0, 1), (0, 1)]),  # both hold a part of every row
        (4, 2, 2, 4, [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ],
)
def test_processes_that_hold_the_same_rows_read_the_same(processes, local, data, model, expected):
    mesh = types.SimpleNamespace(
        devices=np.array(fake(processes, local), object).reshape(data, model), shape={"data": data}
    )
    assert [sharding.data_shard(mesh, p) for p in range(processes)] == expected


def test_a_mesh_that_does_not_fit_is_named():
    with pytest.raises(UserError, match=r"got 16 x 1 .* at most the 8 devices"):
        sharding.make_mesh(C.Mesh(data=16))
    with pytest.raises(UserError, match="leaves processes without a device"):
        sharding.make_mesh(C.Mesh(data=4), fake(2, 4))
    assert sharding.make_mesh(C.Mesh(model=2)).shape == {"data": 4, "model": 2}
    uneven = types.SimpleNamespace(
        devices=np.array(fake(3, 2), object).reshape(2, 3), shape={"data": 2}
    )
    with pytest.raises(UserError, match="do not share the batch in equal parts"):
        sharding.data_shard(uneven, 0)


@functools.cache
def run(model, mesh, accumulate=1):
    part, data = MODELS[model]
    rows, columns = MESHES[mesh]
    return fit(
        small(
            model=part,
            data=data,
            mesh=C.Mesh(rows, columns),
            optimizer=C.Optimizer("adamw", 3e-3, clip_norm=1.0),
            ema=0.9,
            accumulate=accumulate,
            eval=C.Eval(every=4, batches=2),
            steps=4,
        )
    )


def compare(a, b, rtol=2e-5):
    assert len(a.metrics) == len(b.metrics)
    for x, y in zip(a.metrics, b.metrics):
        assert x.keys() == y.keys()
        for name, value in x.items():
            if isinstance(value, float):
                np.testing.assert_allclose(value, y[name], rtol=rtol, atol=1e-6, err_msg=name)
    leaves = zip(jax.tree.leaves(a.state.params), jax.tree.leaves(b.state.params))
    for x, y in leaves:
        np.testing.assert_allclose(x, y, atol=2e-4)


@pytest.mark.parametrize(
    ("model", "mesh"),
    [(m, mesh) for m in ("mlp", "vit") for mesh in ("1x8", "4x2")]
    + [("mlp", "8x1"), ("resnet", "8x1"), ("lm", "4x2")],
)
def test_every_mesh_trains_as_one_device(model, mesh):
    compare(run(model, mesh), run(model, "1x1"))


def test_microbatches_on_a_mesh_train_as_one_batch_on_one_device():
    compare(run("vit", "4x2", 4), run("vit", "1x1"))


def test_arrays_are_where_the_rules_say():
    state = run("vit", "4x2").state
    query = "stack/blocks/attention/query/kernel"
    whole = state.params["stack"]["blocks"]["attention"]["query"]["kernel"]
    moments = state.optimizer[1][0].mu["stack"]["blocks"]["attention"]["query"]["kernel"]
    average = state.ema["stack"]["blocks"]["attention"]["query"]["kernel"]
    for x in (whole, moments, average):
        assert x.sharding.spec == P(None, None, "model", None), query
        assert x.addressable_shards[0].data.shape == (2, 16, 4, 2)
    norm = state.params["norm"]["scale"]
    assert norm.sharding.is_fully_replicated
    batch = run("vit", "4x2").built.batch["inputs"]
    assert batch.sharding.shard_shape(batch.shape)[0] == 8


def test_parameters_can_be_split_over_the_data_axis_too():
    """Fully sharded data parallelism is a rule of the config."""
    base = run("mlp", "8x1").config
    rules = ((r"kernel$", ("data", None)),)
    spread = fit(dataclasses.replace(base, mesh=C.Mesh(8, 1, rules)))
    kernel = spread.params["hidden"][0]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (8, 32)
    compare(spread, run("mlp", "1x1"))


def test_curvature_is_that_of_the_whole_batch_on_every_mesh():
    results = []
    for rows, columns in ((1, 1), (4, 2)):
        config = small(
            model=C.Part("mlp", {"widths": [32]}),
            optimizer=C.Optimizer("engine.root_newton", 0.1),
            mesh=C.Mesh(rows, columns),
            steps=3,
        )
        results.append(fit(config))
    compare(*results, rtol=1e-4)


def test_a_saved_run_goes_on_on_the_same_mesh_to_the_bit(tmp_path):
    base = dataclasses.replace(run("mlp", "4x2").config, out=str(tmp_path / "a"), steps=8)
    whole = fit(base)
    short = dataclasses.replace(base, out=str(tmp_path / "b"), checkpoint=C.Checkpoint(every=3))
    with pytest.MonkeyPatch.context() as patch:
        built = build(short)
        calls = []

        def stopping(*args, **kwargs):
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        original = sharding.put
        patch.setattr(sharding, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(short)
    again = fit(short)
    assert again.metrics == whole.metrics
    assert jax.tree.map(lambda x: x.sharding, again.state) == jax.tree.map(
        lambda x: x.sharding, built.state
    )
    for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state)):
        np.testing.assert_array_equal(a, b)
