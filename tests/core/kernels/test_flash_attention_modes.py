"""Attention's kernels under every stack of JAX's transformations, for TPUs, GPUs and CPUs."""

import collections
import functools

import composition
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import FAST
from composition import USES, relative_error
from gpus import absent_gpu
from jax.sharding import Mesh, PartitionSpec

from papyrax.kernels.flash_attention import Config, Inputs, Masks, api, attention
from papyrax.kernels.flash_attention.reference import forward as dense

SHAPES = [(5, 3), (7, 3), (7, 4)]
LETTERS = {"forward": "F", "tangent": "J", "cotangent": "B", "hessian": "H", "second_tangent": "K"}
CHOICE = {"tpu": "pallas_tpu", "cuda": "pallas_triton", "cpu": "xla_chunked"}


def attend(q, k, v, masks=Masks(), operator=attention, **options):
    config = Config(scale=0.37, causal=True, **options)
    x = Inputs(q[None, None, None], k[None, None], v[None, None])
    return operator(x, masks, config=config).out[0, 0, 0]


@pytest.fixture(scope="module")
def compositions():
    x = composition.draw(SHAPES, 0)
    return composition.modes(attend, x) | composition.more_modes(attend, x)


@pytest.mark.parametrize("name", USES)
def test_every_composition_is_made_of_kernels(compositions, name, monkeypatch):
    """Lowered once for three platforms: each gets its kernels, those of the table and no others.

    What runs them does not matter here, so zeros stand for their results.
    """
    calls = collections.defaultdict(set)

    def stand_in(implementation, work, *_):
        calls[implementation].add(LETTERS[work.name])
        shape_of = {s.axes: s.shape for s in work.sums.values()}
        return {
            name: jnp.zeros(work.sums[name].shape if name in work.sums else shape_of[axes], dtype)
            for name, (axes, dtype) in work.results.items()
        }

    for implementation in CHOICE.values():
        run = functools.partial(stand_in, implementation)
        monkeypatch.setattr(api._module(implementation), "run", run)
    platforms = tuple(CHOICE)
    if name == "lower(hvp).compile":  # which is for the platform at hand
        platforms = ("cpu",)
    with absent_gpu():
        jax.jit(compositions[name]).trace().lower(lowering_platforms=platforms)
    if name == "third order":
        # Its last derivative is the reference's, and what that makes superfluous is not run.
        assert calls["pallas_tpu"] <= set("FJBHK")
        return
    for platform in platforms:
        # Operation by operation a gradient runs that is not asked for; as one program it does not.
        wanted = set(USES[name]) - ({"B"} if name == "hvp" else set())
        assert calls[CHOICE[platform]] == wanted, platform


def everything(f, x, t, u, lengths):
    """On four devices, mapped over tangents, the HVP of scanned and rematerialized layers.

    Beside it a tangent of a tangent. Each device has a number of keys of its own.
    """
    split = PartitionSpec("d")

    def local(x, t, u, lengths):
        x, t, u = (tuple(a[0] for a in b) for b in (x, t, u))
        g = functools.partial(f, masks=Masks(key_lengths=lengths))

        def layer(c, _):
            q, k, v = c
            return (q + jnp.sin(g(q, k, v)[:, :3]), k, v), None

        def loss(x):
            return jnp.sum(jnp.sin(jax.lax.scan(jax.checkpoint(layer), x, None, length=2)[0][0]))

        def along(t):
            hvp = jax.jvp(jax.grad(loss), (x,), (t,))[1]
            return hvp, jax.jvp(lambda *x: jax.jvp(g, x, u)[1], x, t)[1]

        return jax.tree.map(lambda a: a[None], jax.vmap(along)(t))

    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split)
    return jax.block_until_ready(jax.jit(mapped, compiler_options=FAST)(x, t, u, lengths))


def draw():
    x, u = (composition.draw(SHAPES, seed, batch=(4,)) for seed in (0, 1))
    return x, composition.draw(SHAPES, 2, batch=(4, 3)), u, jnp.asarray([7, 0, 3, 5], jnp.int32)


@pytest.fixture(scope="module")
def wanted():
    with jax.enable_x64(True):
        return everything(functools.partial(attend, operator=dense), *draw())


@pytest.mark.parametrize("implementation", ["interpret", "interpret_triton", "xla_chunked"])
def test_kernels_run_inside_everything_at_once(implementation, wanted, monkeypatch):
    """Calls are counted where the program runs."""
    calls = collections.Counter()
    module = api._module(implementation)
    run = module.run

    def counted(work, *args):
        jax.debug.callback(lambda: calls.update([LETTERS[work.name]]))
        return run(work, *args)

    monkeypatch.setattr(module, "run", counted)
    with jax.enable_x64(True):
        f = functools.partial(attend, implementation=implementation, blocks=(4, 4))
        got = everything(f, *draw())
        jax.effects_barrier()
        assert set(calls) == set("FJBHK")
        assert relative_error(got, wanted) < 1e-12
