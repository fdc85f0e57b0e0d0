"""Label-robust losses over a linear layer and a large vocabulary, in memory without logits."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    safe_divide,
)
from ._linear import Layer, linear_layer, log_sum_and_label, mean_magnitude
from ._shared import softplus
from .label_dro import AldrKlState


def linear_ldr_kl(
    hidden: Float[Array, "... features"],
    kernel: Float[Array, "features classes"],
    labels: Int[Array, "..."],
    *,
    temperature: float = 1.0,
    margin: float = 0.1,
    normalization: Literal["l1"] | None = None,
    bias: Float[Array, "classes"] | None = None,
    chunk_size: int = 2048,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
    tiles: tuple[int, int, int] | None = None,
) -> Float[Array, "..."]:
    """`ldr_kl` of `hidden @ kernel + bias` without its matrix of scores.

    `t log mean_k exp((f_k - f_y + c 1[k != y]) / t)` with `f = x W + b`. As in
    `linear_softmax_cross_entropy`, the classes are walked in chunks, to second order, and may be
    split over the devices of a `jax.shard_map`.

    Args:
      hidden: inputs of the last layer [..., features].
      kernel: its weights [features, classes]; inside a `shard_map`, this device's classes.
      labels: the given class of each example [...], from 0 on, counted over all devices.
        A label outside of the vocabulary has score zero: leave such examples out.
      temperature: `t` (lambda), the price of leaving the uniform weighting.
      margin: `c`, by how much the label's score is to lead.
      normalization: None, or "l1" for scores over their mean absolute value, which takes a second
        walk. The softplus of `ldr_kl` is not offered.
      bias: one number a class [classes], or None.
      chunk_size: classes at a time, of "xla" and of the derivatives of "pallas_triton".
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.
      implementation: "xla", "pallas_tpu", "pallas_triton" or an interpreter, as in
        `linear_softmax_cross_entropy`.
      tiles: (rows, classes, features) of the kernels' tiles.

    Returns:
      One loss an example [...]. Products take operands in the input's dtype (float16: in float32)
      and are summed in float32, or in float64 for that.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, a hyper-parameter out of range, or an
        implementation that cannot run.

    Source: Label Distributionally Robust Losses for Multi-class Classification: Consistency,
    Robustness and Adaptivity, arXiv 2112.14869, the LDR-KL loss; the chunks are this library's.

    >>> hidden, kernel = jnp.ones((2, 3)), jnp.zeros((3, 50_000))
    >>> loss = linear_ldr_kl(hidden, kernel, jnp.array([7, 49_999]), margin=0.1)
    >>> np.asarray(loss, float).round(3)
    array([0.1, 0.1])
    """
    check_positive(temperature=temperature)
    check_range("margin", margin, 0)
    layer = linear_layer(
        *(hidden, kernel, labels),
        bias=bias,
        chunk_size=chunk_size,
        axis_name=axis_name,
        implementation=implementation,
        tiles=tiles,
    )
    layer = _normalized(layer, normalization)
    return layer.losses(_ldr(layer, jnp.asarray(temperature, layer.wide), margin))


def linear_aldr_kl(
    state: AldrKlState,
    hidden: Float[Array, "batch features"],
    kernel: Float[Array, "features classes"],
    labels: Int[Array, "batch"],
    indices: Int[Array, "batch"],
    *,
    temperature: float = 1.0,
    adaptivity: float = 2.0,
    margin: float = 0.1,
    normalization: Literal["l1"] | None = None,
    bias: Float[Array, "classes"] | None = None,
    chunk_size: int = 2048,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
    tiles: tuple[int, int, int] | None = None,
) -> tuple[Float[Array, "batch"], AldrKlState]:
    """`aldr_kl` of `hidden @ kernel + bias` without its matrix of scores.

    With `p = softmax(f / t)` at the remembered temperature and `f = x W + b`, the new temperature
    is `t = t0 - (t0 / (a log K)) KL(p | 1/K)`, where `KL = sum_k p_k f_k / t - log mean_k
    exp(f_k / t)` takes one walk over the classes for each of its terms, without gradient. Then
    `linear_ldr_kl` at that temperature, less the prior.

    Args:
      state: temperatures of the training examples, of `aldr_kl_init`.
      hidden: inputs of the last layer [batch, features].
      kernel: its weights [features, classes]; inside a `shard_map`, this device's classes.
      labels: the given class of each example [batch], from 0 on, counted over all devices.
        A label outside of the vocabulary has score zero: leave such examples out.
      indices: which training examples these are [batch]; where one occurs twice, one of the two
        new temperatures is kept.
      temperature: `t0` (lambda_0), the prior temperature.
      adaptivity: `a` (alpha) above 1; the larger, the closer temperatures stay to `t0`.
      margin: `c`, by how much the label's score is to lead.
      normalization: as in `linear_ldr_kl`.
      bias: one number a class [classes], or None.
      chunk_size: classes at a time, of "xla" and of the derivatives of "pallas_triton".
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.
      implementation: "xla", "pallas_tpu", "pallas_triton" or an interpreter, as in
        `linear_softmax_cross_entropy`.
      tiles: (rows, classes, features) of the kernels' tiles.

    Returns:
      One loss an example [batch], and the state with their new temperatures.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, a hyper-parameter out of range, or an
        implementation that cannot run.

    Source: Label Distributionally Robust Losses for Multi-class Classification: Consistency,
    Robustness and Adaptivity, arXiv 2112.14869, the ALDR-KL loss; the chunks are this library's.

    >>> from papyrax.losses import aldr_kl_init
    >>> hidden, kernel = jnp.ones((1, 3)), jnp.zeros((3, 50_000)).at[:, 7].set(9.0)
    >>> state, seven = aldr_kl_init(10), jnp.array([7])
    >>> loss, state = linear_aldr_kl(state, hidden, kernel, seven, seven)
    >>> bool(state.temperatures[7] < 0.6)
    True
    """
    check_positive(temperature=temperature)
    check_range("adaptivity", adaptivity, 1, open_low=True)
    check_range("margin", margin, 0)
    layer = linear_layer(
        *(hidden, kernel, labels),
        bias=bias,
        chunk_size=chunk_size,
        axis_name=axis_name,
        implementation=implementation,
        tiles=tiles,
    )
    check(len(layer.shape) == 1, "labels", f"got shape {layer.shape}, takes [batch]")
    check_integer(indices=indices)
    check_shape("indices", indices, jnp.shape(labels), "[batch], as labels")
    layer = _normalized(layer, normalization)
    table, indices = jnp.asarray(state.temperatures), jnp.asarray(indices)
    check_rank("state", table, 1)
    before = jax.lax.stop_gradient(table)[indices].astype(layer.wide)
    x, weights, b = jax.lax.stop_gradient((layer.x, layer.kernel, layer.bias))
    held = layer._replace(x=x, kernel=weights, bias=b).scaled(1 / before[:, None])
    # The derivative of log sum_k exp(s f_k / t) by s at one is the mean of f / t under p.
    along = (held.x,)
    log_sum, mean = jax.jvp(lambda x: log_sum_and_label(held._replace(x=x))[0], along, along)
    divergence = mean - log_sum + math.log(layer.classes)
    slope = adaptivity * math.log(max(layer.classes, 2)) / temperature
    t = temperature - divergence / slope
    loss = _ldr(layer, t, margin) - slope / 2 * jnp.square(t - temperature)
    return layer.losses(loss), AldrKlState(table.at[indices].set(t.astype(table.dtype)))


def _normalized(layer: Layer, normalization: Any) -> Layer:
    check(
        normalization in (None, "l1"),
        "normalization",
        f"got {normalization!r}, takes None or 'l1'",
    )
    if normalization is None:
        return layer
    return layer.scaled(safe_divide(jnp.ones(()), mean_magnitude(layer))[:, None])


def _ldr(layer: Layer, t: Float[Array, ""] | Float[Array, "n"], margin: float) -> Array:
    """`t log mean_k exp((f_k - f_y + c 1[k != y]) / t)`, from the log-odds of the other classes."""
    scaled = layer.scaled(1 / t[..., None])
    others, label, _ = log_sum_and_label(scaled, others=True)
    return t * (softplus((others - label) + margin / t) - math.log(layer.classes))
