"""Losses over a linear layer by the kernels of their sums."""

import functools

import jax
import jax.numpy as jnp
import pytest
import test_linear_softmax
from gpus import absent_gpu
from linear_layers import assert_sharded, with_bias

from papyrax.losses import (
    aldr_kl_init,
    linear_aldr_kl,
    linear_ldr_kl,
    linear_softmax_cross_entropy,
    linear_spherical_loss,
)


def test_a_vocabulary_on_eight_devices():
    """Each with a last tile that reaches beyond its classes."""
    options = {"implementation": "interpret", "tiles": (4, 3, 3)}
    loss = functools.partial(linear_softmax_cross_entropy, **options)
    with jax.enable_x64(True):
        ours = with_bias(loss, **test_linear_softmax.HYPER)
        assert_sharded(ours, test_linear_softmax.dense)


@pytest.mark.parametrize(
    ("loss", "options", "kernels"),
    [
        (linear_softmax_cross_entropy, {}, {"log_sums"}),
        (linear_spherical_loss, {}, {"sums"}),
        (linear_ldr_kl, {"normalization": "l1"}, {"log_sums", "sums"}),
        (linear_aldr_kl, {}, {"log_sums", "tangent"}),
    ],
)
@pytest.mark.parametrize(
    ("implementation", "platform", "call"),
    [("pallas_tpu", "tpu", "tpu_custom_call"), ("pallas_triton", "cuda", "xla.gpu.triton")],
)
def test_losses_are_made_of_kernels(loss, options, kernels, implementation, platform, call):
    """Their gradients too, lowered for a TPU and for a GPU on a machine without."""
    h, w, y = jnp.ones((4, 3)), jnp.ones((3, 7)), jnp.arange(4)

    def total(w, implementation):
        settings = {"implementation": implementation, **options}
        if loss is linear_aldr_kl:
            values, _ = loss(aldr_kl_init(9), h, w, y, y, **settings)
        else:
            values = loss(h, w, y, **settings)
        return jnp.sum(values)

    def lower(implementation):
        value_and_grad = jax.jit(jax.value_and_grad(lambda w: total(w, implementation)))
        with absent_gpu():
            return value_and_grad.trace(w).lower(lowering_platforms=(platform,)).as_text()

    text = lower(implementation)
    every = kernels | {"cotangent"}
    names = {"log_sums", "sums", "tangent", "cotangent", "hessian", "curve"}
    assert {n for n in names if f"linear_{n}_over_" in text} == every
    assert call in text
    assert call not in lower(None)
