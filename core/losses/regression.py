"""Losses of regression: divergences between kernel estimates of distributions.

Kernel estimates are formed from logarithms, so that distances far beyond the bandwidth neither
underflow to the logarithm of zero nor lose their gradient. They are sums over all pairs of a batch,
and take what the engine of the module `pairs` offers: `chunk_size`, `axis_name` and `ring`.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_sqrt,
    upcast,
)
from .batch_pairs import across
from .pairs import either
from .similarity import pairwise_squared_euclidean

Samples = Float[Array, "batch features"]
Normalization = Literal["square_of_sum", "sum_of_squares"]


def _check_samples(**arrays: Any) -> None:
    """Raise unless all are floating [batch, features] of one batch, which is not empty."""
    check_floating(**arrays)
    (first, x), *_ = arrays.items()
    for name, y in arrays.items():
        check_rank(name, y, 2)
        check_shape(name, y, (jnp.shape(x)[0], None), f"[batch, features], batch as {first}")
    check(jnp.shape(x)[0] > 0, first, "got no rows, takes one or more")


def _row_sums(
    x: tuple[Samples, ...], y: tuple[Samples, ...], engine: dict[str, Any]
) -> Float[Array, "rows"]:
    """`log sum_j exp(-sum_v |x_vi - y_vj|^2 / 2)` of each row, `v` over the variables.

    A product of Gaussian kernels of variables that are divided by their bandwidths.
    """
    ends = [sum(v.shape[1] for v in x[:i]) for i in range(len(x) + 1)]

    def log_kernel(a: Samples, b: Samples) -> Float[Array, "rows columns"]:
        parts = [slice(*ends[i : i + 2]) for i in range(len(x))]
        squared = [pairwise_squared_euclidean(a[:, p], b[:, p]) for p in parts]
        return -sum(squared[1:], squared[0]) / 2

    pairs = across(jnp.concatenate(x, 1), jnp.concatenate(y, 1), compare=log_kernel, **engine)
    return pairs.log_sum_exp(lambda b: b.values, either)


def _over_rows(values: Float[Array, "rows"], axis_name: str | None) -> Float[Array, ""]:
    """The log-sum-exp of the values of all rows, on all devices."""
    if axis_name is None:
        return logsumexp(values)
    top = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(values)), axis_name)
    return top + jnp.log(jax.lax.psum(jnp.sum(jnp.exp(values - top)), axis_name))


def cs_divergence(
    x: Samples,
    y: Samples,
    *,
    bandwidth: float = 1.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, ""]:
    """Cauchy-Schwarz divergence of two samples, by kernel estimates of their densities.

    `log mean_ij G(x_i, x_j) + log mean_ij G(y_i, y_j) - 2 log mean_ij G(x_i, y_j)` with the
    Gaussian kernel `G(a, b) = exp(-|a - b|^2 / (2 s^2))`.

    Args:
      x: a sample [rows, features].
      y: another one [columns, features].
      bandwidth: `s` (sigma).
      chunk_size: look at so many rows at a time; all for None.
      axis_name: the mesh axis whose devices share the rows; the result is the same on all.
      ring: send the rows round that axis rather than gather them.

    Returns:
      The divergence [], zero for equal samples, never negative.

    Raises:
      ValueError: if a shape, a dtype or `bandwidth` does not fit.

    Source: Cauchy-Schwarz Divergence Information Bottleneck for Regression, arXiv 2404.17951, the
    empirical estimator; `Two_Gaussian_example/cs_two_gaussian.py` of
    SJYuCNEL/Cauchy-Schwarz-Information-Bottleneck.

    >>> x = jnp.array([[0.0], [1.0]])
    >>> print(f"{cs_divergence(x, x + 2):.3f}")
    2.571
    """
    check_floating(x=x, y=y)
    check_rank("x", x, 2)
    check_shape("y", y, (None, jnp.shape(x)[1]), "[columns, features], features as x")
    check(jnp.shape(x)[0] > 0, "x", "got no rows, takes one or more")
    check(jnp.shape(y)[0] > 0, "y", "got no rows, takes one or more")
    check_positive(bandwidth=bandwidth)
    a, b = (z / bandwidth for z in upcast(x, y))
    engine = {"chunk_size": chunk_size, "axis_name": axis_name, "ring": ring}
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)

    def log_mean(u: Samples, v: Samples) -> Float[Array, ""]:
        count = math.log(len(u) * devices * len(v) * devices)
        return _over_rows(_row_sums((u,), (v,), engine), axis_name) - count

    return restore(log_mean(a, a) + log_mean(b, b) - 2 * log_mean(a, b), x, y)


def conditional_cs_divergence(
    inputs: Samples,
    targets: Samples,
    predictions: Samples,
    *,
    input_bandwidth: float = 1.0,
    target_bandwidth: float = 1.0,
    normalization: Normalization = "square_of_sum",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, ""]:
    """How far the distribution of predictions given inputs is from that of targets given inputs.

    `log T(L1) + log T(L2) - 2 log T(L21)` with `T(L) = sum_j (sum_i K_ji L_ji) / w_j`, the Gram
    matrices `K` of the inputs, `L1` of the targets, `L2` of the predictions, `L21` of predictions
    against targets, and `w_j = (sum_i K_ji)^2`. A robust loss: a prediction far from everything
    hardly moves it. Start from a fit by the squared error.

    Args:
      inputs: the inputs, or what stands for them [batch, features].
      targets: the targets [batch, outputs].
      predictions: the predictions [batch, outputs].
      input_bandwidth: sigma of the inputs' kernel.
      target_bandwidth: sigma of the targets' kernel.
      normalization: "square_of_sum" for `w_j` as above; "sum_of_squares" for `sum_i K_ji^2`.
      chunk_size: look at so many rows at a time; all for None.
      axis_name: the mesh axis whose devices share the rows; the result is the same on all.
      ring: send the rows round that axis rather than gather them.

    Returns:
      The divergence [], one for a batch, zero where the predictions are the targets.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Cauchy-Schwarz Divergence Information Bottleneck for Regression, arXiv 2404.17951,
    Eq. 18. `CS_Div` in `loss_cs.py` of SJYuCNEL/Cauchy-Schwarz-Information-Bottleneck is
    `normalization="sum_of_squares"` with one bandwidth, in logarithms to base two.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(f"{conditional_cs_divergence(x, 2 * x, 2 * x + 0.5):.3f}")
    0.152
    """
    _check_samples(inputs=inputs, targets=targets, predictions=predictions)
    check_shape("predictions", predictions, jnp.shape(targets), "[batch, outputs], as targets")
    check_positive(input_bandwidth=input_bandwidth, target_bandwidth=target_bandwidth)
    check(
        normalization in ("square_of_sum", "sum_of_squares"),
        "normalization",
        f"got {normalization!r}, takes 'square_of_sum' or 'sum_of_squares'",
    )
    x, y, z = upcast(inputs, targets, predictions)
    engine = {"chunk_size": chunk_size, "axis_name": axis_name, "ring": ring}
    x, y, z = x / input_bandwidth, y / target_bandwidth, z / target_bandwidth
    if normalization == "square_of_sum":
        log_w = 2 * _row_sums((x,), (x,), engine)
    else:
        log_w = _row_sums((x, x), (x, x), engine)

    def log_t(u: Samples, v: Samples) -> Float[Array, ""]:
        return _over_rows(_row_sums((x, u), (x, v), engine) - log_w, axis_name)

    loss = log_t(y, y) + log_t(z, z) - 2 * log_t(z, y)
    return restore(loss, inputs, targets, predictions)


def cs_mutual_information(
    x: Samples,
    y: Samples,
    *,
    bandwidth: float = 1.0,
    normalize: bool = False,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, ""]:
    """Cauchy-Schwarz quadratic mutual information of two variables, by kernel estimates.

    `I = log sum_ij K_ij Q_ij + log (sum K sum Q) - 2 log sum_i (sum_j K_ij) (sum_j Q_ij)` with the
    Gram matrices of both, less powers of the sample size that cancel; normalized,
    `I(x, y) / sqrt(I(x, x) I(y, y))`.

    Args:
      x: one variable [batch, features].
      y: the other one [batch, features]; the numbers of features may differ.
      bandwidth: sigma of both Gaussian kernels.
      normalize: divide by both variables' information about themselves; one for equal variables.
      chunk_size: look at so many rows at a time; all for None.
      axis_name: the mesh axis whose devices share the rows; the result is the same on all.
      ring: send the rows round that axis rather than gather them.

    Returns:
      The information [], zero where either is constant; not negative but for rounding.

    Raises:
      ValueError: if a shape, a dtype or `bandwidth` does not fit.

    Source: Cauchy-Schwarz Divergence Information Bottleneck for Regression, arXiv 2404.17951, CS
    quadratic mutual information; `CS_QMI` and `CS_QMI_normalized` in `loss_cs.py` of
    SJYuCNEL/Cauchy-Schwarz-Information-Bottleneck, in logarithms to base two. Without a bandwidth
    they take ten times a median of squared distances, which is left to the caller here.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(f"{cs_mutual_information(x, -x, normalize=True):.3f}")
    1.000
    """
    _check_samples(x=x, y=y)
    check_positive(bandwidth=bandwidth)
    a, b = (z / bandwidth for z in upcast(x, y))
    engine = {"chunk_size": chunk_size, "axis_name": axis_name, "ring": ring}
    rows = {id(z): _row_sums((z,), (z,), engine) for z in (a, b)}

    def total(values: Float[Array, "rows"]) -> Float[Array, ""]:
        return _over_rows(values, axis_name)

    def quadratic(u: Samples, v: Samples) -> Float[Array, ""]:
        # The powers of the sample size cancel: 2 + 4 - 2 * 3.
        k, q = rows[id(u)], rows[id(v)]
        return total(_row_sums((u, v), (u, v), engine)) + total(k) + total(q) - 2 * total(k + q)

    information = quadratic(a, b)
    if normalize:
        own = safe_sqrt(quadratic(a, a)) * safe_sqrt(quadratic(b, b))
        information = safe_divide(information, own)
    return restore(information, x, y)


def cs_information_bottleneck_loss(
    inputs: Samples,
    targets: Samples,
    predictions: Samples,
    codes: Samples,
    *,
    weight: float = 1e-2,
    bandwidth: float = 1.0,
    normalization: Normalization = "square_of_sum",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> Float[Array, ""]:
    """CS-IB: predict like the targets from a code that keeps little of the inputs.

    `conditional_cs_divergence(x, y, z) + weight * I(x, t)`, the information normalized.

    Args:
      inputs: the inputs [batch, features].
      targets: the targets [batch, outputs].
      predictions: the predictions [batch, outputs].
      codes: the representation that predictions are made from [batch, codes].
      weight: the price of information (beta).
      bandwidth: sigma of all kernels.
      normalization: as in `conditional_cs_divergence`.
      chunk_size: look at so many rows at a time; all for None.
      axis_name: the mesh axis whose devices share the rows; the result is the same on all.
      ring: send the rows round that axis rather than gather them.

    Returns:
      One loss for the batch [].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Cauchy-Schwarz Divergence Information Bottleneck for Regression, arXiv 2404.17951, the
    CS-IB objective; `CS_IB_Housing.py` of SJYuCNEL/Cauchy-Schwarz-Information-Bottleneck takes the
    divergence to base two, so that its beta is `log(2)` times as much here.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> print(f"{cs_information_bottleneck_loss(x, x, x, x, weight=0.1):.3f}")
    0.100
    """
    _check_samples(inputs=inputs, targets=targets, predictions=predictions, codes=codes)
    check_range("weight", weight, 0)
    engine: Any = {"chunk_size": chunk_size, "axis_name": axis_name, "ring": ring}
    divergence = conditional_cs_divergence(
        inputs,
        targets,
        predictions,
        input_bandwidth=bandwidth,
        target_bandwidth=bandwidth,
        normalization=normalization,
        **engine,
    )
    information = cs_mutual_information(
        inputs, codes, bandwidth=bandwidth, normalize=True, **engine
    )
    loss = upcast(divergence) + weight * upcast(information)
    return restore(loss, inputs, targets, predictions, codes)
