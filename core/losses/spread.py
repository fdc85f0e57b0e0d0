"""Self-supervision by the shape of the cloud: embeddings that agree in views and fill their space.

What keeps encoders from collapse here is how all embeddings lie: their distances, those to nearest
neighbours, where embeddings have been, or their distribution along random directions. For spectra
of the covariance see the module `spectra`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_norm,
    safe_normalize,
    safe_sqrt,
    upcast,
)
from ._shared import everyone, mean_of_devices, mean_of_rows, rows_of_all
from .batch_pairs import in_batch
from .pair_sums import check_views
from .pairs import either
from .similarity import pairwise_dot, pairwise_squared_euclidean

Views = Float[Array, "batch features"]


def distances_of_views(x: Views, y: Views, power: float) -> Float[Array, "batch"]:
    """`|x_i - y_i|^power` of unit vectors."""
    squared = jnp.sum(jnp.square(x - y), -1)
    return squared if power == 2 else jnp.power(safe_sqrt(squared), power)


def log_mean_potential(
    x: Views, scale: Any, chunk_size: int | None = None, axis_name: str | None = None
) -> Float[Array, ""]:
    """`log mean_{i != j} exp(-scale |x_i - x_j|^2)` over all devices; zero for a batch of one."""
    n = rows_of_all(len(x), axis_name)
    if n == 1:
        return jnp.sum(x) * 0
    pairs = in_batch(
        x,
        jnp.zeros(len(x), jnp.int32),
        compare=pairwise_squared_euclidean,
        chunk_size=chunk_size,
        axis_name=axis_name,
    )
    each = everyone(pairs.log_sum_exp(lambda b: -scale * b.values, either), axis_name)
    top = jnp.max(each)
    return jnp.log(jnp.mean(jnp.exp(each - top))) + top - jnp.log(n - 1)


def alignment_uniformity_loss(
    view1: Views,
    view2: Views,
    *,
    power: float = 2.0,
    scale: float = 2.0,
    uniformity_weight: float = 1.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Alignment and uniformity: views close, all examples evenly over the sphere.

    `|x_i - y_i|^a + w (u(x) + u(y)) / 2` of unit vectors with
    `u(x) = log mean_{i != j} exp(-s |x_i - x_j|^2)`.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      power: `a` (alpha in the paper).
      scale: `s` (t in the paper).
      uniformity_weight: `w`.
      chunk_size: look at so many embeddings at a time for the second term; all for None.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch]; the second term is the same for all.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere, arXiv 2005.10242, Section 4.1 and Figure 5; `HypersphereLoss` of
    lightly-ai/lightly agrees in values and gradients. `papyrax.metrics` has the terms as measures.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> alignment_uniformity_loss(x, x, scale=1.0).tolist()
    [-4.0, -4.0]
    """
    check_views(view1=view1, view2=view2)
    check_positive(power=power, scale=scale)
    check_range("uniformity_weight", uniformity_weight, 0)
    x, y = map(safe_normalize, upcast(view1, view2))
    uniform = [log_mean_potential(z, scale, chunk_size, axis_name) for z in (x, y)]
    loss = distances_of_views(x, y, power) + uniformity_weight * sum(uniform) / 2
    return restore(loss, view1, view2)


def koleo_loss(
    embeddings: Views, *, epsilon: float = 1e-8, axis_name: str | None = None
) -> Float[Array, "batch"]:
    """KoLeo: every example far from its nearest neighbour on the sphere.

    `-log |x_i - x_n(i)|` of unit vectors, `n(i)` the nearest other one: up to constants an estimate
    of minus the entropy of the embeddings (Kozachenko and Leonenko's).

    Args:
      embeddings: the examples [batch, features].
      epsilon: added to the differences and to the distance, so that equal rows can part.
      axis_name: the mesh axis whose devices share the batch; neighbours are looked for on all of
        them.

    Returns:
      One loss an example [batch]; zero for a batch of one.

    Raises:
      ValueError: if `embeddings` or `epsilon` does not fit.

    Source: Spreading vectors for similarity search, arXiv 1806.03198, on the sphere; DINOv2, arXiv
    2304.07193, adds it times 0.1; `KoLeoLoss` of lightly-ai/lightly agrees in
    values and gradients.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> np.asarray(koleo_loss(x), float).round(3)
    array([-0.347, -0.347, -0.347])
    """
    check_floating(embeddings=embeddings)
    check_rank("embeddings", embeddings, 2)
    check(jnp.shape(embeddings)[0] > 0, "embeddings", "got no rows, takes one or more")
    check_positive(epsilon=epsilon)
    x = safe_normalize(upcast(embeddings))
    others = everyone(x, axis_name)
    if len(others) == 1:
        return restore(0 * jnp.sum(x, -1), embeddings)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(x)
    own = (jnp.arange(len(x)) + first)[:, None] == jnp.arange(len(others))
    cosine = jax.lax.stop_gradient(pairwise_dot(x, others))
    nearest = jnp.argmax(jnp.where(own, -jnp.inf, cosine), -1)
    distance = safe_norm(x - others[nearest] + epsilon)
    return restore(-jnp.log(distance + epsilon), embeddings)


class TicoState(NamedTuple):
    """State of `tico_loss`.

    Attributes:
      covariance: moving average of the second moments [features, features].
    """

    covariance: Float[Array, "features features"]


def tico_init(features: int) -> TicoState:
    """The state of `tico_loss` before the first step.

    The covariance is zero.

    Args:
      features: the size of the embeddings.

    Returns:
      `TicoState` of an array [features, features].

    Raises:
      ValueError: if `features` is not positive.

    Source: TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
    Representation Learning, arXiv 2206.10698, Algorithm 1.

    >>> tico_init(2).covariance.tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    check_count(features=features)
    return TicoState(jnp.zeros((features, features), jnp.float32))


def tico_loss(
    state: TicoState,
    view1: Views,
    view2: Views,
    *,
    contrast_weight: float = 8.0,
    momentum: float = 0.9,
    axis_name: str | None = None,
) -> tuple[Float[Array, "batch"], TicoState]:
    """TiCo: views alike, and every embedding away from where embeddings have been.

    `1 - <x_i, y_i> + w x_i^T C x_i` of unit vectors with the moving average
    `C <- m C + (1 - m) mean_i x_i x_i^T` of second moments, a constant for the gradient: a
    contrastive loss with a squared cosine whose memory is a matrix.

    Args:
      state: from `tico_init` or the step before.
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view, as a rule by a slow encoder [batch, features].
      contrast_weight: `w` (rho in the paper).
      momentum: `m` (beta in the paper).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch], and the new state.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
    Representation Learning, arXiv 2206.10698, Algorithm 1; `TiCoLoss` of
    lightly-ai/lightly agrees in values, gradients and the covariance.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss, state = tico_loss(tico_init(2), x, x)
    >>> np.asarray(loss, float).round(3)
    array([0.4, 0.4])
    """
    check_views(view1=view1, view2=view2)
    features = jnp.shape(view1)[1]
    check_shape("state.covariance", state.covariance, (features, features), "as the views")
    check_range("contrast_weight", contrast_weight, 0)
    check_range("momentum", momentum, 0, 1)
    x, y = map(safe_normalize, upcast(view1, view2))
    exact = jax.lax.Precision.HIGHEST
    fixed = jax.lax.stop_gradient(x)
    moments = jnp.matmul(fixed.T, fixed, precision=exact) / len(x)
    moments = mean_of_devices(moments, axis_name)
    c = momentum * state.covariance.astype(x.dtype) + (1 - momentum) * moments
    seen = jnp.sum(jnp.matmul(x, c, precision=exact) * x, -1)
    loss = 1 - jnp.sum(x * y, -1) + contrast_weight * seen
    return restore(loss, view1, view2), TicoState(c.astype(state.covariance.dtype))


def sigreg_loss(
    embeddings: Views,
    directions: Float[Array, "directions features"],
    *,
    upper: float = 3.0,
    knots: int = 17,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """SIGReg: along every direction the embeddings are to be distributed like a standard Gaussian.

    `mean_a n int |phi_a(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt`, Epps and Pulley's statistic, with
    the empirical characteristic function `phi_a(t) = mean_j exp(i t <a, x_j>)` of `n` embeddings
    along the unit vectors `a`; by the trapezoidal rule on `[-upper, upper]`.

    Args:
      embeddings: the examples, not normalized [batch, features].
      directions: drawn anew at each step, such as `jax.random.normal(key, (1024, features))`; made
        unit vectors here [directions, features].
      upper: the end of the integral.
      knots: at how many points from zero to there the integrand is taken.
      axis_name: the mesh axis whose devices share the batch, and the directions.

    Returns:
      The statistic of the batch for each example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics, arXiv
    2511.08544, SIGReg with Epps and Pulley's test; in `LeJEPALoss` of lightly-ai/lightly it is
    added, times 0.05, to 0.95 times the mean squared difference of all views from the mean of the
    global ones. `SIGReg` there agrees in values and gradients (of views, it is the mean).

    >>> x = jnp.array([[-1.0], [0.0], [1.0]])
    >>> near, far = (sigreg_loss(s * x, jnp.ones((1, 1)))[0] for s in (1.0, 5.0))
    >>> print(f"{near:.3f} {far:.3f}")
    0.033 3.287
    """
    check_floating(embeddings=embeddings, directions=directions)
    check_rank("embeddings", embeddings, 2)
    batch, features = jnp.shape(embeddings)
    check(batch > 0, "embeddings", "got no rows, takes one or more")
    check_shape("directions", directions, (None, features), "[directions, features]")
    check(jnp.shape(directions)[0] > 0, "directions", "got none, takes one or more")
    check_positive(upper=upper)
    good = isinstance(knots, int) and knots > 1
    check(good, "knots", f"got {knots!r}, takes an integer above one")
    x, a = upcast(embeddings, directions)
    along = jnp.matmul(x, safe_normalize(a).T, precision=jax.lax.Precision.HIGHEST)
    t = jnp.linspace(0, upper, knots, dtype=x.dtype)
    # Even in t: twice the half, in which the two ends count half.
    weight = jnp.full(knots, 2 * upper / (knots - 1), x.dtype).at[jnp.array([0, -1])].divide(2)
    normal = jnp.exp(-jnp.square(t) / 2)
    angle = along[..., None] * t
    real, imaginary = (mean_of_rows(wave(angle), axis_name) for wave in (jnp.cos, jnp.sin))
    error = jnp.square(real - normal) + jnp.square(imaginary)
    distance = jnp.matmul(error, weight * normal, precision=jax.lax.Precision.HIGHEST)
    loss = rows_of_all(batch, axis_name) * jnp.mean(distance)
    return restore(jnp.broadcast_to(loss, (batch,)), embeddings)
