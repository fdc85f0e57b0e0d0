"""Cross-entropy in chunks of the vocabulary against the matrix of logits, to second order."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec, SingleDeviceSharding

from papyrax.losses import linear_softmax_cross_entropy

HYPER = {"label_smoothing": 0.1, "z_loss_weight": 0.03}


def dense(params, labels, smoothing=0.1, weight=0.03):
    x, w, b = params
    z = x @ w + b
    log_z = jax.nn.logsumexp(z, -1)
    label = jnp.take_along_axis(z, labels[..., None], -1)[..., 0]
    return log_z - (1 - smoothing) * label - smoothing * z.mean(-1) + weight * log_z**2


def example(classes=24):
    rng = np.random.default_rng(0)

    def draw():
        shapes = ((2, 3, 4), (4, classes), (classes,))
        return tuple(jnp.asarray(rng.normal(size=s)) for s in shapes)

    return draw(), draw(), draw(), jnp.asarray(rng.integers(classes, size=(2, 3)))


def derivatives(values):
    """Value, gradient, and the second derivative in all four orders of the two modes."""

    def loss(params):
        return jnp.sum(jnp.sin(values(params)))

    def everything(params, v, u):
        jvp = lambda p: jax.jvp(loss, (p,), (v,))[1]  # noqa: E731
        inner = lambda p: sum(map(jnp.vdot, jax.grad(loss)(p), v))  # noqa: E731
        return {
            "value": values(params),
            "gradient, its tangent": jax.jvp(jax.grad(loss), (params,), (v,)),
            "gradient of a gradient": jax.grad(inner)(params),
            "gradient of a tangent": jax.grad(jvp)(params),
            "tangent of a tangent": jax.jvp(jvp, (params,), (u,)),
        }

    return everything


def assert_equal(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs
    )


def test_all_derivatives_are_those_of_the_logits():
    with jax.enable_x64(True):
        params, v, u, labels = example()

        def ours(p):
            x, w, b = p
            # Chunks of 7 out of 24: the last overlaps the one before.
            return linear_softmax_cross_entropy(x, w, labels, bias=b, chunk_size=7, **HYPER)

        theirs = jax.jit(derivatives(lambda p: dense(p, labels)))(params, v, u)
        assert_equal(jax.jit(derivatives(ours))(params, v, u), theirs)


def test_a_vocabulary_on_eight_devices():
    with jax.enable_x64(True):
        params, v, _, labels = example(32)
        mesh = Mesh(np.array(jax.devices()[:8]), ("vocabulary",))
        P = PartitionSpec

        @jax.shard_map(
            mesh=mesh, in_specs=((P(), P(None, "vocabulary"), P("vocabulary")),), out_specs=P()
        )
        def ours(p):
            x, w, b = p
            return linear_softmax_cross_entropy(
                x, w, labels, bias=b, chunk_size=2, axis_name="vocabulary", **HYPER
            )

        loss = lambda f: lambda p: jnp.sum(jnp.sin(f(p)))  # noqa: E731
        full = lambda p: dense(p, labels)  # noqa: E731
        run = lambda f: lambda p, v: (f(p), jax.jvp(jax.grad(loss(f)), (p,), (v,)))  # noqa: E731
        assert_equal(jax.jit(run(ours))(params, v), jax.jit(run(full))(params, v))


def test_float16_keeps_small_probabilities():
    """All but one of 100,000 classes pull alike, each by 1e-5 times the weight 1e-3."""
    x = jnp.ones((1, 2), jnp.float16)
    w = jnp.zeros((2, 100_000), jnp.float16).at[0].set(1).at[0, 3].set(0)

    def loss(x):
        value = linear_softmax_cross_entropy(x, w, jnp.array([3]), chunk_size=10_000)
        return 1e-3 * value[0].astype(jnp.float32)

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), [[1e-3, 0]], rtol=1e-3)


def test_memory_on_a_tpu(monkeypatch):
    """Value and gradient for v5e: beside them, less than 5% of what the logits would take."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:1x1").devices[0]
    batch, features, classes = 4096, 1024, 262_144

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))

    def loss(x, w, y):
        return jnp.mean(linear_softmax_cross_entropy(x, w, y).astype(jnp.float32))

    # JAX's compilation cache cannot read programs for absent devices back.
    setting = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, setting)
    jax.config.update(setting, math.inf)
    try:
        memory = (
            jax.jit(jax.value_and_grad(loss, (0, 1)))
            .lower(
                array(jnp.bfloat16, batch, features),
                array(jnp.bfloat16, features, classes),
                array(jnp.int32, batch),
            )
            .compile()
            .memory_analysis()
        )
    finally:
        jax.config.update(setting, before)
    gradients = 2 * features * (batch + classes)
    logits = 2 * batch * classes
    assert memory.output_size_in_bytes < 1.01 * gradients
    held = memory.peak_memory_in_bytes - memory.argument_size_in_bytes - gradients
    assert max(memory.temp_size_in_bytes, held) < 0.05 * logits
