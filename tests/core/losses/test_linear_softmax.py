"""Cross-entropy in chunks of the vocabulary against the matrix of logits, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from linear_layers import assert_derivatives, assert_sharded, with_bias

from papyrax.losses import linear_softmax_cross_entropy

HYPER = {"label_smoothing": 0.1, "z_loss_weight": 0.03}


def dense(z, labels):
    log_z = jax.nn.logsumexp(z, -1)
    label = jnp.take_along_axis(z, labels[..., None], -1)[..., 0]
    return log_z - 0.9 * label - 0.1 * z.mean(-1) + 0.03 * log_z**2


def test_all_derivatives_are_those_of_the_logits():
    with jax.enable_x64(True):
        assert_derivatives(with_bias(linear_softmax_cross_entropy, **HYPER), dense)


def test_a_vocabulary_on_eight_devices():
    with jax.enable_x64(True):
        assert_sharded(with_bias(linear_softmax_cross_entropy, **HYPER), dense)


def test_float16_keeps_small_probabilities():
    """All but one of 100,000 classes pull alike, each by 1e-5 times the weight 1e-3."""
    x = jnp.ones((1, 2), jnp.float16)
    w = jnp.zeros((2, 100_000), jnp.float16).at[0].set(1).at[0, 3].set(0)

    def loss(x):
        value = linear_softmax_cross_entropy(x, w, jnp.array([3]), chunk_size=10_000)
        return 1e-3 * value[0].astype(jnp.float32)

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), [[1e-3, 0]], rtol=1e-3)


def test_memory_on_a_tpu(topology):
    """Value and gradient for v5e: beside them, less than 5% of what the logits would take."""
    device = topology("v5e:1x1").devices[0]
    batch, features, classes = 4096, 1024, 262_144

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))

    def loss(x, w, y):
        return jnp.mean(linear_softmax_cross_entropy(x, w, y).astype(jnp.float32))

    shapes = (
        array(jnp.bfloat16, batch, features),
        array(jnp.bfloat16, features, classes),
        array(jnp.int32, batch),
    )
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    gradients = 2 * features * (batch + classes)
    logits = 2 * batch * classes
    assert memory.output_size_in_bytes < 1.01 * gradients
    held = memory.peak_memory_in_bytes - memory.argument_size_in_bytes - gradients
    assert max(memory.temp_size_in_bytes, held) < 0.05 * logits
