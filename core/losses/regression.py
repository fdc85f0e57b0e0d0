"""Losses of regression: divergences between kernel estimates of distributions, and ConR.

Kernel estimates are formed from logarithms, so that distances far beyond the bandwidth neither
underflow to the logarithm of zero nor lose their gradient.
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
from ._shared import log_sum_exp
from .similarity import pairwise_cosine, pairwise_squared_euclidean

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


def _log_gram(x: Samples, y: Samples, bandwidth: float) -> Float[Array, "rows columns"]:
    """Logarithm of the Gaussian kernel of all pairs of rows."""
    return -pairwise_squared_euclidean(x, y) / (2 * bandwidth**2)


def cs_divergence(x: Samples, y: Samples, *, bandwidth: float = 1.0) -> Float[Array, ""]:
    """Cauchy-Schwarz divergence of two samples, by kernel estimates of their densities.

    `log mean_ij G(x_i, x_j) + log mean_ij G(y_i, y_j) - 2 log mean_ij G(x_i, y_j)` with the
    Gaussian kernel `G(a, b) = exp(-|a - b|^2 / (2 s^2))`.

    Args:
      x: a sample [rows, features].
      y: another one [columns, features].
      bandwidth: `s` (sigma).

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
    a, b = upcast(x, y)

    def log_mean(u: Samples, v: Samples) -> Float[Array, ""]:
        return logsumexp(_log_gram(u, v, bandwidth)) - math.log(len(u) * len(v))

    return restore(log_mean(a, a) + log_mean(b, b) - 2 * log_mean(a, b), x, y)


def conditional_cs_divergence(
    inputs: Samples,
    targets: Samples,
    predictions: Samples,
    *,
    input_bandwidth: float = 1.0,
    target_bandwidth: float = 1.0,
    normalization: Normalization = "square_of_sum",
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
    k = _log_gram(x, x, input_bandwidth)
    square = normalization == "square_of_sum"
    log_w = 2 * logsumexp(k, -1) if square else logsumexp(2 * k, -1)

    def log_t(u: Samples, v: Samples) -> Float[Array, ""]:
        return logsumexp(logsumexp(k + _log_gram(u, v, target_bandwidth), -1) - log_w)

    loss = log_t(y, y) + log_t(z, z) - 2 * log_t(z, y)
    return restore(loss, inputs, targets, predictions)


def _quadratic_information(k: Float[Array, "n n"], q: Float[Array, "n n"]) -> Float[Array, ""]:
    """Cauchy-Schwarz mutual information from two matrices of log-kernels."""
    # The powers of the sample size cancel: 2 + 4 - 2 * 3.
    joint, marginals = logsumexp(k + q), logsumexp(k) + logsumexp(q)
    return joint + marginals - 2 * logsumexp(logsumexp(k, -1) + logsumexp(q, -1))


def cs_mutual_information(
    x: Samples, y: Samples, *, bandwidth: float = 1.0, normalize: bool = False
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
    a, b = upcast(x, y)
    k, q = _log_gram(a, a, bandwidth), _log_gram(b, b, bandwidth)
    information = _quadratic_information(k, q)
    if normalize:
        own = safe_sqrt(_quadratic_information(k, k)) * safe_sqrt(_quadratic_information(q, q))
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
    divergence = conditional_cs_divergence(
        inputs,
        targets,
        predictions,
        input_bandwidth=bandwidth,
        target_bandwidth=bandwidth,
        normalization=normalization,
    )
    information = cs_mutual_information(inputs, codes, bandwidth=bandwidth, normalize=True)
    loss = upcast(divergence) + weight * upcast(information)
    return restore(loss, inputs, targets, predictions, codes)


def conr_loss(
    features: Samples,
    targets: Float[Array, "batch"],
    predictions: Float[Array, "batch"],
    weights: Float[Array, "batch"] | None = None,
    *,
    window: float = 1.0,
    temperature: float = 0.07,
    push: float = 0.01,
    count_others: bool = False,
) -> Float[Array, "batch"]:
    """ConR: features of far targets are pushed apart where predictions confuse them.

    With cosines over the temperature `s`, for anchor `i` the positives `|y_i - y_j| <= w` and the
    negatives `|y_i - y_j| > w` but `|yhat_i - yhat_j| <= w`, and the pushes
    `S_ij = r_i exp(e |y_i - y_j|)`: the mean over the positives of
    `-log(exp(s_ij) / (sum_p exp(s_ip) + sum_n S_in exp(s_in)))`, times the weight `r_i`. It is
    zero for an anchor without a negative or without a positive. Added to the loss of regression;
    two augmented views of each input give every anchor a positive.

    Args:
      features: the features before the last layer [batch, features].
      targets: the targets [batch].
      predictions: the predictions [batch]; no gradient goes through them.
      weights: `r`, larger for rarer targets, zero or more [batch]; None for ones.
      window: `w`, within which targets or predictions are alike.
      temperature: divides the cosines.
      push: `e`, how a negative's push grows with the distance of targets.
      count_others: add one to the denominator for every pair that is no positive, as the authors'
        code does.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: ConR: Contrastive Regularizer for Deep Imbalanced Regression, arXiv 2309.06651, Eq. 2
    to 4. `ConR` in `agedb-dir/loss.py` of BorealisAI/ConR is the mean of this with
    `count_others=True` where every anchor has a positive, and NaN where one has none; it takes the
    temperature 0.07 whatever is asked for.

    >>> f = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> y, guess = jnp.array([0.0, 0.5, 9.0]), jnp.array([0.0, 5.0, 0.0])
    >>> np.asarray(conr_loss(f, y, guess, temperature=1.0, push=0.0), float).round(3)
    array([1.313, 0.   , 0.   ])
    """
    check_floating(features=features, targets=targets, predictions=predictions)
    check_rank("features", features, 2)
    check_shape("targets", targets, jnp.shape(features)[:1], "[batch], one a row of features")
    check_shape("predictions", predictions, jnp.shape(targets), "[batch], as targets")
    check_positive(temperature=temperature)
    check_range("window", window, 0)
    check_range("push", push, 0)
    f, *fixed = upcast(features, targets, predictions)
    y, guess = map(jax.lax.stop_gradient, fixed)
    rarity = jnp.ones_like(y)
    if weights is not None:
        check_floating(weights=weights)
        check_shape("weights", weights, jnp.shape(targets), "[batch], as targets")
        rarity = jax.lax.stop_gradient(jnp.asarray(weights, f.dtype))
    apart = jnp.abs(y[:, None] - y)
    near = apart <= window
    positive = near & ~jnp.eye(len(y), dtype=bool)
    negative = ~near & (jnp.abs(guess[:, None] - guess) <= window)
    s = pairwise_cosine(f, f) / temperature

    there = rarity > 0
    log_push = jnp.log(jnp.where(there, rarity, 1))[:, None] + push * apart
    pushing = negative & there[:, None]
    # One sum over both kinds of pairs; the others are a constant beside them.
    terms = jnp.where(pushing, s + log_push, s)
    counted = positive | pushing
    if count_others:
        others = jnp.sum(~positive, -1, keepdims=True).astype(f.dtype)
        terms = jnp.concatenate([terms, jnp.log(jnp.maximum(others, 1))], -1)
        counted = jnp.concatenate([counted, others > 0], -1)
    total = log_sum_exp(terms, counted)
    has = jnp.any(positive, -1) & jnp.any(negative, -1)
    mean = safe_divide(
        jnp.sum(jnp.where(positive, s, 0), -1), jnp.sum(positive, -1).astype(f.dtype)
    )
    loss = rarity * jnp.where(has, jnp.where(has, total, 0) - mean, 0)
    return restore(loss, features, targets, predictions)
