"""Sums over the classes of a linear layer: TPU kernels by Pallas' interpreter, and by compilers."""

import math
import re

import composition
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from composition import relative_error
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from papyrax.kernels.linear_sums import (
    Config,
    check_implementation,
    log_sums,
    pallas_tpu,
    pallas_triton,
    passes,
    sums,
    tiling,
)

FAST = {"xla_backend_optimization_level": 0}
LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}
# Rows and features, of which no tile is a whole part, and labels of which some are no class.
ROWS, FEATURES = 7, 9
LABELS = jnp.array([0, 12, 5, -1, 13, 5, 2])


def draw(seed, bias, classes=13, scale=1.0):
    shapes = [(ROWS, FEATURES), (FEATURES, classes), (classes,)]
    x, w, b = composition.draw(shapes, seed)
    return (scale * x, w, b if bias else None)


def three(layer, kind, config):
    """The three results an example [n, 3]."""
    if kind in ("softmax", "others"):
        return jnp.stack(log_sums(layer, aux=LABELS, config=config, kind=kind), 1)
    centre = jnp.linspace(-1, 1, ROWS, dtype=layer[0].dtype)
    return jnp.stack(sums((*layer, centre), aux=LABELS, config=config, kind=kind), 1)


def dense(layer, kind):
    x, w, b = layer
    z = x @ w if b is None else x @ w + b
    hit = jax.nn.one_hot(LABELS, z.shape[1], dtype=z.dtype)  # zeros for what is no class
    if kind in ("softmax", "others"):
        first = jax.nn.logsumexp(z, -1, b=1 - hit if kind == "others" else None)
    else:
        z = z - jnp.linspace(-1, 1, ROWS)[:, None]
        first = jnp.sum(z * z if kind == "squares" else jnp.abs(z), -1)
    return jnp.stack([first, jnp.sum(hit * z, -1), jnp.sum(z, -1)], 1)


def everything(f, t, u):
    """Value and tangent, gradient and tangent, and the other orders of the two modes."""
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(ROWS, 3)))

    def loss(p):
        y = f(p)
        return jnp.sum(jnp.square(y.astype(weights.dtype) - weights)) / 2

    def along(v):
        return lambda p: jax.jvp(loss, (p,), (v,))[1]

    def slope(p):
        return sum(map(jnp.vdot, jax.tree.leaves(jax.grad(loss)(p)), jax.tree.leaves(u)))

    return {
        "jvp": lambda p: jax.jvp(f, (p,), (t,)),
        "hvp": lambda p: jax.jvp(jax.grad(loss), (p,), (t,)),
        "reverse over reverse": jax.grad(slope),
        "reverse over forward": jax.grad(along(t)),
        "forward over forward": lambda p: jax.jvp(along(t), (p,), (u,)),
    }


# Of 7 classes the weights are read as [classes, features].
ALL = "jvp", "hvp", "reverse over reverse", "reverse over forward", "forward over forward"


@pytest.mark.parametrize(
    ("kind", "classes", "tiles", "bias", "scale", "dtype", "names"),
    [
        ("softmax", 13, (3, 4, 2), True, 1.0, "float64", ALL),
        ("others", 13, (4, 6, 9), False, 1e3, "float64", ALL[2:3]),
        ("squares", 7, (3, 4, 5), False, 1.0, "float64", ALL[1:2]),
        ("magnitudes", 7, (4, 4, 9), True, 1.0, "float64", ALL[4:]),
        ("softmax", 7, (16, 7, 9), True, 1.0, "float32", ALL[:2]),
        ("softmax", 13, (16, 13, 9), True, 1.0, "bfloat16", ALL[:2]),
    ],
)
def test_all_derivatives_are_those_of_the_logits(kind, classes, tiles, bias, scale, dtype, names):
    check_derivatives("interpret", kind, classes, tiles, bias, scale, dtype, names)


def check_derivatives(implementation, kind, classes, tiles, bias, scale, dtype, names):
    config = Config(5, implementation, tiles)
    with jax.enable_x64(True):
        p, t, u = (draw(seed, bias, classes, scale) for seed in range(3))
        narrow = jax.tree.map(lambda a: a.astype(dtype), (p, t, u))
        p, t, u = jax.tree.map(lambda a: a.astype(jnp.float64), narrow)
        ours = everything(lambda p: three(p, kind, config), *narrow[1:])
        theirs = everything(lambda p: dense(p, kind), t, u)
        run = lambda f, p: jax.jit(lambda p: {n: f[n](p) for n in names}, compiler_options=FAST)(p)  # noqa: E731
        got, want = run(ours, narrow[0]), run(theirs, p)
    for name in names:
        error = relative_error(got[name], want[name])
        assert error < LIMITS[dtype], f"{name}: {error}"


# Which passes each composition is made of, no more and no fewer, under jit.
LETTERS = {
    "log_sums": "F",
    "tangent": "J",
    "cotangent": "B",
    "hessian": "H",
    "curve": "K",
}
PASSES = {
    "f": "F",
    "grad": "FB",
    "jvp": "FJ",
    "linear_transpose(jvp)": "FB",
    "vmap(grad)": "FB",
    "jit(hvp)": "FJH",
    "vmap(hvp) over tangents": "FJH",
    "hessian of the first": "FJH",
    "reverse over reverse": "FBH",
    "reverse over forward": "FJBH",
    "forward over forward": "FJK",
    "Gauss-Newton": "FJB",
    "jit(hvp(scan(checkpoint)))": "FJBH",
    "hvp(shard_map)": "FJH",
}


@pytest.fixture(scope="module", params=["pallas_tpu", "pallas_triton"])
def compositions(request):
    n, d, v = 5, 3, 7
    x = composition.draw([(n, d), (d, v), (v,)], 0)
    config = Config(4, request.param)

    def f(x, w, b):
        return log_sums((x, w, b), aux=jnp.arange(n), config=config, kind="softmax")[0]

    return request.param, composition.modes(f, x) | composition.more_modes(f, x)


@pytest.mark.parametrize("name", PASSES)
def test_every_composition_is_made_of_kernels(compositions, name, monkeypatch):
    """Lowered for absent chips. What runs the kernels does not matter: zeros stand for it."""
    implementation, thunks = compositions
    kernels, platform = {
        "pallas_tpu": (pallas_tpu, "tpu"),
        "pallas_triton": (pallas_triton, "cuda"),
    }[implementation]
    calls = set()

    def stand_in(work, config, interpret):
        calls.add(LETTERS[work.name])
        n = work.labels.shape[0]
        found = {name: jnp.zeros(n, work.wide) for name in work.starts}
        if work.to_x:
            found |= {"x": work.x["x"], "w": work.w["w"], "b": work.b["z"]}
        return found

    monkeypatch.setattr(kernels, "run", stand_in)
    jax.jit(thunks[name]).trace().lower(lowering_platforms=(platform,))
    assert calls == set(PASSES[name])


def test_third_derivatives_are_those_of_the_reference():
    config = Config(5, "xla")
    with jax.enable_x64(True):
        p, t, u = (draw(seed, True) for seed in range(3))

        def third(f):
            loss = lambda p: jnp.sum(jnp.sin(f(p)))  # noqa: E731
            second = lambda p: jax.jvp(jax.grad(loss), (p,), (t,))[1]  # noqa: E731
            return jax.jit(lambda p: jax.jvp(second, (p,), (u,))[1], compiler_options=FAST)

        got = third(lambda p: three(p, "softmax", config))(p)
        want = third(lambda p: dense(p, "softmax"))(p)
        assert relative_error(got, want) < 1e-12


@pytest.mark.parametrize("implementation", [None, "interpret", "interpret_triton"])
def test_labels_may_be_of_a_dtype_that_holds_fewer_classes(implementation):
    (x, w), config = composition.draw([(3, 2), (2, 300)], 0), Config(300, implementation)

    def label(dtype):
        y = jnp.array([3, 44, 120], dtype)
        return jax.jit(lambda: log_sums((x, w, None), aux=y, config=config, kind="softmax")[1])()

    want = jnp.sum(x * w[:, [3, 44, 120]].T, 1)
    for dtype in ("uint8", "int8", "uint32"):
        np.testing.assert_allclose(label(dtype), want, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["interpret", "interpret_triton"])
def test_no_examples_have_no_gradient(implementation):
    w = jnp.ones((3, 5))

    def loss(w):
        at = (jnp.ones((0, 3)), w, None)
        config = Config(5, implementation)
        return jnp.sum(log_sums(at, aux=jnp.ones(0, jnp.int32), config=config, kind="softmax")[0])

    value, slope = jax.jit(jax.value_and_grad(loss))(w)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0 * w)


def test_what_cannot_run_raises():
    layer = tuple(jnp.ones(s) for s in ((4, 300), (300, 1000), (1000,)))
    labels = jnp.zeros(4, jnp.int32)

    def check(match, *config, layer=layer):
        with pytest.raises(ValueError, match=match):
            check_implementation(Config(7, *config), *layer)

    check("implementation: got 'cuda'", "cuda")
    check("tiles: got .*chunk_size", None, (16, 128, 128))
    check("tiles: got", "interpret", (16, 128))
    check(r"tiles\[1\]: got 0", "interpret", (16, 0, 128))
    check(
        "tiles: got .*multiples of 128 classes, or all 1000, not 500", "pallas_tpu", (4, 500, 300)
    )
    half = jax.tree.map(lambda a: a.astype(jnp.float16), layer)
    check("implementation: got .*not float16", "pallas_tpu", layer=half)
    check_implementation(Config(7, "pallas_tpu", (4, 1000, 128)), *layer)
    config = Config(7, "pallas_tpu")
    with pytest.raises(ValueError, match=r"implementation.*runs on tpu, not on cpu"):
        log_sums(layer, aux=labels, config=config, kind="softmax")


@pytest.mark.parametrize(
    "shape", [(4096, 1024, 262_144), (8192, 4096, 128_256), (100, 8192, 50_257), (3, 5, 7)]
)
def test_default_tiles_fit_a_chip(shape):
    """Of all passes, with features in tiles where they must be."""
    n, d, v = shape
    x, w, row = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((n, d), (d, v), (n,)))
    at = (x, w, None, row)
    y = jax.ShapeDtypeStruct((n,), jnp.int32)
    works = [
        passes.log_sums(at[:3], y, "softmax"),
        passes.cotangent(at, (row,) * 3, y, "softmax"),
        passes.hessian((*at, (row,) * 3), (*at, (row,) * 3), y, "softmax", True),
    ]
    for work in works:
        for over in "vn" if work.to_x else "v":
            plan = tiling.plan(work, over, None)
            assert plan.memory() <= tiling.VMEM_BUDGET
            assert plan.size == {"n": n, "v": v, "d": d}
            if min(shape) > 99:
                assert math.prod(plan.tile.values()) >= 2**22, "too small a tile"


def hessian_vector(config):
    """Gradient and its tangent, of the weights too."""

    def loss(x, w, y):
        log_z, label, _ = log_sums((x, w, None), aux=y, config=config, kind="softmax")
        return jnp.mean(log_z - label)

    def hvp(x, w, y):
        return jax.jvp(lambda *p: jax.grad(loss, (0, 1))(*p, y), (x, w), (x, w))

    return hvp


def shaped(n, d, v, by_x, by_w):
    return (
        jax.ShapeDtypeStruct((n, d), jnp.bfloat16, sharding=by_x),
        jax.ShapeDtypeStruct((d, v), jnp.bfloat16, sharding=by_w),
        jax.ShapeDtypeStruct((n,), jnp.int32, sharding=by_x),
    )


KERNELS = {
    "linear_log_sums_over_classes",
    "linear_tangent_over_classes",
    "linear_cotangent_over_classes",
    "linear_cotangent_over_rows",
    "linear_hessian_over_classes",
    "linear_hessian_over_rows",
}


@pytest.mark.parametrize("name", ["v5e:1x1", "v5p:1x1x1", "v6e:1x1", "tpu7x:1x1x1"])
def test_gradients_and_their_tangents_compile(topology, name):
    """Of shapes that are no multiple of a tile; without the logits, and without a copy of W.

    Of 256 features XLA lays out W column by column, of 192 row by row.
    """
    one = SingleDeviceSharding(topology(name).devices[0])
    n, d, v = 1000, 256 if "v5e" in name else 192, 50_257
    hvp = hessian_vector(Config(512, "pallas_tpu", (64, 256, 128)))
    compiled = jax.jit(hvp).lower(*shaped(n, d, v, one, one)).compile()
    assert set(re.findall(r"linear_[a-z_]+_over_[a-z]+", compiled.as_text())) == KERNELS
    assert compiled.memory_analysis().temp_size_in_bytes < min(0.05 * 2 * n * v, d * v)


def test_xla_holds_no_copy_of_the_weights(topology):
    """Not for the tangent of the gradient either, which is one walk over the classes."""
    one = SingleDeviceSharding(topology("v5e:1x1").devices[0])
    n, d, v = 256, 1024, 131_072  # more than the fast memory holds
    hvp = hessian_vector(Config(512))
    memory = jax.jit(lambda *a: hvp(*a)[1]).lower(*shaped(n, d, v, one, one)).compile()
    memory = memory.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert max(memory.temp_size_in_bytes, memory.peak_memory_in_bytes - held) < 0.25 * 2 * d * v


def test_programs_that_xla_partitions_raise(topology):
    """It cannot split kernels; inside a `shard_map` it need not."""
    mesh = Mesh(topology("v5e:2x2").devices, ("classes",))
    split, whole = PartitionSpec(None, "classes"), PartitionSpec()
    args = shaped(64, 128, 1024, *(NamedSharding(mesh, s) for s in (whole, split)))
    hvp = hessian_vector(Config(512, "pallas_tpu", (64, 256, 128)))
    with pytest.raises(ValueError, match=r"implementation.*inside jax\.shard_map"):
        jax.jit(hvp).lower(*args)
    specs = {"in_specs": (whole, split, whole), "out_specs": ((whole, split), (whole, split))}
    hidden = jax.shard_map(lambda *a: hvp(*a), mesh=mesh, check_vma=False, **specs)
    jax.jit(hidden).lower(*args)
