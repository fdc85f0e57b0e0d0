"""The kernel of linear attention: derivatives of every order, inside everything, and for TPUs."""

import collections
import functools
import re

import composition
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from composition import USES, relative_error
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from papyrax.kernels.linear_attention import Config, Inputs, api, linear_attention, pallas_tpu
from papyrax.kernels.linear_attention.reference import forward as dense

FAST = {"xla_backend_optimization_level": 0}
INTERPRETED = ("interpret", "interpret_triton")
LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}
# Direction, rows of queries and of keys, queries, keys, features, value dim, tokens a chunk.
SCENES = {
    "groups": ("past", 3, 1, 21, 21, 5, 7, 12),
    "rows of keys": ("future", 1, 2, 11, 11, 7, 3, 4),
    "all keys": ("all", 2, 1, 9, 21, 5, 7, None),
}


def draw(scene, seed, dtype="float64"):
    """Inputs in float64 that are rounded to `dtype`, with some keys hidden."""
    _, rows, key_rows, queries, keys, features, dim, _ = SCENES[scene]
    shapes = (
        (2, 2, rows, queries, features),
        (2, 2, key_rows, keys, features),
        (2, 2, key_rows, keys, dim),
        (2, 2, features, dim),
    )
    x = composition.draw(shapes, seed)
    wide = jnp.promote_types(dtype, jnp.float32)
    x = Inputs(*(a.astype(dtype).astype(wide) for a in x))
    return x._replace(key=x.key * (jnp.arange(keys) % 4 != 1)[:, None])


def of_all_orders(f, second_tangent):
    """`run(x, t, u, g, h)`: value, J, B, H and K, along tangents t, u and cotangents g, h."""

    def pull(x, g):
        return jax.vjp(f, x)[1](g)[0]

    def run(x, t, u, g, h):
        found = {"J": jax.jvp(f, (x,), (t,))}
        found["B"], found["H"] = jax.jvp(pull, (x, g), (t, h))
        if second_tangent:
            found["K"] = jax.jvp(lambda x: jax.jvp(f, (x,), (t,))[1], (x,), (u,))[1]
        return found

    return jax.jit(run, compiler_options=FAST)


@functools.cache
def definition(scene):
    f = functools.partial(dense, config=Config(SCENES[scene][0]))
    return f, of_all_orders(f, scene == "groups")


@functools.cache
def ideal(scene, dtype="float64"):
    """Arguments of `of_all_orders`, and what the definition gives in float64."""
    f, run = definition(scene)
    x, t, u = (draw(scene, seed, dtype) for seed in range(3))
    y = jax.eval_shape(f, x)
    g, h = (type(y)(*composition.draw([a.shape for a in y], seed)) for seed in (3, 4))
    wide = [jax.tree.map(lambda a: a.astype(jnp.float64), a) for a in (x, t, u, g, h)]
    return wide, run(*wide)


def compute(scene, dtype="float64", implementation="interpret"):
    config = Config(SCENES[scene][0], dtype, SCENES[scene][-1], implementation=implementation)
    wide = jnp.promote_types(dtype, jnp.float32)
    args = jax.tree.map(lambda a: a.astype(wide), ideal(scene, dtype)[0])
    return of_all_orders(lambda x: linear_attention(x, config), scene == "groups")(*args)


def compare(got, want, limit):
    for name in want:
        floor = max(float(jnp.linalg.norm(jnp.ravel(w))) for w in jax.tree.leaves(want[name]))
        for leaf, right in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name])):
            assert relative_error(leaf, right, floor=1e-3 * floor) < limit, name


@pytest.mark.parametrize("implementation", INTERPRETED)
@pytest.mark.parametrize("scene", SCENES)
def test_float64(scene, implementation):
    with jax.enable_x64(True):
        (_, t, _, g, _), want = ideal(scene)
        got = compute(scene, "float64", implementation)
        compare(got, want, LIMITS["float64"])
        # Adjoint: <g, J t> = <J^T g, t>.
        forward, back = composition.dot(g, got["J"][1]), composition.dot(got["B"], t)
        assert abs(forward - back) < 1e-12 * abs(forward)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision(dtype):
    with jax.enable_x64(True):
        compare(compute("rows of keys", dtype), ideal("rows of keys", dtype)[1], LIMITS[dtype])


def test_hessians_are_symmetric():
    with jax.enable_x64(True):
        config = Config("past", "float64", 4, implementation="interpret")
        x, *tangents = (draw("rows of keys", seed) for seed in range(3))

        def loss(x):
            return sum(jnp.sum(jnp.sin(a)) for a in linear_attention(x, config))

        def products(x, t):
            return jax.vmap(lambda t: jax.jvp(jax.grad(loss), (x,), (t,))[1])(t)

        t = jax.tree.map(lambda *a: jnp.stack(a), *tangents)
        found = jax.jit(products, compiler_options=FAST)(x, t)
        gram = sum(jnp.einsum("i...,j...->ij", a, b) for a, b in zip(found, t))
        assert abs(gram[0, 1] - gram[1, 0]) < 1e-12 * jnp.max(jnp.abs(gram))


def attend(q, k, v, operator=linear_attention, **options):
    config = Config("past", **options)
    x = Inputs(
        q[None, None, None], k[None, None, None], v[None, None, None], jnp.ones((1, 1, 3, 4))
    )
    x = x._replace(initial=x.initial.astype(q.dtype))
    return operator(x, config=config).out[0, 0, 0]


SHAPES = [(5, 3), (5, 3), (5, 4)]
# Cotangents of keys and values sum over the future; those of queries alone do not.
ONE_WAY = {name for name, uses in USES.items() if uses in ("F", "FJ", "FJK")} - {"third order"}
ONE_WAY |= {"grad of the first", "hvp of the first", "hessian of the first", "jacrev"}
ONE_WAY |= {"jit(hessian)", "jit(vmap(hessian))"}


@pytest.fixture(scope="module")
def compositions():
    x = composition.draw(SHAPES, 0)
    return composition.modes(attend, x) | composition.more_modes(attend, x)


@pytest.mark.parametrize("name", USES)
def test_every_composition_is_made_of_kernels(compositions, name, monkeypatch):
    """Also those of third order, as the sums have no other derivatives.

    What runs them does not matter here, so zeros stand for their results.
    """
    calls = collections.Counter()

    def stand_in(x, config, *, interpret):
        assert not interpret
        calls[config.direction] += 1
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), api.struct(x))

    monkeypatch.setattr(pallas_tpu, "run", stand_in)
    if name == "lower(hvp).compile":  # which is for the platform at hand
        monkeypatch.setattr(pallas_tpu, "why_not", lambda *_: [])
    platforms = ("cpu",) if name == "lower(hvp).compile" else ("tpu",)
    jax.jit(compositions[name]).trace().lower(lowering_platforms=platforms)
    assert set(calls) == ({"past"} if name in ONE_WAY else {"past", "future"})


def everything(f, x, t):
    """On four devices, mapped over tangents, the HVP of scanned and rematerialized layers."""
    split = PartitionSpec("d")

    def local(x, t):
        x, t = (tuple(a[0] for a in b) for b in (x, t))

        def layer(c, _):
            q, k, v = c
            return (q + jnp.sin(f(q, k, v)[:, :3]), k, v), None

        def loss(x):
            return jnp.sum(jnp.sin(jax.lax.scan(jax.checkpoint(layer), x, None, length=2)[0][0]))

        found = jax.vmap(lambda t: jax.jvp(jax.grad(loss), (x,), (t,))[1])(t)
        return jax.tree.map(lambda a: a[None], found)

    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split)
    return jax.block_until_ready(jax.jit(mapped, compiler_options=FAST)(x, t))


def test_the_kernel_runs_inside_everything_at_once(monkeypatch):
    """Calls are counted where the program runs."""
    calls = collections.Counter()
    run = pallas_tpu.run

    def counted(x, config, *, interpret):
        jax.debug.callback(lambda: calls.update([config.direction]))
        return run(x, config, interpret=interpret)

    monkeypatch.setattr(pallas_tpu, "run", counted)
    with jax.enable_x64(True):
        x = composition.draw(SHAPES, 0, batch=(4,))
        t = composition.draw(SHAPES, 1, batch=(4, 3))
        options = {"implementation": "interpret", "operands": "float64", "chunk": 4}
        got = everything(functools.partial(attend, **options), x, t)
        jax.effects_barrier()
        assert set(calls) == {"past", "future"}
        assert (
            relative_error(got, everything(functools.partial(attend, operator=dense), x, t)) < 1e-12
        )


def test_explicit_kernels_do_not_fall_back():
    def take(dtype=jnp.float32, features=4, **options):
        x = Inputs(*(jnp.ones((1, 1, 1, 40, n), dtype) for n in (features, features, 4)), None)
        x = x._replace(initial=jnp.ones((1, 1, features, 4), dtype))
        return linear_attention(x, Config(**options))

    with pytest.raises(ValueError, match=r"implementation.*runs on tpu, not on cpu"):
        take()
    with pytest.raises(ValueError, match=r"implementation.*takes 'pallas_tpu', 'pallas_triton', "):
        take(implementation="xla")
    with pytest.raises(ValueError, match=r"implementation.*do not fit"):
        take(features=8192)
    with pytest.raises(ValueError, match=r"chunk_size: got 12.*multiples of 8, or all 40"):
        take(chunk=12)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"implementation.*not float64"):
        take(jnp.float64)


@pytest.mark.parametrize("implementation", INTERPRETED)
@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_without_tokens_keys_or_examples(empty, implementation):
    n = {"batch": (0, 3, 3), "queries": (2, 0, 3), "keys": (2, 3, 0)}[empty]
    shapes = ((n[0], 2, 1, n[1], 4), (n[0], 2, 1, n[2], 4), (n[0], 2, 1, n[2], 5), (n[0], 2, 4, 5))
    x = Inputs(*(jnp.ones(s) for s in shapes))
    out, final = linear_attention(x, Config("all", implementation=implementation))
    np.testing.assert_array_equal(out, jnp.full((n[0], 2, 1, n[1], 5), 4 * (1 + n[2])))
    np.testing.assert_array_equal(final, jnp.full(shapes[-1], 1 + n[2]))


def shaped(sharding, tokens, batch=1, group=1, features=64, dim=64):
    shapes = (
        (batch, 2, group, tokens, features),
        (batch, 2, 1, tokens, features),
        (batch, 2, 1, tokens, dim),
        (batch, 2, features, dim),
    )
    return Inputs(*(jax.ShapeDtypeStruct(s, jnp.float32, sharding=sharding) for s in shapes))


def loss_of(config):
    return lambda x: sum(jnp.sum(jnp.sin(a)) for a in linear_attention(x, config))


def hvp_of(config):
    return lambda x, t: jax.jvp(jax.grad(loss_of(config)), (x,), (t,))[1]


def kernels_in(compiled):
    return collections.Counter(
        re.findall(r'%linear_attention_(\w+?)[.\d]* = .*"tpu_custom_call"', compiled.as_text())
    )


@pytest.mark.parametrize("name", ["v5e:1x1", "v5p:1x1x1", "v6e:1x1", "tpu7x:1x1x1"])
def test_value_gradient_and_hessian_vector_product_compile(topology, name):
    """F and B's dq over the past, dk and dv over the future; twice each for H, after two of J."""
    x = shaped(SingleDeviceSharding(topology(name).devices[0]), 300, group=2, dim=80)

    def of_everything(x, t):
        return jax.jvp(jax.value_and_grad(loss_of(Config("past", "bfloat16"))), (x,), (t,))

    compiled = jax.jit(of_everything).lower(x, x).compile()
    assert kernels_in(compiled) == {"past": 1 + 2 + 1 + 2, "future": 2 + 4}


def test_sums_over_all_keys_compile(topology):
    x = shaped(SingleDeviceSharding(topology("v5e:1x1").devices[0]), 300)
    compiled = jax.jit(hvp_of(Config("all"))).lower(x, x).compile()
    assert kernels_in(compiled) == {"all": 1 + 2 + 6}


def test_memory_is_linear(topology):
    sharding = SingleDeviceSharding(topology("v5e:1x1").devices[0])
    hvp = jax.jit(hvp_of(Config("past", "bfloat16", chunk=128)))

    def peak(tokens):
        x = shaped(sharding, tokens, features=128, dim=128)
        memory = hvp.lower(x, x).compile().memory_analysis()
        return max(memory.peak_memory_in_bytes, memory.temp_size_in_bytes)

    small, large = peak(2048), peak(8192)
    assert large < 4.5 * small
    assert large < 8192 * 8192 * 4, "as much as one matrix of weights"


def test_sharded_and_mapped_hessian_vector_products_compile(topology):
    mesh = Mesh(topology("v5e:2x2").devices, ("data",))
    spec = PartitionSpec("data")
    x = shaped(NamedSharding(mesh, spec), 128, batch=4)
    hvp = hvp_of(Config("past", "bfloat16"))

    def many(x, t):
        tangents = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), t)
        return jax.vmap(lambda t: hvp(x, t), out_axes=1)(tangents)

    sharded = jax.shard_map(many, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    assert set(kernels_in(jax.jit(sharded).lower(x, x).compile())) == {"past", "future"}
    with pytest.raises(ValueError, match=r"implementation.*inside jax\.shard_map"):
        jax.jit(hvp).lower(x, x)
