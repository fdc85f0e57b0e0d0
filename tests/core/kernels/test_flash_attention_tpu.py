"""The TPU kernels: their numbers by Pallas' interpreter, and their programs by TPU compilers."""

import math
import re

import attention_cases
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from papyrax.kernels.flash_attention import Config, Inputs, Masks, attention, grid

SCENES = [
    "one tile",
    "causal, more keys",
    "cap",
    "lengths",
    "segments",
    "mask of heads",
    "offset",
    "dropout",
    "one query",
]


@pytest.mark.parametrize("name", SCENES)
def test_float64(name):
    attention_cases.check(name, "interpret", "float64", second_tangent=name == "cap")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision(dtype):
    attention_cases.check("cap", "interpret", dtype)


@pytest.mark.parametrize("shared", ["s", "gt", "bgt", "bkg", "bkgts"])
@pytest.mark.parametrize("span", [(None, None), (None, 0), (2, 0)])
def test_the_grid_finishes_a_result_before_the_next(shared, span):
    """Every visible tile once, each result's tiles in a row, with its first and last marked."""
    size = {"b": 2, "k": 1, "g": 3, "t": 22, "s": 13}
    walk = grid.plan(size, (5, 4), shared, span)
    own = [a for a in "bkgts" if a not in shared]
    visited, results, open_result = [], [], None
    table = None if walk.table is None else walk.table.ravel()
    for flat in range(math.prod(walk.grid)):
        ids, rest = [], flat
        for n in reversed(walk.grid):
            ids.insert(0, jnp.int32(rest % n))
            rest //= n
        at = {a: int(v) for a, v in walk.place(ids, table).items()}
        result = tuple(at[a] for a in own)
        assert at["first"] == (result != open_result)
        if at["first"]:
            assert result not in results
            results.append(result)
        open_result = None if at["last"] else result
        visited.append(tuple(at[a] for a in "bkgts"))
    assert open_result is None
    assert len(set(visited)) == len(visited)
    many = {"b": 2, "k": 1, "g": 3, "t": 5, "s": 4}
    assert len(results) == math.prod([many[a] for a in own])
    seen = {
        (i, j)
        for i in range(5)
        for j in range(4)
        if any(
            (span[0] is None or s >= t - span[0]) and (span[1] is None or s <= t + span[1])
            for t in range(5 * i, min(5 * i + 5, 22))
            for s in range(4 * j, min(4 * j + 4, 13))
        )
    }
    assert seen <= {v[3:] for v in visited}


def test_explicit_kernels_do_not_fall_back():
    x = Inputs(*(jnp.ones(s) for s in ((1, 1, 1, 8, 4), (1, 1, 8, 4), (1, 1, 8, 4))))
    with pytest.raises(ValueError, match=r"implementation.*runs on tpu, not on cpu"):
        attention(x, Masks(), Config(1.0, implementation="pallas_tpu"))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), x)
        with pytest.raises(ValueError, match=r"implementation.*not float64"):
            attention(wide, Masks(), Config(1.0, implementation="pallas_tpu"))


def shaped(sharding, batch=1, heads=2, group=1, queries=512, keys=512, dim=128, dtype=jnp.bfloat16):
    shapes = (
        (batch, heads, group, queries, dim),
        (batch, heads, keys, dim),
        (batch, heads, keys, dim),
    )
    return Inputs(*(jax.ShapeDtypeStruct(s, dtype, sharding=sharding) for s in shapes))


def loss_of(config):
    def loss(x, masks=Masks()):
        return jnp.sum(jnp.sin(attention(x, masks, config).out.astype(jnp.float32)))

    return loss


def hvp_of(config):
    loss = loss_of(config)
    return lambda x, t, masks: jax.jvp(lambda x: jax.grad(loss)(x, masks), (x,), (t,))[1]


def kernels_in(compiled):
    return set(
        re.findall(
            r"attention_(?:forward|tangent|cotangent|hessian)_\w+?(?=\W)", compiled.as_text()
        )
    )


HVP = {
    "attention_forward_max_total_out",
    "attention_tangent_logsum_out",
    "attention_hessian_q",
    "attention_hessian_k_v",
}


@pytest.mark.parametrize("name", ["v5e:1x1", "v5p:1x1x1", "v6e:1x1", "tpu7x:1x1x1"])
def test_value_gradient_and_hessian_vector_product_compile(topology, name):
    """By default, lowered for a TPU on a machine without one, they are made of the TPU kernels."""
    sharding = SingleDeviceSharding(topology(name).devices[0])
    x = shaped(sharding, group=2, queries=384, keys=300, dim=80)
    loss = loss_of(Config(0.1, causal=True))

    def everything(x, t):
        return jax.jvp(jax.value_and_grad(loss), (x,), (t,))

    found = kernels_in(jax.jit(everything).lower(x, x).compile())
    assert found == HVP | {"attention_cotangent_q", "attention_cotangent_k_v"}


def test_every_option_compiles(topology):
    sharding = SingleDeviceSharding(topology("v5e:1x1").devices[0])

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    x = shaped(sharding, heads=1, group=2, queries=200, keys=300, dim=64, dtype=jnp.float32)
    integer = jnp.int32
    some = Masks(
        mask=array(bool, 1, 1, 2, 1, 300),
        query_segments=array(integer, 1, 200),
        key_segments=array(integer, 1, 300),
        query_lengths=array(integer, 1),
        key_lengths=array(integer, 1),
        offset=array(integer),
        seed=array(integer, 2),
    )
    config = Config(0.1, True, (64, None), 20.0, 0.1, implementation="pallas_tpu")
    x = x._replace(bias=array(jnp.float32, 1, 1, 2, 200, 300))
    compiled = jax.jit(hvp_of(config)).lower(x, x, some).compile()
    assert kernels_in(compiled) == HVP | {"attention_hessian_bias"}


@pytest.mark.parametrize("of_bias", [False, True])
def test_half_precision_that_kernels_do_not_have_goes_to_xla(topology, of_bias):
    """Mosaic has no float16: where it is asked for by name, an error says so."""
    sharding = SingleDeviceSharding(topology("v5e:1x1").devices[0])
    x = shaped(sharding, queries=128, keys=128, dtype=jnp.float32 if of_bias else jnp.float16)
    if of_bias:
        x = x._replace(bias=jax.ShapeDtypeStruct((1, 1, 1, 1, 128), jnp.float16, sharding=sharding))

    def compiled(implementation):
        run = hvp_of(Config(0.1, implementation=implementation))
        return jax.jit(run).lower(x, x, Masks()).compile()

    assert not kernels_in(compiled(None))
    with pytest.raises(ValueError, match=r"implementation.*not float16"):
        compiled("pallas_tpu")


def test_memory_is_linear(topology):
    sharding = SingleDeviceSharding(topology("v5e:1x1").devices[0])
    config = Config(0.1, causal=True, blocks=(256, 256))

    def peak(n):
        x = shaped(sharding, queries=n, keys=n)
        memory = jax.jit(hvp_of(config)).lower(x, x, Masks()).compile().memory_analysis()
        return max(memory.peak_memory_in_bytes, memory.temp_size_in_bytes)

    small, large = peak(2048), peak(8192)
    assert large < 4.5 * small
    assert large < 8192 * 8192 * 4, "as much as one matrix of logits"


def test_sharded_and_mapped_hessian_vector_products_compile(topology):
    devices = topology("v5e:2x2").devices
    mesh = Mesh(devices, ("data",))
    spec = PartitionSpec("data")
    x = shaped(NamedSharding(mesh, spec), batch=4, queries=256, keys=256)
    one = hvp_of(Config(0.1, blocks=(128, 128)))

    def many(x, t):
        tangents = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), t)
        return jax.vmap(lambda t: one(x, t, Masks()), out_axes=1)(tangents)

    sharded = jax.shard_map(many, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    assert kernels_in(jax.jit(sharded).lower(x, x).compile()) == HVP


def test_programs_that_xla_partitions_use_xla(topology):
    """It cannot split kernels, so there they are no choice, and raise where asked for by name."""
    mesh = Mesh(topology("v5e:2x2").devices, ("data",))
    x = shaped(NamedSharding(mesh, PartitionSpec("data")), batch=4, queries=128, keys=128)

    def lower(implementation):
        config = Config(0.1, implementation=implementation)
        return jax.jit(lambda x: attention(x, Masks(), config).out).lower(x)

    assert not kernels_in(lower(None).compile())
    with pytest.raises(ValueError, match=r"implementation.*inside jax\.shard_map"):
        lower("pallas_tpu")
