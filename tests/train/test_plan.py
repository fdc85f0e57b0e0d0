import dataclasses
import importlib.util
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from papyrax.train import cli, configs, planning, programs
from papyrax.train.config import Curvature, Data, Optimizer, Part
from papyrax.train.config import Mesh as MeshConfig
from papyrax.train.errors import UserError
from papyrax.train.step import build

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)

EVERY_5 = Curvature(every=5)
XLA = '{"implementation": "xla_chunked"}'
SMALL_LM = ["--model.options", '{"width": 32, "layers": 3, "heads": 2, "scan": true}']


def small_lm(**changes):
    base = configs.get("python-lm")
    options = {"width": 32, "layers": 3, "heads": 2, "scan": True} | changes.pop("options", {})
    attention = Part("jax.nn.dot_product_attention")
    return dataclasses.replace(base, model=Part("lm", options), attention=attention, **changes)


@pytest.fixture(scope="module")
def mlp():
    """The plan of digits-mlp for eight CPU devices."""
    return planning.plan(configs.get("digits-mlp"), "cpu:8")


def test_the_parts_of_memory(mlp):
    widths = (64, 128, 128, 10)
    numbers = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert mlp.num_parameters == numbers
    assert mlp.memory.parameters == 4 * numbers
    # Adam's two moments and the two counters of the update and of the schedule.
    assert 8 * numbers < mlp.memory.optimizer <= 8 * numbers + 8
    # 16 of the 128 examples are on each of the 8 devices.
    assert mlp.memory.batch == 16 * (64 + 1) * 4
    assert mlp.memory.temporaries > 0
    kinds = [f.name for f in dataclasses.fields(mlp.memory) if f.name != "total"]
    assert mlp.memory.total == sum(getattr(mlp.memory, kind) for kind in kinds)
    assert (mlp.fits, mlp.hbm) == (None, None)


def test_the_arithmetic_of_a_perceptron(mlp):
    # Forward, and backward to the weights and to the inputs; not to the examples.
    products = 64 * 128 + 128 * 128 + 128 * 10
    assert mlp.flops == 128 * 2 * (3 * products - 64 * 128)
    assert (mlp.unit, mlp.units, mlp.kernels, mlp.at_least) == ("example", 128, 0, False)


def test_data_parallel_training_sums_the_gradient(mlp):
    total = mlp.collectives["all-reduce"]
    assert 4 * mlp.num_parameters <= total["bytes"] <= 4 * mlp.num_parameters + 64
    assert set(mlp.collectives) == {"all-reduce"}


def test_parameters_are_split_over_the_model_axis(mlp):
    config = dataclasses.replace(configs.get("digits-mlp"), mesh=MeshConfig(model=4))
    found = planning.plan(config, "cpu:8")
    assert found.mesh == {"data": 2, "model": 4}
    # The hidden layers are split by 4; the 10 classes are not divisible and stay whole.
    hidden, head = 64 * 128 + 128 + 128 * 128 + 128, 128 * 10 + 10
    assert found.memory.parameters == 4 * (hidden // 4 + head)
    assert found.flops == mlp.flops


def test_an_optimizer_with_curvature_is_planned_with_its_refresh():
    small = dataclasses.replace(configs.get("digits-mlp"), model=Part("mlp", {"widths": [8]}))
    plain = planning.plan(small, "cpu:2")
    config = dataclasses.replace(small, optimizer=Optimizer("adahessian"), curvature=EVERY_5)
    found = planning.plan(config, "cpu:2")
    assert (found.step, found.refresh_every) == ("refresh", 5)
    assert found.flops > 2 * plain.flops
    assert (plain.step, plain.refresh_every) == ("train", None)


def test_layers_in_a_scan_count_as_often_as_they_run():
    data = Data("python_source", batch_size=4, options={"sequence_length": 32})
    found = []
    for scan in (True, False):
        built = build(small_lm(options={"scan": scan}, data=data, mesh=MeshConfig(data=1)))
        lowered = built.train_step(False).lower(built.state, built.batch)
        found.append(programs.flops(lowered.compiler_ir("stablehlo")))
    assert found[0] == found[1]


def lowered(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))


def test_flops_of_products_convolutions_and_loops():
    def product(x, y):
        return jnp.einsum("bij,bjk->bik", x, y)

    def nested(x, w):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=7)[0]

    def convolution(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def unknown(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x @ w, x)

    def count(function, *shapes):
        return programs.flops(lowered(function, *shapes).compiler_ir("stablehlo"))

    assert count(product, (3, 4, 5), (3, 5, 6)) == programs.Work(2 * 3 * 4 * 5 * 6)
    assert count(nested, (4, 8), (8, 8)) == programs.Work(35 * 2 * 4 * 8 * 8)
    want = 2 * (2 * 6 * 6) * (3 * 3 * 5) * 7
    assert count(convolution, (2, 8, 8, 5), (3, 3, 5, 7)) == programs.Work(want)
    assert count(unknown, (8, 8), (8, 8)) == programs.Work(2 * 8**3, at_least=True)


def test_collectives_in_a_loop_count_as_often_as_they_run():
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("i",))

    def local(x):
        def body(x, _):
            return jnp.tanh(jax.lax.psum(x, "i") * x), None

        x = jax.lax.scan(body, x, None, length=6)[0]
        whole = jax.lax.all_gather(x, "i", tiled=True)
        moved = jax.lax.ppermute(x, "i", [(0, 1), (1, 2), (2, 3), (3, 0)])
        part = jax.lax.psum_scatter(jnp.cos(whole), "i", tiled=True)
        return part + moved

    function = jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=P("i"), check_vma=False)
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=NamedSharding(mesh, P("i")))
    found = programs.collectives(jax.jit(function).lower(x).compile().as_text())
    part = 8 * 16 * 4
    assert found["all-reduce"] == {"count": 6, "bytes": 6 * part}
    assert found["all-gather"] == {"count": 1, "bytes": 4 * part}
    assert found["reduce-scatter"] == {"count": 1, "bytes": 4 * part}
    assert found["collective-permute"] == {"count": 1, "bytes": part}


@pytest.mark.parametrize(
    "groups",
    [
        "[2,4]<=[8]",
        "{{0,1,2,3},{4,5,6,7}}",
        "mesh['a'=2,'b'=4] {'b'}",
        "mesh['a'=2,'b'=2,'c'=2] {'b','c'}",
        "mesh['a'=8] {'a':(2)4}",
    ],
)
def test_groups_are_read_in_each_of_the_ways_that_xla_writes_them(groups):
    text = f"""HloModule m
ENTRY %main (p: f32[32]) -> f32[8] {{
  ROOT %r = f32[8]{{0}} reduce-scatter(%p), replica_groups={groups}, dimensions={{0}}, to_apply=%add
}}
"""
    assert programs.collectives(text) == {"reduce-scatter": {"count": 1, "bytes": 4 * 32}}


def test_collectives_that_start_and_end():
    text = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: bf16[64]) -> bf16[16] {
  %r = bf16[64]{0:T(128)(2,1)} all-reduce(%p), replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %s = bf16[16]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={16}
}

ENTRY %main.1 (p: f32[8,2]) -> f32[8,8] {
  %g = (f32[8,2]{1,0:T(8,128)}, f32[8,8]{1,0:T(8,128)S(1)}) all-gather-start(%p), dimensions={1}
  %d = f32[8,8]{1,0:T(8,128)} all-gather-done(%g)
  %m = (u8[3]{0}, u8[3]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%q), channel_id=2
  %e = u8[3]{0} collective-permute-done(%m)
  %f = bf16[16]{0} fusion(%v), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %o = f32[8,8]{1,0} copy(%d)
}
"""
    assert programs.collectives(text) == {
        "all-gather": {"count": 1, "bytes": 256},
        "reduce-scatter": {"count": 1, "bytes": 128},
        "collective-permute": {"count": 1, "bytes": 3},
    }


@needs_libtpu
def test_plan_of_a_perceptron_for_a_tpu(capsys, monkeypatch, mlp):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["plan", "digits-mlp", "--topology", "v5e:2x2"]) == 0
    out, _ = capsys.readouterr()
    assert "4 x TPU v5 lite" in out
    assert "Fits into the 16.00 GiB" in out
    assert "all-reduce" in out
    assert f"{mlp.num_parameters:,}" in out
    assert max(map(len, out.splitlines())) <= 80


@needs_libtpu
def test_programs_for_a_tpu_are_not_cached(monkeypatch, recwarn):
    threshold = jax.config.jax_persistent_cache_min_compile_time_secs
    small = dataclasses.replace(configs.get("digits-mlp"), model=Part("mlp", {"widths": [9]}))
    plans = [planning.plan(small, "v5e:1x1") for _ in range(2)]
    assert plans[0].memory == plans[1].memory
    assert not [w for w in recwarn if "compilation cache" in str(w.message)]
    assert jax.config.jax_persistent_cache_min_compile_time_secs == threshold


@needs_libtpu
def test_plan_of_a_language_model_as_json(capsys):
    command = ["plan", "python-lm", "--topology", "v5e:2x2", "--json", *SMALL_LM]
    assert cli.main([*command, "--attention.options", XLA]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"data": 4, "model": 1}
    assert found["config"]["model"]["options"]["width"] == 32
    assert (found["fits"], found["hbm"]) == (True, 16 * 2**30)
    memory = found["memory"]
    assert memory["parameters"] == 4 * found["num_parameters"]
    assert memory["total"] == sum(v for k, v in memory.items() if k != "total")
    assert found["units"] == 32 * 128
    # Every parameter takes part in a product with every token, forward and backward.
    blocks = 3 * 12 * 32**2
    assert found["flops"] > 6 * found["units"] * blocks
    assert found["collectives"]["all-reduce"]["bytes"] >= memory["parameters"]


@needs_libtpu
def test_what_does_not_fit_exits_with_1(capsys):
    wide = ["--model.options", '{"widths": [65536, 65536]}', "--data.batch-size", "8"]
    command = ["plan", "digits-mlp", "--topology", "v5e:1x1", *wide]
    assert cli.main(command) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Does not fit into the 16.00 GiB of a TPU v5 lite" in out
    assert "15.75G" in out  # XLA's own number
    assert cli.main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False
    assert found["why_not"]
    assert found["memory"]["total"] is None
    assert found["memory"]["parameters"] > 16 * 2**30


@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "devices", "per_device"),
    [
        ("v2:2x2", 8, 8),
        ("v3:2x2", 8, 16),
        ("v4:2x2x1", 4, 32),
        ("v5e:2x2", 4, 16),
        ("v5p:2x2x1", 4, 95),
        ("v6e:2x2", 4, 32),
        ("tpu7x:2x2x1", 8, 96),
    ],
)
def test_the_devices_and_memory_of_every_series(topology, devices, per_device):
    found = planning.topology_devices(topology)
    assert len(found) == devices
    assert planning.device_memory(found) == per_device * 2**30


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:3x5", "tpu", "cpu:0", "cpu:x", ""])
def test_an_unknown_topology_is_one_line(name, capsys):
    if name == "v5e:3x5" and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    assert cli.main(["plan", "digits-mlp", "--topology", name]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert f"got {name!r}" in err
    assert "v5e:16x16" in err


def test_without_libtpu_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'papyrax\[aot\]'"):
        planning.topology_devices("v5e:2x2")


def test_requests_that_do_not_fit_the_mesh():
    config = configs.get("digits-mlp")
    with pytest.raises(UserError, match="takes a multiple of 8"):
        planning.plan(dataclasses.replace(config, data=Data("digits", batch_size=100)), "cpu:8")
    with pytest.raises(UserError, match="takes at most the 4 devices"):
        planning.plan(dataclasses.replace(config, mesh=MeshConfig(data=3, model=2)), "cpu:4")
    with pytest.raises(UserError, match="at most cpu:8"):
        planning.plan(config, "cpu:9999")


def test_a_set_that_is_not_prepared_is_described_by_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    spec, notes = planning.describe_data(configs.get("imagenet-vit"))
    assert spec.features["inputs"].shape == (224, 224, 3)
    assert (spec.num_classes, spec.task) == (1000, "classification")
    assert "not prepared" in notes[0]
    with pytest.raises(UserError, match="no data set"):
        planning.describe_data(
            dataclasses.replace(configs.get("digits-mlp"), data=Data("imagenot"))
        )


def test_plan_asks_for_a_preset(capsys):
    assert cli.main(["plan"]) == 2
    assert "digits-mlp" in capsys.readouterr().err
    assert cli.main(["plan", "--topology", "cpu:8"]) == 2
    assert "before --topology" in capsys.readouterr().err
    assert cli.main(["plan", "digits-mlp"]) == 2
    assert "topology" in capsys.readouterr().err
    assert cli.main(["plan", "--help"]) == 0
    assert "--topology" in capsys.readouterr().out


def test_sizes_for_a_reader():
    from papyrax.train.commands.plan import amount, size

    assert [size(n) for n in (0, 999, 2048, 3 * 2**20, 15.75 * 2**30)] == [
        "0 B",
        "999 B",
        "2 KiB",
        "3 MiB",
        "15.75 GiB",
    ]
    assert [amount(n) for n in (12, 1234, 5.6e12)] == ["12", "1.23 k", "5.6 T"]
    assert math.isclose(float(size(1e12).split()[0]), 1e12 / 2**30, rel_tol=1e-4)
