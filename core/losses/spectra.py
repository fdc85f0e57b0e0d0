"""Self-supervision by the spectrum of the covariance: views that agree, and span what they can."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    restore,
    safe_divide,
    safe_log,
    safe_norm,
    safe_normalize,
    upcast,
)
from ._shared import everyone, mean_of_devices, rows_of_all

Cloud = Float[Array, "views batch features"]


def _check_cloud(views: Any) -> None:
    check_floating(views=views)
    check_rank("views", views, 3)
    check(0 not in jnp.shape(views), "views", f"got shape {jnp.shape(views)}, takes no zeros")


def _nuclear_norm(x: Float[Array, "... rows columns"]) -> Float[Array, "..."]:
    return jnp.sum(jnp.linalg.svd(x, compute_uv=False), -1)


def mmcr_loss(
    views: Cloud,
    *,
    compression_weight: float = 0.0,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """MMCR: the centroids of the views span much, the views of an example little.

    `w |Z_i|_* - |C|_*` with the sums of singular values of the unit vectors of an example's views
    `Z_i` and of their means, one row an example, `C`.

    Args:
      views: embeddings [views, batch, features].
      compression_weight: `w` (lambda in the paper, where 0 does as well).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch], whose second term is the same for all; their mean is the paper's.

    Raises:
      ValueError: if `views` or `compression_weight` does not fit.

    Source: Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
    Representations, arXiv 2303.03307; `MMCRLoss` of lightly-ai/lightly agrees in values and
    gradients on unit vectors, which it does not make itself.

    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> mmcr_loss(x).tolist()
    [-2.0, -2.0]
    """
    _check_cloud(views)
    check_range("compression_weight", compression_weight, 0)
    z = safe_normalize(upcast(views))
    means = everyone(jnp.mean(z, 0), axis_name)
    loss = -jnp.broadcast_to(_nuclear_norm(means), z.shape[1:2])
    if compression_weight:
        loss = loss + compression_weight * _nuclear_norm(jnp.moveaxis(z, 0, 1))
    return restore(loss, views)


def coding_rate_loss(
    views: Cloud,
    *,
    precision: float = 0.2,
    invariance_weight: float = 200.0,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """EMP-SSL: many bits to code a view of all examples, and all views like their mean.

    `-mean_v log det(I + d / (n e) Z_v^T Z_v) / 2 - w mean_v cos(z_vi, mean_u z_ui)` for the unit
    vectors `Z_v` of a view of `n` examples in `d` dimensions: the rate of coding them to within a
    distortion, as if they were Gaussian.

    Args:
      views: embeddings [views, batch, features].
      precision: `e`, the squared distortion that is allowed.
      invariance_weight: `w` (lambda in the paper).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch]; the first term is the same for all.

    Raises:
      ValueError: if `views` or a hyper-parameter does not fit.

    Source: EMP-SSL: Towards Self-Supervised Learning in One Training Epoch, arXiv 2304.03977, with
    `e` unsquared as in its code. The terms are those of `EMPSSLLoss` of
    lightly-ai/lightly, which lowers the coding rate where the paper raises it, and takes
    embeddings of any length.

    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> np.asarray(coding_rate_loss(x, precision=1.0, invariance_weight=1.0), float).round(3)
    array([-1.693, -1.693])
    """
    _check_cloud(views)
    check_positive(precision=precision)
    check_range("invariance_weight", invariance_weight, 0)
    z = safe_normalize(upcast(views))
    features = z.shape[2]
    each = everyone(jnp.moveaxis(z, 0, 1), axis_name)
    exact = jax.lax.Precision.HIGHEST
    moments = jnp.einsum("nvd,nve->vde", each, each, precision=exact)
    scale = features / (len(each) * precision)
    # Positive definite: the logarithms of the pivots of its Cholesky factor.
    factor = jnp.linalg.cholesky(jnp.eye(features, dtype=z.dtype) + scale * moments)
    rate = jnp.mean(jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), -1))
    alike = jnp.mean(jnp.sum(z * safe_normalize(jnp.mean(z, 0)), -1), 0)
    return restore(-rate - invariance_weight * alike, views)


def frossl_loss(
    views: Cloud,
    *,
    invariance_weight: float = 1.0,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """FroSSL: the covariance of every view of high entropy, all views like their mean.

    `sum_v log |Z_v^T Z_v / tr|_F^2 + w V sum_v |z_vi - mean_u z_ui|^2` for `V` views with the
    features `Z_v` of each, every one of them a unit vector over the batch: the squared Frobenius
    norm is the sum of squared eigenvalues, least where all are equal.

    Args:
      views: embeddings [views, batch, features].
      invariance_weight: `w`.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch]; the first term is the same for all.

    Raises:
      ValueError: if `views` or `invariance_weight` does not fit.

    Source: FroSSL: Frobenius Norm Minimization for Efficient Multiview Self-Supervised Learning,
    arXiv 2310.02903; `FroSSLLoss` of lightly-ai/lightly agrees in values and gradients.

    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> np.asarray(frossl_loss(x), float).round(3)
    array([-1.386, -1.386])
    """
    _check_cloud(views)
    check_range("invariance_weight", invariance_weight, 0)
    x = upcast(views)
    all_rows = everyone(jnp.moveaxis(x, 0, 1), axis_name)
    size = safe_norm(all_rows, axis=0)
    z, everything = safe_divide(x, size[:, None]), safe_divide(all_rows, size)
    exact = jax.lax.Precision.HIGHEST
    moments = jnp.einsum("nvd,nve->vde", everything, everything, precision=exact)
    trace = jnp.trace(moments, axis1=-2, axis2=-1)
    spread = jnp.sum(jnp.square(safe_divide(moments, trace[:, None, None])), (-2, -1))
    apart = jnp.sum(jnp.square(z - jnp.mean(z, 0)), (0, -1))
    loss = jnp.sum(safe_log(spread)) + invariance_weight * len(x) * apart
    return restore(loss, views)


def wmse_loss(
    views: Cloud, *, shrinkage: float = 0.0, axis_name: str | None = None
) -> Float[Array, "batch"]:
    """W-MSE: views alike once every view of the batch is whitened.

    `mean_{u < v} |z_ui - z_vi|^2` of unit vectors of `z_vi = L_v^-1 (x_vi - mean_j x_vj)` with
    `L_v L_v^T = (1 - e) Cov_v + e I`: whitened embeddings cannot all be the same.

    Args:
      views: embeddings [views, batch, features], two views or more. The batch should be at least
        twice as large as the features.
      shrinkage: `e`, from 0 to below 1. Next to it, rounding is kept out by a multiple of the
        dtype's precision.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch], from 0 to 4.

    Raises:
      ValueError: if `views` or `shrinkage` does not fit.

    Source: Whitening for Self-Supervised Representation Learning, arXiv 2007.06346;
    `WMSELoss` of lightly-ai/lightly agrees in values and gradients where its sub-batches are the
    batch. For smaller ones, drawn anew, map this function over the parts of a permuted batch.

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> np.asarray(wmse_loss(jnp.stack([x, -3.0 * x])), float).round(3)
    array([4., 4., 4., 4.])
    """
    _check_cloud(views)
    count = jnp.shape(views)[0]
    check(count > 1, "views", f"got {count}, takes two or more")
    check_range("shrinkage", shrinkage, 0, 1, open_high=True)
    x = upcast(views)
    batch, features = x.shape[1:]
    x = x - mean_of_devices(jnp.mean(x, 1, keepdims=True), axis_name)
    moments = jnp.einsum("vnd,vne->vde", x, x, precision=jax.lax.Precision.HIGHEST) / batch
    moments = mean_of_devices(moments, axis_name)
    rows = rows_of_all(batch, axis_name)
    unit = jnp.eye(features, dtype=x.dtype)
    covariance = (1 - shrinkage) * rows / max(rows - 1, 1) * moments + shrinkage * unit
    trace = jnp.trace(covariance, axis1=-2, axis2=-1)[:, None, None]
    # Of low rank, or nothing but rounding, it would have no factor.
    covariance = jnp.where(trace > 0, covariance + 8 * jnp.finfo(x.dtype).eps * trace * unit, unit)
    factor = jnp.linalg.cholesky(covariance)
    white = jax.lax.linalg.triangular_solve(
        factor, jnp.swapaxes(x, 1, 2), left_side=True, lower=True
    )
    z = safe_normalize(jnp.swapaxes(white, 1, 2))
    # The sum over pairs of |z_u - z_v|^2 is V sum_v |z_v|^2 - |sum_v z_v|^2.
    spread = count * jnp.sum(z * z, (0, 2)) - jnp.sum(jnp.square(jnp.sum(z, 0)), -1)
    return restore(spread / (count * (count - 1) / 2), views)
