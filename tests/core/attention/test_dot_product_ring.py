"""Attention over keys on a ring of eight devices against attention on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from papyrax.attention import dot_product_attention, ring_attention

# Programs are compiled to run once.
FAST = {"xla_backend_optimization_level": 0}
SEGMENTS = np.repeat([[0, 1, 1, 2], [0, 0, 3, 3]], 10, axis=1).astype(np.int32)

LENGTHS = {
    "query_seq_lengths": np.asarray([40, 23], np.int32),
    "key_value_seq_lengths": np.asarray([7, 31], np.int32),
    "is_causal": True,
}


def draw(seed, batch=2, tokens=40):
    rng = np.random.default_rng(seed)
    shapes = (batch, tokens, 4, 6), (batch, tokens, 2, 6), (batch, tokens, 2, 5)
    return tuple(jnp.asarray(rng.standard_normal(s)) for s in shapes)


def ring(mesh, spec, check_vma=True, **options):
    def local(q, k, v, segments):
        ids = {"query_segment_ids": segments, "key_value_segment_ids": segments}
        extra = {} if segments is None else ids
        return ring_attention(q, k, v, axis_name="seq", return_lse=True, **extra, **options)

    def attend(q, k, v, segments=None):
        specs = (spec, spec, spec, spec if segments is not None else None)
        sharded = jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=check_vma
        )
        return sharded(q, k, v, segments)

    return attend


def whole(**options):
    def attend(q, k, v, segments=None):
        ids = {"query_segment_ids": segments, "key_value_segment_ids": segments}
        extra = {} if segments is None else ids
        return dot_product_attention(q, k, v, return_lse=True, **extra, **options)

    return attend


def everything(attend, segments):
    """Values, tangents, gradients and their tangents in two orders."""

    def run(x, t):
        def loss(x):
            out, lse = attend(*x, segments)
            return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(jnp.where(jnp.isinf(lse), 0, lse)))

        grad = jax.grad(loss)
        hvp = jax.jvp(grad, (x,), (t,))
        dot = lambda x: sum(jnp.vdot(a, b) for a, b in zip(grad(x), t))  # noqa: E731
        return attend(*x, segments)[0], jax.jvp(loss, (x,), (t,)), hvp, jax.grad(dot)(x)

    return jax.jit(run, compiler_options=FAST)


MESHES = {
    "eight": (Mesh(np.array(jax.devices()[:8]), ("seq",)), PartitionSpec(None, "seq")),
    "two by four": (
        Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("data", "seq")),
        PartitionSpec("data", "seq"),
    ),
}


@pytest.mark.parametrize(
    ("mesh", "check_vma", "options", "segments"),
    [
        ("eight", False, {"is_causal": True}, None),
        ("two by four", True, {"is_causal": True, "local_window_size": 7}, None),
        ("two by four", True, {"logits_soft_cap": 2.0}, SEGMENTS),
        ("eight", True, LENGTHS, None),
    ],
    ids=["causal", "window", "segments", "lengths"],
)
def test_agrees_with_one_device(mesh, check_vma, options, segments):
    with jax.enable_x64(True):
        x, t = draw(0), draw(1)
        got = everything(ring(*MESHES[mesh], check_vma, **options), segments)(x, t)
        want = everything(whole(**options), segments)(x, t)
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-12 * float(jnp.abs(w).max()))


ROWS, KEYS = PartitionSpec(None, None, "seq"), PartitionSpec(None, None, None, "seq")


def ring_of_pairs(bias_spec, mask_spec, **options):
    mesh, spec = MESHES["eight"]
    local = lambda *x: ring_attention(*x, axis_name="seq", return_lse=True, **options)  # noqa: E731
    specs = (spec, spec, spec, bias_spec, mask_spec)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spec)


@pytest.mark.parametrize(
    ("bias", "mask", "options"),
    [
        (((1, 4, 40, 40), ROWS), ((2, 1, 40, 40), ROWS), {"logits_soft_cap": 3.0}),
        (((2, 1, 1, 40), KEYS), ((40,), PartitionSpec("seq")), {"tiles": (3, 2)}),
        (((4, 1, 40), PartitionSpec()), ((2, 1, 40, 1), ROWS), {"dropout_rate": 0.4}),
    ],
    ids=["rows", "keys", "shared"],
)
def test_bias_mask_and_dropout_agree_with_one_device(bias, mask, options):
    """Split by rows, by keys that travel, or the same everywhere; with the bias' derivatives."""
    rng = np.random.default_rng(2)
    shown = jnp.asarray(rng.random(mask[0]) < 0.6).at[..., 0].set(True)
    if "dropout_rate" in options:
        options = options | {"dropout_rng": jax.random.key(3)}
    attend = ring_of_pairs(bias[1], mask[1], **options)
    whole = functools.partial(dot_product_attention, return_lse=True, **options)
    with jax.enable_x64(True):
        x, t = ((*draw(seed), jnp.asarray(rng.standard_normal(bias[0]))) for seed in (0, 1))
        got, want = (
            everything(lambda *x, f=f: f(*x[:4], shown), None)(x, t) for f in (attend, whole)
        )
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-12 * float(jnp.abs(w).max()))


def test_third_order_and_hessian_of_replicated_queries():
    """The reference beyond the kernels gathers the keys; vmap goes through the ring."""
    options = {"dropout_rate": 0.3, "dropout_rng": jax.random.key(0), "is_causal": True}
    pairs = jnp.asarray(np.linspace(-1, 1, 16))[None, None, None], jnp.ones((1, 1, 16, 16), bool)
    functions = (
        ring_of_pairs(KEYS, ROWS, **options),
        functools.partial(dot_product_attention, return_lse=True, **options),
    )
    with jax.enable_x64(True):
        x, t = draw(0, 1, 16), draw(1, 1, 16)
        losses = [lambda q, f=f: jnp.sum(jnp.sin(f(q, *x[1:], *pairs)[0])) for f in functions]
        step = lambda loss: lambda q: jax.jvp(jax.grad(loss), (q,), (t[0],))[1]  # noqa: E731
        run = functools.partial(jax.jit, compiler_options=FAST)
        third = [run(lambda q, f=f: jax.jvp(step(f), (q,), (q,))[1])(x[0]) for f in losses]
        np.testing.assert_allclose(*third, atol=1e-12)
        many = jnp.stack([t[0], 2 * t[0], x[0]])
        products = [
            run(jax.vmap(lambda t, f=f: jax.jvp(jax.grad(f), (x[0],), (t,))[1]))(many)
            for f in losses
        ]
        np.testing.assert_allclose(*products, atol=1e-12)


def test_shards_travel_and_are_never_gathered():
    mesh, spec = MESHES["eight"]
    attend = ring(mesh, spec, is_causal=True)
    loss = lambda x: jnp.sum(jnp.sin(attend(*x)[0]))  # noqa: E731

    def compiled(tokens):
        x = tuple(jax.ShapeDtypeStruct((1, tokens, 1, 16), jnp.float32) for _ in range(3))
        hvp = jax.jit(lambda x, t: jax.jvp(jax.grad(loss), (x,), (t,))[1])
        return hvp.lower(x, x).compile()

    program = compiled(1024)
    assert "collective-permute" in program.as_text()
    assert "all-gather" not in program.as_text()
    # Per device: 128 queries and keys at 1024 tokens. A matrix of logits of the sequence on one
    # device would have 128 x 1024 entries, all keys 1024 x 16.
    small = program.memory_analysis().temp_size_in_bytes
    assert small < 60 * 128 * 16 * 4 + 10 * 128 * 128 * 4
