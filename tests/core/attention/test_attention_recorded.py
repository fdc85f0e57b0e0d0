"""Attention operators against values and gradients of the authors' code, in float64.

Inputs come in the layout of that code and are converted here: torch has channels second and
matrices as [out, in].
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, drawn, recorded

from papyrax import attention, losses

ENTRIES = recorded("attention", "attention")
FUNCTIONS = {}


def of(*names):
    """Register what gives the entries of these names."""

    def register(function):
        return FUNCTIONS.update(dict.fromkeys(names, function))

    return register


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    entry = ENTRIES[name]
    function = FUNCTIONS[name]
    # A convex solver found these, to about its tolerance.
    rtol = 1e-6 if name.startswith("attention_svm") else 1e-10
    compare(entry, lambda **arrays: function(**arrays, **entry.get("static", {})), rtol)


def channels_last(x):
    return jnp.moveaxis(x, 1, -1)


def channels_first(x):
    return jnp.moveaxis(x, -1, 1)


def gaussian(points):
    apart = points[..., :, None, :] - points[..., None, :, :]
    return jnp.exp(-jnp.sum(apart**2, axis=-1) / 2)


@of("newton_inverse")
def _(points):
    return attention.newton_inverse(gaussian(2 * points))


@of("newton_inverse of few iterations")
def _(matrix):
    # The code takes the sums of its start before it adds the ridge, which is another step.
    entry = ENTRIES["newton_inverse of few iterations"]
    points = drawn(entry["seed"], entry["shapes"])["matrix"]
    apart = points[..., :, None, :] - points[..., None, :, :]
    largest = np.exp(-np.sum(apart**2, axis=-1) / 2).sum(-1).max()
    step = 1.8 * ((largest + 0.01) / largest) ** 2
    return attention.newton_inverse(gaussian(matrix), iterations=6, step=step)


@of("mala")
def _(**tokens):
    return attention.mala(**tokens, kernel_scale="released")


@of("mala with positions")
def _(**tokens):
    return attention.mala(**tokens, kernel_scale="released", rope=attention.rope_2d(2, 3, 8))


@of("relu_linear_attention")
def _(x, **w):
    # Nine times the input, so that some denominators are above their floor of 100.
    qkv = (9 * x @ w["qkv.weight"].T).reshape(1, 6, 3, 2, 4)
    scale = w["temperature"][:, 0, 0]
    out = attention.relu_linear_attention(*jnp.moveaxis(qkv, 2, 0), scale=scale)
    return out.reshape(x.shape) @ w["proj.weight"].T + w["proj.bias"]


@of("epipolar_attention")
def _(x, field, **w):
    """Tokens [batch, images, views, width, 8] of two heads, and what the code has around them."""

    def norm(t, name):
        unit = jax.nn.standardize(t, axis=-1, epsilon=1e-5)
        return unit * w[f"{name}.weight"] + w[f"{name}.bias"]

    t = channels_last(x) @ w["linear_in.weight"].T
    n = norm(t, "norm")
    q, k, v = (
        (y @ matrix.T).reshape(*t.shape[:-1], 2, 4)
        for y, matrix in zip((n, n, t), jnp.split(w["attention.in_proj_weight"], 3))
    )
    out = attention.epipolar_attention(q, k, v, field=tuple(field))
    t = t + out.reshape(t.shape) @ w["attention.out_proj.weight"].T
    hidden = jax.nn.relu(norm(t, "feed_forward.0") @ w["feed_forward.1.weight"].T)
    t = t + hidden @ w["feed_forward.4.weight"].T
    return channels_first(t @ w["linear_out.weight"].T)


@of("snnk_features")
def _(**arrays):
    return attention.snnk_features(**arrays)


@of("snnk_features damped")
def _(damping, **arrays):
    # The code has this factor in the layer (below).
    return attention.snnk_features(**arrays, damping=damping) / (1 + 4 * damping) ** (3 / 4)


@of("snnk_weights")
def _(damping, **arrays):
    one = jnp.ones(5)
    psi = attention.snnk_weights(**arrays, amplitudes=one, phases=0 * one, damping=damping)
    # Ours has the sign of the imaginary part that makes a plain dot product real.
    return psi * jnp.repeat(jnp.array([1, -1]), 5) / (1 + 4 * damping) ** (3 / 4)


@of("snnk layer of both signs")
def _(x, projections, frequencies, W, b):
    # The mean of frequencies of both signs; the code divides its inputs by powers of their width.
    g, one = jnp.tile(projections, (2, 1)), jnp.ones(8)
    xi = jnp.concatenate([frequencies, -frequencies])
    psi = attention.snnk_weights(W / 3**0.25, g, xi, one, 0 * one, b / 3**0.25, damping=0.3)
    return attention.snnk_features(x / 3, g, xi, damping=0.3) @ psi.T


@of("snnk_relu_features", "snnk_relu_features with a floor")
def _(**arrays):
    return attention.snnk_relu_features(**arrays)


@of("din_attention")
def _(query, keys, lengths, **w):
    layers = [(w[f"f{i}_att/kernel"], w[f"f{i}_att/bias"]) for i in (1, 2, 3)]
    mask = jnp.arange(4) < lengths[:, None]
    return attention.din_attention(query, keys, layers, mask, normalize=True)


@of("din_attention, a port")
def _(query, keys, **w):
    names = "local_att.dnn.linears.0", "local_att.dnn.linears.1", "local_att.dense"
    layers = [(w[f"{name}.weight"].T, w[f"{name}.bias"]) for name in names]
    mask = jnp.arange(4) < jnp.array([[3], [4]])
    return attention.din_attention(query, keys, layers, mask)


@of("dice")
def _(x, alpha, beta):
    # The code's moving moments are 0 and 1 at first, and its epsilon is 1e-3; beta multiplies the
    # standardized input.
    variance = (1 + 1e-3) / beta**2 - 1e-8
    y = attention.dice(jnp.sign(beta) * x, alpha, 0 * beta, variance)
    return jnp.sign(beta) * y


@of("dice, a port")
def _(x, alpha):
    return attention.dice(x, alpha)


@of("hyper_zzw_global")
def _(x, kernel, mixed):
    x, kernel, mixed = map(channels_last, (x, kernel, mixed))
    features = attention.instance_standardize(mixed)
    return channels_first(attention.hyper_zzw_global(x, kernel, features))


@of("hyper_zzw_local")
def _(x, kernel, **w):
    taps = jnp.moveaxis(kernel[:, 0], 0, -1)
    y = attention.hyper_zzw_local(channels_last(x), taps)
    y = y @ w["channel_mixer.weight"][:, :, 0, 0].T + w["channel_mixer.bias"]
    y = jax.nn.standardize(y, axis=(0, 1, 2), epsilon=1e-5)  # over the batch
    return channels_first(jax.nn.gelu(y, approximate=False))


@of("hyper_zzw_elementwise")
def _(y, x, of_channels, of_positions):
    channels = attention.hyper_zzw_elementwise(jnp.mean(y, axis=(2, 3)), of_channels[0])
    positions = attention.hyper_zzw_elementwise(jnp.mean(y, axis=1), of_positions)
    return x * jax.nn.sigmoid(channels[:, :, None, None] * positions[:, None])


@of("slow_feedback_loss")
def _(**kernels):
    return jnp.sum(losses.slow_feedback_loss([channels_last(k) for k in kernels.values()]))


@of("contextual_attention")
def _(features, foreground, known, scale):
    mask = jnp.asarray(known[..., 0] == 1)
    return attention.contextual_attention(features, mask, foreground, scale=scale)


@of("attention_svm, frobenius", "attention_svm, nuclear")
def _(tokens, optimal, norm):
    return attention.attention_svm(tokens, tokens[:, 0], optimal, norm=norm)
