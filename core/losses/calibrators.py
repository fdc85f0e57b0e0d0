"""Post-hoc calibrators as pure functions: fit on held-out scores, apply to any others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_key,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import check_labels, pick


def _check_scores(logits: Any, labels: Any) -> None:
    check_labels(logits, labels)
    check_rank("logits", logits, 2)
    check(jnp.shape(logits)[0] > 0, "logits", "got no examples, takes one or more")


def fit_temperature(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    *,
    min_temperature: float = 0.01,
    max_temperature: float = 100.0,
) -> Float[Array, ""]:
    """The temperature of least cross-entropy on held-out scores: temperature scaling.

    `argmin_T -(1 / B) sum_i log softmax(z_i / T)_y_i`. Cross-entropy is convex in `1 / T`, so its
    slope, `sum_k p_k z_k - z_y` on average, changes sign once: bisection finds where.

    Args:
      logits: held-out scores [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      min_temperature: the least temperature, which is the answer where every prediction is right.
      max_temperature: the largest.

    Returns:
      The temperature [], in float32 or wider; calibrated scores are `logits / temperature`.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a limit out of range.

    Source: On Calibration of Modern Neural Networks, arXiv 1706.04599, Section 4.2.

    >>> logits = jnp.array([[4.0, 0.0]] * 4)
    >>> t = fit_temperature(logits, jnp.array([0, 0, 0, 1]))
    >>> np.asarray(jax.nn.softmax(logits[0] / t), float).round(3)
    array([0.75, 0.25])
    """
    _check_scores(logits, labels)
    check_positive(min_temperature=min_temperature)
    check_range("max_temperature", max_temperature, min_temperature, open_low=True)
    z = jax.lax.stop_gradient(upcast(logits))
    z = z - pick(z, jnp.asarray(labels))[:, None]

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        sharpness = jnp.exp(middle)
        p = jax.nn.softmax(sharpness * z, -1)
        # Still falling: the best inverse temperature lies above.
        falling = jnp.mean(jnp.sum(p * z, -1)) < 0
        return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

    ends = tuple(-jnp.log(jnp.asarray(t, z.dtype)) for t in (max_temperature, min_temperature))
    low, high = jax.lax.fori_loop(0, 60, halve, ends)
    # Bisection would end at a limit where a score is NaN, or a label none of the classes.
    return jnp.where(jnp.any(jnp.isnan(z)), jnp.nan, jnp.exp(-(low + high) / 2))


class VectorScaling(NamedTuple):
    """What `fit_vector_scaling` finds: calibrated scores are `scale * logits + bias`.

    Attributes:
      scale: factor of each class [classes].
      bias: offset of each class [classes].
    """

    scale: Float[Array, "classes"]
    bias: Float[Array, "classes"]


def fit_vector_scaling(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    *,
    decay: float = 1e-4,
    steps: int = 20,
) -> VectorScaling:
    """A factor and an offset for each class, of least cross-entropy on held-out scores.

    `argmin_{a, b} -(1 / B) sum_i log softmax(a * z_i + b)_y_i + decay (|a - 1|^2 + |b|^2)`; a
    convex problem, solved by Newton's method with conjugate gradients and halved steps, from the
    scores as they are or from temperature scaling.

    Args:
      logits: held-out scores [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      decay: pull towards the scores as they are; it makes the solution unique.
      steps: Newton steps.

    Returns:
      A `VectorScaling`, in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: On Calibration of Modern Neural Networks, arXiv 1706.04599, Section 4.2, vector scaling;
    the decay is ours, after Beyond temperature scaling, arXiv 1910.12656.

    >>> logits = jnp.array([[4.0, 0.0]] * 4)
    >>> scale, bias = fit_vector_scaling(logits, jnp.array([0, 0, 0, 1]))
    >>> np.asarray(jax.nn.softmax(scale * logits[0] + bias), float).round(2)
    array([0.75, 0.25])
    """
    _check_scores(logits, labels)
    check_positive(decay=decay)
    check_count(steps=steps)
    z, labels = jax.lax.stop_gradient(upcast(logits)), jnp.asarray(labels)
    # In units of the largest score, so that the problem is as well conditioned for any scores.
    unit = jnp.max(jnp.abs(z))
    unit = jnp.where(unit > 0, unit, 1)

    def objective(x: Array) -> Array:
        scale, bias = x
        out = (1 + scale / unit) * z + bias
        xent = jax.nn.logsumexp(out, -1) - pick(out, labels)
        return jnp.mean(xent) + decay * (jnp.sum(jnp.square(scale / unit)) + jnp.sum(bias**2))

    slope = jax.grad(objective)
    shrink = 0.5 ** jnp.arange(24, dtype=z.dtype)
    rounding = 8 * jnp.finfo(z.dtype).eps

    def newton(_: Any, x: Array) -> Array:
        g, now = slope(x), objective(x)

        def hessian(v: Array) -> Array:
            return jax.jvp(slope, (x,), (v,))[1]

        step = jax.scipy.sparse.linalg.cg(hessian, g, maxiter=2 * g.size)[0]
        trials = x - shrink[:, None, None] * step
        # The longest of the halved steps that lowers the objective as its slope promises (Armijo),
        # or leaves it within rounding; none if none does.
        allowed = now - 1e-4 * shrink * jnp.sum(g * step) + rounding * jnp.abs(now)
        good = jax.vmap(objective)(trials) <= allowed
        return jnp.where(jnp.any(good), trials[jnp.argmax(good)], x)

    # Scores as they are, or over one temperature: where softmax has collapsed, Newton's steps are
    # too long by orders of magnitude. Of wrong scores or labels the temperature is NaN.
    as_they_are = jnp.zeros((2, z.shape[1]), z.dtype)
    over_one = as_they_are.at[0].set(1 / fit_temperature(z / unit, labels) - unit)
    better = objective(as_they_are) <= objective(over_one)
    start = jnp.where(better, as_they_are, over_one)
    scale, bias = jax.lax.fori_loop(0, steps, newton, start)
    return VectorScaling(1 + scale / unit, bias)


class TransformTemperature(NamedTuple):
    """Weights of a small network from what transformed inputs say to a temperature.

    Attributes:
      hidden_kernel: [features, hidden].
      hidden_bias: [hidden].
      kernel: [hidden].
      bias: [].
    """

    hidden_kernel: Float[Array, "features hidden"]
    hidden_bias: Float[Array, "hidden"]
    kernel: Float[Array, "hidden"]
    bias: Float[Array, ""]


def transform_temperature_init(
    key: Array, *, features: int = 12, hidden: int = 5
) -> TransformTemperature:
    """Weights of `transform_temperature` at the start: uniform in `+-1 / sqrt(inputs)`.

    Args:
      key: a PRNG key [].
      features: number of features, as `transform_features` makes.
      hidden: number of hidden units.

    Returns:
      A `TransformTemperature` of float32 weights [features, hidden], [hidden], [hidden] and [].

    Raises:
      ValueError: if `key` is none or a number no count.

    Source: Optimizing Calibration by Gaining Aware of Prediction Correctness, arXiv 2404.13016;
    `Temperature_adaptive` of liuyvchi/Correctness-aware-calibration. Its output bias starts near
    zero, below the least temperature, where no gradient passes; here it starts at one.

    >>> transform_temperature_init(jax.random.key(0)).hidden_kernel.shape
    (12, 5)
    """
    check_key(key=key)
    check_count(features=features, hidden=hidden)
    a, b, c = jax.random.split(key, 3)
    wide, narrow = features**-0.5, hidden**-0.5
    return TransformTemperature(
        jax.random.uniform(a, (features, hidden), jnp.float32, minval=-wide, maxval=wide),
        jax.random.uniform(b, (hidden,), jnp.float32, minval=-wide, maxval=wide),
        jax.random.uniform(c, (hidden,), jnp.float32, minval=-narrow, maxval=narrow),
        jnp.ones((), jnp.float32),
    )


def transform_features(
    logits: Float[Array, "batch classes"],
    transformed_logits: Float[Array, "transforms batch classes"],
    *,
    k: int = 4,
) -> Float[Array, "batch features"]:
    """What transformed copies of an input say of the classes that the input itself is taken for.

    The probabilities of each copy at the `k` likeliest classes of the original, copy after copy.

    Args:
      logits: scores of the inputs [batch, classes].
      transformed_logits: scores of each transformed copy of them [transforms, batch, classes].
      k: how many classes; all where there are fewer.

    Returns:
      Features [batch, transforms * k].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `k` is not positive.

    Source: Optimizing Calibration by Gaining Aware of Prediction Correctness, arXiv 2404.13016;
    `src/run_cal.py` of liuyvchi/Correctness-aware-calibration.

    >>> copies = jnp.log(jnp.array([[[0.2, 0.7, 0.1]]]))
    >>> features = transform_features(jnp.array([[3.0, 1.0, 2.0]]), copies, k=2)
    >>> np.asarray(features, float).round(2)
    array([[0.2, 0.1]])
    """
    check_floating(logits=logits, transformed_logits=transformed_logits)
    check_rank("logits", logits, 2)
    shape = (None, *jnp.shape(logits))
    check_shape("transformed_logits", transformed_logits, shape, "[transforms, batch, classes]")
    check_count(k=k)
    z, copies = upcast(logits, transformed_logits)
    classes = jax.lax.top_k(z, min(k, z.shape[1]))[1]
    p = jnp.take_along_axis(jax.nn.softmax(copies, -1), classes[None], -1)
    return restore(jnp.moveaxis(p, 0, 1).reshape(len(z), -1), logits, transformed_logits)


def transform_temperature(
    params: TransformTemperature, features: Float[Array, "batch features"]
) -> Float[Array, "batch"]:
    """A temperature for each example, from how transformed copies of it are judged.

    `clip(w . relu(W f + b) + c, 0.1, 10)`; no gradient passes where it is clipped.

    Args:
      params: the network's weights, see `transform_temperature_init`.
      features: see `transform_features` [batch, features].

    Returns:
      Temperatures [batch]; calibrated scores are `logits / temperature[:, None]`.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Optimizing Calibration by Gaining Aware of Prediction Correctness, arXiv 2404.13016;
    agrees with `Temperature_adaptive` of liuyvchi/Correctness-aware-calibration.

    >>> params = transform_temperature_init(jax.random.key(0), features=2)
    >>> transform_temperature(params, jnp.zeros((3, 2))).shape
    (3,)
    """
    check_floating(features=features)
    check_shape("features", features, (None, jnp.shape(params.hidden_kernel)[0]))
    f, kernel, offset, out, bias = upcast(features, *params)
    temperature = jax.nn.relu(f @ kernel + offset) @ out + bias
    return restore(jnp.clip(temperature, 0.1, 10), features)
