"""Modules with the weights of the authors' code, against its values and gradients, in float64.

Weights are converted from torch's layouts here: matrices are [out, in] there, convolutions
[out, in, height, width], images have their channels second.
"""

import jax.numpy as jnp
import pytest
from authors_code import compare, recorded
from flax import nnx

from papyrax import layers

ENTRIES = recorded("modules", "layers")
FUNCTIONS = {}


def of(name):
    """Register what gives the entry of this name."""
    return lambda function: FUNCTIONS.setdefault(name, function)


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    compare(ENTRIES[name], FUNCTIONS[name])


def make(kind, *args, **options):
    return kind(*args, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))


def channels_last(x):
    return jnp.moveaxis(x, 1, -1)


def channels_first(x):
    return jnp.moveaxis(x, -1, 1)


def load(layer, weights, name):
    """Give a linear layer, convolution or normalization the weights that torch has by this name."""
    weight = weights[f"{name}.weight"]
    if isinstance(layer, nnx.Conv):
        layer.kernel[...] = jnp.transpose(weight, (2, 3, 1, 0))
    elif isinstance(layer, nnx.Linear):  # or a convolution of one position
        layer.kernel[...] = weight.reshape(weight.shape[:2]).T
    else:
        layer.scale[...] = weight.reshape(-1)
    if layer.bias is not None:
        layer.bias[...] = weights[f"{name}.bias"].reshape(-1)


def soft_block(**options):
    def function(x, **w):
        block = make(layers.SOFTBlock, 6, 2, landmark_stride=2, **options)
        load(block.query, w, "W_q")
        load(block.value, w, "W_v")
        load(block.landmark, w, "attn.Qlandmark_op")
        load(block.norm, w, "attn.Qnorm_act.0")
        load(block.local, w, "attn.conv")
        load(block.proj, w, "ff")
        return block(x.reshape(1, 4, 5, 6)).reshape(x.shape)

    return function


# The starts of the two differ a little: 30 iterations converge.
of("SOFT")(soft_block(normalize=False, iterations=30))
of("SOFT++")(soft_block(inverse="released"))


@of("MALA")
def _(x, **w):
    block = make(layers.MALABlock, 16, 2)
    load(block.qkvo, w, "qkvo")
    load(block.local, w, "lepe")
    load(block.proj, w, "proj")
    return channels_first(block(channels_last(x)))


@of("LocalConcentration")
def _(x, **w):
    module = make(layers.LocalConcentration, 2)
    load(module.conv1, w, "conv1")
    load(module.norm, w, "bn")
    load(module.conv2, w, "conv2")
    return module(x.reshape(2, 3, 4, 2)).reshape(x.shape)


def l2vit_block(window_size):
    def function(x, **w):
        block = make(layers.L2ViTBlock, 4, 2, window_size=window_size, mlp_ratio=2.0)
        load(block.position, w, "cpe.0.proj")
        load(block.norm1, w, "norm1")
        load(block.qkv, w, "attn.qkv")
        load(block.proj, w, "attn.proj")
        if window_size is None:
            block.scale[...] = w["attn.temperature"][:, 0, 0]
            load(block.norm2, w, "norm3")
            load(block.local.conv1, w, "local_mp.conv1")
            load(block.local.norm, w, "local_mp.bn")
            load(block.local.conv2, w, "local_mp.conv2")
        else:
            load(block.local, w, "cpe.1.proj")
        load(block.norm3, w, "norm2")
        load(block.up, w, "mlp.fc1")
        load(block.down, w, "mlp.fc2")
        return block(x.reshape(1, 3, 4, 4)).reshape(x.shape)

    return function


of("L2ViTBlock")(l2vit_block(None))
# Two does not divide the height of 3: windows are padded.
of("L2ViTBlock with windows")(l2vit_block(2))


def polarized(layout, dim):
    def function(x, **w):
        module = make(layers.PolarizedSelfAttention, dim, layout=layout, order="released")
        load(module.channel_query, w, "conv_q_right")
        load(module.channel_value, w, "conv_v_right")
        load(module.spatial_query, w, "conv_q_left")
        load(module.spatial_value, w, "conv_v_left")
        if layout == "parallel":
            load(module.up, w, "conv_up")
        else:
            load(module.up, w, "conv_up.0")
            load(module.norm, w, "conv_up.1")
            load(module.expand, w, "conv_up.3")
        return channels_first(module(channels_last(x)))

    return function


of("PolarizedSelfAttention, parallel")(polarized("parallel", 4))
of("PolarizedSelfAttention, sequential")(polarized("sequential", 16))


@of("SNNKLinear")
def _(x, projections, weights):
    layer = make(layers.SNNKLinear, 3, 4, features=5)
    layer.projections[...] = projections
    layer.weights[...] = weights
    return layer(x)


@of("RecursiveGatedUnit")
def _(x, **w):
    unit = make(layers.RecursiveGatedUnit, (3, 3), 3)
    load(unit.key, w, "fast_linear_k")
    load(unit.value, w, "fast_linear_v")
    load(unit.query, w, "fast_linear_q")
    load(unit.out, w, "fast_linear_y")
    unit.position[...] = w["fast_bias_p"][0, 0, ..., None]
    return channels_first(unit(channels_last(x)))


def magnet(size, channels, depth):
    def function(**w):
        net = make(layers.MAGNet, size, channels, hidden=3, layers=depth)
        for i, sine in enumerate(net.sines):
            load(sine, w, f"filters.{i}.linear")
        for i, linear in enumerate(net.linears):
            load(linear, w, f"linears.{i}")
        load(net.out, w, "output_linear")
        net.position[...] = w["bias_p"][0, 0, ..., None]
        return channels_first(net()[None])

    return function


of("MAGNet")(magnet((4, 4), 2, 2))
of("MAGNet of channels")(magnet((6,), 1, 1))
