"""The Triton kernel of linear attention: how it is cut, and lowered for CUDA.

Its numbers and derivatives are compared in `test_linear_attention.py`.
"""

import collections
import functools
import re

import composition
import jax
import jax.numpy as jnp
import pytest
from composition import relative_error
from gpus import absent_gpu

from papyrax.kernels.linear_attention import Config, Inputs, api, linear_attention, pallas_triton
from papyrax.kernels.linear_attention.reference import forward as dense
from papyrax.kernels.op import Platform


def shapes(tokens, features, dim, rows=1, key_rows=1, batch=1):
    return (
        (batch, 2, rows, tokens, features),
        (batch, 2, key_rows, tokens, features),
        (batch, 2, key_rows, tokens, dim),
        (batch, 2, features, dim),
    )


def shaped(*args, dtype=jnp.float32, **rows):
    return Inputs(*(jax.ShapeDtypeStruct(s, dtype) for s in shapes(*args, **rows)))


@pytest.mark.parametrize("direction", ["past", "future"])
def test_several_tiles_on_every_axis(direction):
    """Three tiles a chunk, five of features, and values in two groups of two tiles each."""
    with jax.enable_x64(True):
        x = Inputs(*composition.draw(shapes(150, 130, 145, rows=2, key_rows=2), 0))
        config = Config(direction, "float64", 48, implementation="interpret_triton")
        cut = pallas_triton.plan(x, config)
        assert (cut.chunk // cut.tile, cut.features, cut.pieces) == (3, 32, 5)
        assert (cut.columns, cut.groups) == ((64, 16), 2)
        for got, want in zip(linear_attention(x, config), dense(x, config=config)):
            assert relative_error(got, want) < 1e-12


def test_mapped_and_in_bfloat16():
    x = Inputs(*composition.draw(shapes(21, 5, 7, rows=2), 0, batch=(3,)))
    x = Inputs(*(a.astype(jnp.bfloat16).astype(jnp.float32) for a in x))
    config = Config("past", "bfloat16", 8, implementation="interpret_triton")
    found = jax.jit(jax.vmap(lambda x: linear_attention(x, config)))(x)
    for got, want in zip(found, jax.vmap(functools.partial(dense, config=config))(x)):
        assert relative_error(got, want) < 1e-2


@pytest.mark.parametrize("operands", ["bfloat16", "float32"])
@pytest.mark.parametrize("kib", [64, 99, 163, 227])
def test_tiles_fit_the_shared_memory_of_a_block(kib, operands, monkeypatch):
    """Of AMD's GPUs, and of NVIDIA's for consumers, Ampere and Hopper."""
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: kib * 1024)
    width = jnp.dtype(operands).itemsize
    for features, dim in ((1, 1), (64, 65), (80, 80), (128, 129), (129, 128), (512, 1000)):
        cut = pallas_triton.plan(shaped(1000, features, dim), Config("past", operands))
        assert cut.shared_bytes(width) <= kib * 1024
        for n in (cut.tile, cut.features, *cut.columns):
            assert n >= 16
            assert n & (n - 1) == 0
        assert dim <= cut.groups * sum(cut.columns) < dim + 16 * cut.groups
        assert cut.chunk % cut.tile == 0
        assert cut.chunk >= min(features, 1000)
    widest = {"bfloat16": (64, 64, 64, 64), "float32": (16, 32, 64, 64)}[operands]
    found = pallas_triton.plan(shaped(1000, 128, 129), Config("past", operands)).features
    assert found == dict(zip((64, 99, 163, 227), widest))[kib]


@pytest.mark.parametrize(
    ("tokens", "asked", "chunk", "tile"),
    [
        (1, None, 16, 16),
        (40, None, 64, 64),
        (300, None, 128, 64),
        (300, 48, 48, 16),
        (40, 41, 64, 64),
    ],
)
def test_chunks(tokens, asked, chunk, tile):
    config = Config("past", "bfloat16", asked, implementation="pallas_triton")
    cut = pallas_triton.plan(shaped(tokens, 64, 64), config)
    assert (cut.chunk, cut.tile) == (chunk, tile)
    assert pallas_triton.bad_chunk(shaped(tokens, 64, 64), config) == []


def test_precision_is_that_of_every_product():
    def products(direction, precision):
        config = Config(direction, precision=precision, implementation="pallas_triton")
        x = shaped(200, 64, 65)
        text = str(jax.make_jaxpr(lambda x: pallas_triton.run(x, config))(x))
        return text.count("dot_general["), text.count(
            "precision=(Precision.HIGHEST, Precision.HIGH"
        )

    for direction in ("past", "all"):
        count, exact = products(direction, "highest")
        assert count == exact > 0
        assert products(direction, None) == (count, 0)


def lowered(f, *x):
    """The StableHLO for CUDA."""
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    exported = jax.export.export(jax.jit(f), platforms=["cuda"], disabled_checks=unchecked)
    with absent_gpu():
        return exported(*x).mlir_module()


def kernels_in(text):
    return collections.Counter(re.findall(r'name = "linear_attention_([a-z]+)_', text))


def loss_of(config):
    return lambda x: sum(jnp.sum(jnp.sin(a)) for a in linear_attention(x, config))


@pytest.mark.parametrize("operands", ["bfloat16", "float32"])
def test_value_gradient_and_hessian_vector_product_are_made_of_kernels(operands):
    """F and B's dq over the past, dk and dv over the future; twice each for H, after two of J."""
    config = Config("past", operands, implementation="pallas_triton")

    def run(x, t):
        return jax.jvp(jax.value_and_grad(loss_of(config)), (x,), (t,))

    x = shaped(300, 80, 65, rows=2)
    assert kernels_in(lowered(run, x, x)) == {"past": 1 + 2 + 1 + 2, "future": 2 + 4}


def test_mapped_over_tangents():
    config = Config("future", "bfloat16", implementation="pallas_triton")

    def run(x, t):
        return jax.vmap(lambda t: jax.jvp(jax.grad(loss_of(config)), (x,), (t,))[1])(t)

    x = shaped(40, 16, 16)
    t = jax.tree.map(lambda a: jax.ShapeDtypeStruct((3, *a.shape), a.dtype), x)
    with jax.enable_x64(True):
        assert set(kernels_in(lowered(run, x, t))) == {"past", "future"}


def test_sums_over_all_keys_are_products_of_xla():
    config = Config("all", "bfloat16", implementation="pallas_triton")
    text = lowered(lambda x: linear_attention(x, config), shaped(40, 16, 16))
    assert "triton" not in text
    assert text.count("stablehlo.dot_general") == 2


def test_third_order_is_made_of_kernels(monkeypatch):
    """What runs them does not matter here, so zeros stand for their results."""
    calls = collections.Counter()

    def stand_in(x, config, *, interpret):
        calls[config.direction, x.key.shape[2]] += 1
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), api.struct(x))

    monkeypatch.setattr(pallas_triton, "run", stand_in)
    loss = loss_of(Config("past", implementation="pallas_triton"))

    def run(x, t):
        return jax.jvp(lambda x: jax.jvp(jax.grad(loss), (x,), (t,))[1], (x,), (t,))

    x = shaped(40, 16, 16)
    lowered(run, x, x)
    # Tangents of keys and values have two rows of keys, tangents of those four.
    assert set(calls) == {(way, rows) for way in ("past", "future") for rows in (1, 2, 4)}


def test_explicit_kernels_do_not_fall_back():
    def take(dtype=jnp.float32, **options):
        x = Inputs(*(jnp.ones(s, dtype) for s in shapes(40, 4, 4)))
        return linear_attention(x, Config(**options, implementation="pallas_triton"))

    with pytest.raises(ValueError, match=r"implementation.*runs on cuda and rocm, not on cpu"):
        take()
    with pytest.raises(ValueError, match=r"chunk_size: got 12.*multiples of 16, or all 40"):
        take(chunk=12)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"implementation.*not float64"):
        take(jnp.float64)
    platform = Platform("cuda")
    assert pallas_triton.why_not(shaped(40, 4, 4), Config(), platform) == []
    platform.partitioned = True
    reasons = pallas_triton.why_not(shaped(40, 4, 4), Config(), platform)
    assert reasons == ["XLA cannot partition it over devices: call it inside jax.shard_map"]
