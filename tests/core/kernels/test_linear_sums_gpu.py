"""Sums over classes by Triton kernels: their numbers by Pallas' interpreter, lowered for CUDA."""

import re

import jax
import jax.numpy as jnp
import pytest
from gpus import absent_gpu
from test_linear_sums import ALL, check_derivatives

from papyrax.kernels.linear_sums import (
    Config,
    check_implementation,
    log_sums,
    pallas_triton,
    passes,
)
from papyrax.kernels.op import Platform


@pytest.mark.parametrize(
    ("kind", "classes", "tiles", "bias", "scale", "dtype", "names"),
    [
        ("softmax", 13, (3, 4, 2), True, 1.0, "float64", ALL[2:3]),
        ("others", 13, (4, 6, 9), False, 1e3, "float64", ALL[1:2]),
        ("squares", 7, (3, 4, 5), False, 1.0, "float64", ALL[3:4]),
        ("magnitudes", 7, (4, 4, 9), True, 1.0, "float64", ALL[4:]),
        ("softmax", 13, (16, 16, 16), True, 1.0, "float32", ALL[1:2]),
        ("softmax", 13, (16, 16, 16), False, 1.0, "bfloat16", ALL[1:2]),
    ],
)
def test_all_derivatives_are_those_of_the_logits(kind, classes, tiles, bias, scale, dtype, names):
    check_derivatives("interpret_triton", kind, classes, tiles, bias, scale, dtype, names)


def test_programs_have_parts_of_the_classes(monkeypatch):
    """Of five tiles one has three, another two."""
    monkeypatch.setattr(pallas_triton, "PROGRAMS", 6)
    tiles = 3, 3, 9
    x, w, y = jnp.ones((7, 9)), jnp.ones((9, 15)), jnp.ones(7, jnp.int32)
    p = pallas_triton.plan(passes.log_sums((x, w, None), y, "softmax"), tiles)
    assert (p.many["v"], p.each, p.splits) == (5, 3, 2)
    check_derivatives("interpret_triton", "softmax", 15, tiles, True, 1.0, "float64", ALL[:1])


def lowered(n, d, v, dtype, config, kind="softmax"):
    """The names of the kernels of value, gradient, Hessian-vector product and second derivative."""

    def loss(x, w, b, y):
        log_z, label, _ = log_sums((x, w, b), aux=y, config=config, kind=kind)
        return jnp.mean(log_z - label)

    def run(x, w, b, y):
        p = x, w, b
        slope = lambda *p: jax.jvp(lambda *p: loss(*p, y), p, p)[1]  # noqa: E731
        hvp = jax.jvp(lambda *p: jax.value_and_grad(loss, (0, 1, 2))(*p, y), p, p)
        return hvp, jax.jvp(slope, p, p)

    shapes = (n, d), (d, v), (v,)
    args = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    exported = jax.export.export(jax.jit(run), platforms=["cuda"], disabled_checks=unchecked)
    with absent_gpu():
        text = exported(*args, jax.ShapeDtypeStruct((n,), jnp.int32)).mlir_module()
    return set(re.findall(r"linear_(\w+)_over_classes", text))


@pytest.mark.parametrize(
    ("shape", "dtype", "chunk"),
    [
        ((256, 128, 4096), jnp.bfloat16, 2048),
        ((100, 40, 1001), jnp.float32, 300),
        ((3, 5, 50), jnp.float16, 50),
    ],
)
def test_value_and_derivatives_lower_for_cuda(shape, dtype, chunk):
    found = lowered(*shape, dtype, Config(chunk, "pallas_triton"))
    assert found == {"log_sums", "tangent", "cotangent", "hessian", "curve"}


def works(n, d, v, dtype):
    """Those that the most is multiplied for, by the number of tiles of logits."""
    x, w, row = (jax.ShapeDtypeStruct(s, dtype) for s in ((n, d), (d, v), (n,)))
    y = jax.ShapeDtypeStruct((n,), jnp.int32)
    at, g = (x, w, None, row), (row,) * 3
    return {
        1: passes.cotangent(at, g, y, "softmax"),
        2: passes.hessian((*at, g), (*at, g), y, "softmax", True),
        4: passes.curve((*at, at[:3]), at, y, "softmax"),
    }


@pytest.mark.parametrize("kib", [99, 163, 227])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_tiles_fit_registers_and_shared_memory(kib, dtype, monkeypatch):
    """Of GPUs for consumers, of Ampere and of Hopper."""
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: kib * 1024)
    for shape in ((4096, 1024, 262_144), (100, 8192, 50_257), (8192, 64, 2048), (3, 5, 7)):
        for work in works(*shape, dtype).values():
            p = pallas_triton.plan(work, None)
            assert p.memory() <= kib * 1024
            assert p.logits / (32 * p.warps) <= (128 if kib == 227 else 64)
            assert not pallas_triton.bad_tiles(tuple(p.tile.values()), tuple(p.size.values()))


def test_tiles_follow_the_shapes(monkeypatch):
    def tile(work):
        return tuple(pallas_triton.plan(work, None).tile.values())

    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: 99 * 1024)
    large = works(4096, 1024, 262_144, jnp.bfloat16)
    assert [tile(large[n]) for n in (1, 2, 4)] == [(128, 128, 64), (128, 64, 32), (64, 64, 32)]
    # Few examples have no more rows than there are, and few tiles are cut for all of a GPU's parts.
    assert tile(works(20, 1024, 262_144, jnp.bfloat16)[1])[0] == 32
    p = pallas_triton.plan(works(256, 1024, 2048, jnp.bfloat16)[1], None)
    assert p.many["n"] * p.many["v"] >= pallas_triton.CORES
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: 227 * 1024)
    assert [tile(large[n])[:2] for n in (1, 2, 4)] == [(128, 256), (128, 128), (128, 64)]


def test_what_cannot_run_raises():
    layer = tuple(jnp.ones(s) for s in ((4, 300), (300, 1000), (1000,)))

    def check(match, *config, layer=layer):
        with pytest.raises(ValueError, match=match):
            check_implementation(Config(7, *config), *layer)

    check("tiles: got .*powers of two from 16 classes, not 100", "pallas_triton", (16, 100, 64))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), layer)
        check("implementation: got .*not float64", "pallas_triton", layer=wide)
    check_implementation(Config(7, "pallas_triton", (16, 64, 32)), *layer)
    config = Config(7, "pallas_triton")
    with pytest.raises(ValueError, match=r"implementation.*runs on cuda, not on cpu"):
        log_sums(layer, aux=jnp.zeros(4, jnp.int32), config=config, kind="softmax")
    cuda = Platform("cuda")
    assert pallas_triton.why_not([jnp.dtype("float16")], cuda) == []
    cuda.partitioned = True
    assert "jax.shard_map" in pallas_triton.why_not([], cuda)[0]
