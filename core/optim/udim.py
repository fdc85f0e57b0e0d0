"""UDIM: consistent gradients on the worst inputs near by, beside the worst weights of SAM."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..curvature.trees import Split, dot
from ..numerics import (
    accumulation_dtype,
    check,
    check_floating,
    check_integer,
    check_range,
    check_rank,
    check_shape,
    safe_divide,
    safe_norm,
    safe_sqrt,
)

Over = Literal["example", "batch"]


def udim_perturb(
    fun: Callable[..., Any],
    params: Any,
    inputs: Float[Array, "batch ..."],
    *args: Any,
    rho: Any = 0.05,
    step_size: Any = 10.0,
    over: Over = "example",
) -> Float[Array, "batch ..."]:
    """Inputs of an unknown domain: one step to where the sharpness-aware loss is larger.

        x + step_size * g / |g|,   g = d/dx ( f(w; x) + rho |d/dw f(w; x)| )

    The objective is the loss at the worst weights within rho, to first order. It has a second
    derivative in it: about the cost of three gradients. The result is a constant to derivatives.

    Args:
      fun: `fun(params, inputs, *args) -> loss []`, a mean over the batch.
      params: weights, a tree of arrays [...].
      inputs: x [batch, ...].
      *args: further arguments of `fun`, such as the labels.
      rho: radius of the weights' ball.
      step_size: length of the step; the authors' 10 is for images of 224 x 224.
      over: "example" makes each example's step that long; "batch" is the authors' code, in which
        the step of each entry of the inputs is that long over the batch.

    Returns:
      The perturbed inputs [batch, ...].

    Raises:
      ValueError: if `inputs` is not floating point, or a hyper-parameter is out of range.

    Source: Unknown Domain Inconsistency Minimization for Domain Generalization, arXiv 2403.07329,
    equation 8; aailabkaist/UDIM UDIM_main/domainbed/iada/iada_final.py (`set_closure`,
    `perturb_instances`).

    >>> loss = lambda w, x: jnp.mean(x @ w)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.zeros((1, 2))
    >>> np.asarray(udim_perturb(loss, w, x, rho=0.0, step_size=1.0), float).round(3).tolist()
    [[0.6, 0.8]]
    """
    check_floating(inputs=inputs)
    check_rank("inputs", inputs, 1, at_least=True)
    check_range("rho", rho, 0)
    check_range("step_size", step_size, 0)
    check(over in ("example", "batch"), "over", f"got {over!r}, takes 'example' or 'batch'")
    split = Split.of(params)

    def sharp(x: Array) -> Array:
        value, grads = jax.value_and_grad(lambda p: fun(split.join(p), x, *args))(split.floats)
        return value + rho * safe_sqrt(dot(grads, grads))

    x = jnp.asarray(inputs)
    slope = jax.grad(sharp)(x).astype(accumulation_dtype(x))
    axes: Any = tuple(range(1, x.ndim)) if over == "example" else 0
    unit = safe_divide(slope, safe_norm(slope, axis=axes, keepdims=True)) if axes != () else slope
    return jax.lax.stop_gradient(x + (step_size * unit).astype(x.dtype))


def udim_inconsistency(
    features: Float[Array, "batch features"],
    logits: Float[Array, "batch classes"],
    perturbed_features: Float[Array, "batch features"],
    perturbed_logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
) -> Float[Array, ""]:
    """How differently a linear classifier's gradients are spread on perturbed inputs.

        G_i, G~_i: gradients of example i's cross-entropy with respect to the classifier, on its
        original and perturbed input;  m = mean_i G_i
        V = mean_i (G_i - m)^2,  V~ = mean_i (G~_i - m)^2
        mean over entries of ((V - V~) / 2)^2  +  mean_i mean |W part of G~_i|^2
                                               +  mean_i mean |b part of G~_i|^2

    The gradients are known in closed form, `G = (features' (p - y), p - y)`, so that this needs no
    gradient of each example and can be differentiated like any loss. The direction of UDIM is the
    gradient of SAM (`scale_by_sam`) and the authors' weight of 1 times the gradient of this.

    Args:
      features: inputs of the classifier [batch, features].
      logits: its outputs, `features @ W + b` [batch, classes].
      perturbed_features: its inputs for the perturbed examples [batch, features].
      perturbed_logits: its outputs for them [batch, classes].
      labels: classes, the same for both [batch].

    Returns:
      The inconsistency [].

    Raises:
      ValueError: if shapes or dtypes do not fit.

    Source: Unknown Domain Inconsistency Minimization for Domain Generalization, arXiv 2403.07329,
    equation 11; aailabkaist/UDIM UDIM_main/domainbed/iada/iada_final.py
    (`inconsistency_compute_grad`, by BackPACK).

    >>> h, z, y = jnp.ones((2, 3)), jnp.zeros((2, 2)), jnp.array([0, 1])
    >>> float(udim_inconsistency(h, z, h, z, y))  # the norm alone: (p - y)^2 = 1/4 everywhere
    0.5
    """
    check_rank("features", features, 2)
    check_rank("logits", logits, 2)
    batch = jnp.shape(features)[0]
    check_shape("logits", logits, (batch, None), "[batch, classes], as features")
    check_shape("perturbed_features", perturbed_features, jnp.shape(features), "as features")
    check_shape("perturbed_logits", perturbed_logits, jnp.shape(logits), "as logits")
    check_shape("labels", labels, (batch,), "[batch], as features")
    check_integer(labels=labels)
    arrays = {"features": features, "logits": logits}
    arrays |= {"perturbed_features": perturbed_features, "perturbed_logits": perturbed_logits}
    check_floating(**arrays)
    dtype = accumulation_dtype(*arrays.values())

    def gradients(h: Array, z: Array) -> tuple[Array, Array]:
        z = jnp.asarray(z, dtype)
        slope = jax.nn.softmax(z) - jax.nn.one_hot(labels, z.shape[-1], dtype=dtype)
        weight = jnp.asarray(h, dtype)[:, :, None] * slope[:, None, :]
        return weight.reshape(len(slope), -1), slope

    total: Any = 0.0
    entries, spread = 0, jnp.zeros((), dtype)
    pairs = zip(gradients(features, logits), gradients(perturbed_features, perturbed_logits))
    for original, perturbed in pairs:
        mean = original.mean(0)
        v, w = (jnp.square(g - mean).mean(0) for g in (original, perturbed))
        spread = spread + jnp.sum(jnp.square((v - w) / 2))
        entries += v.size
        total = total + jnp.mean(jnp.square(perturbed))
    return (total + spread / entries).astype(jnp.result_type(*arrays.values()))
