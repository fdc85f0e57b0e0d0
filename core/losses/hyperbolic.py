"""Losses in hyperbolic space, as the Poincare ball: maps into it, its classifier, its distances.

Of curvature `-c` the ball has radius `1 / sqrt(c)`. No formula here subtracts numbers that are
nearly equal close to the boundary: with `g(x) = 1 - c |x|^2` the denominator of a Moebius sum is
`c |x + y|^2 + g(x) g(y)`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_floating,
    check_key,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_norm,
    safe_normalize,
    safe_sqrt,
    upcast,
)
from ._shared import check_labels, mean_of_rows
from .pair_sums import check_views
from .proxies import cross_entropy
from .similarity import arccosh_one_plus, into_ball, pairwise_squared_euclidean

Points = Float[Array, "batch features"]
Tangents = Float[Array, "classes features"]

BOUNDARY = 1e-3
"""How far inside the boundary, relative to the radius, the maps into the ball keep a point."""


def _tanh_ratio(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`tanh(x) / x` for `x >= 0`, with precise derivatives at zero."""
    q = jnp.square(x)
    near = q < 1e-2
    small = jnp.where(near, q, 0)
    series = 1 - small / 3 * (1 - small * 2 / 5 * (1 - small * 17 / 42 * (1 - small * 62 / 153)))
    far = jnp.where(near, 1, x)
    return jnp.where(near, series, jnp.tanh(far) / far)


def _exponential(tangent: Array) -> Array:
    """The exponential map at the origin of the unit ball, kept off its boundary."""
    moved = _tanh_ratio(safe_norm(tangent, keepdims=True)) * tangent
    return into_ball(moved, clip=BOUNDARY)[0]


def _mobius_add(x: Array, y: Array) -> Array:
    """`x + y` as the unit ball adds."""
    x_gap, y_gap = (1 - jnp.sum(z * z, -1, keepdims=True) for z in (x, y))
    squared = jnp.sum(jnp.square(x + y), -1, keepdims=True)
    # 1 + 2 <x, y> + |y|^2 = |x + y|^2 + 1 - |x|^2.
    return ((squared + x_gap) * x + x_gap * y) / (squared + x_gap * y_gap)


def to_poincare(
    x: Float[Array, "... features"],
    base: Float[Array, "features"] | None = None,
    *,
    curvature: float = 0.1,
    clip_norm: float | None = 2.0,
    is_riemannian: bool = False,
) -> Float[Array, "... features"]:
    """Features as points of the Poincare ball: clipped, then mapped exponentially.

    `exp_0(u) = tanh(sqrt(c) |u|) u / (sqrt(c) |u|)` of `u = x min(1, clip_norm / |x|)`; with a base
    `p = exp_0(base)` the map there, `p + exp_0(u / (1 - c |p|^2))` with the ball's addition. Points
    are kept `1e-3` of the radius inside the boundary, where value and derivatives are finite.

    Args:
      x: features [..., features].
      base: where to map from, as a tangent vector at the origin, often learned [features]; the
        origin for None.
      curvature: minus the curvature, the `c` of the formula; the ball has radius `1 / sqrt(c)`.
      clip_norm: the largest length of a feature; None for no clipping.
      is_riemannian: scale gradients by `((1 - c |z|^2) / 2)^2`, as the released code does: from
        Euclidean to those of the ball's metric. The value is the same.

    Returns:
      Points of the ball [..., features].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing, arXiv 2404.14406,
    Section 3; the clipping is that of Clipped Hyperbolic Classifiers Are Super-Hyperbolic
    Classifiers, arXiv 2107.11472; `ToPoincare` in `hyptorch/nn.py` of Kartik-3004/hyp-oc agrees,
    but for 1e-5 that it adds to norms and denominators.

    >>> point = to_poincare(jnp.array([3.0, 4.0]), curvature=1.0, clip_norm=1.0)
    >>> print(f"{jnp.linalg.norm(point):.4f} = tanh(1)")
    0.7616 = tanh(1)
    """
    check_floating(x=x)
    check_rank("x", x, 1, at_least=True)
    check_positive(curvature=curvature)
    u = upcast(x)
    if base is not None:
        check_floating(base=base)
        check_shape("base", base, jnp.shape(x)[-1:], "[features], as x")
    if clip_norm is not None:
        check_positive(clip_norm=clip_norm)
        norm = safe_norm(u, keepdims=True)
        u = jnp.where(norm > clip_norm, clip_norm * safe_divide(u, norm), u)
    root = jnp.sqrt(jnp.asarray(curvature, u.dtype))
    if base is None:
        z = _exponential(root * u)
    else:
        p = _exponential(root * jnp.asarray(base, u.dtype))
        z = _mobius_add(p, _exponential(root * u / (1 - jnp.sum(p * p))))
        z = into_ball(z, clip=BOUNDARY)[0]
    if is_riemannian:
        constant = jax.lax.stop_gradient(z)
        factor = jnp.square((1 - jnp.sum(constant * constant, -1, keepdims=True)) / 2)
        z = constant + factor * (z - constant)
    return restore(z / root, *([x] if base is None else [x, base]))


def gyroplane_logits(
    points: Points, normals: Tangents, offsets: Tangents, *, curvature: float = 0.1
) -> Float[Array, "batch classes"]:
    """Logits of a hyperbolic classifier: scaled signed distances from a gyroplane a class.

    `(2 |a| / sqrt(c)) asinh(2 sqrt(c) <w, a> / ((1 - c |w|^2) |a|))` with `w = -p + z`, the ball's
    addition, and `p = exp_0(offset)` a point of the gyroplane. As `c` goes to zero it becomes
    `4 <z - p, a>`.

    At `a = 0` it is zero and has no derivative: along `t a` it has slopes that are not linear in
    `a`. Given is the limit of the derivatives there of normals orthogonal to `w`,
    `4 w / (1 - c |w|^2)`, so that a head of zeros learns; none of their limits is zero.

    Args:
      points: `z`, points of the ball [batch, features].
      normals: `a`, as tangent vectors at the origin [classes, features].
      offsets: of each gyroplane, as tangent vectors at the origin [classes, features].
      curvature: minus the curvature, the `c` of the formula.

    Returns:
      Logits [batch, classes].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Hyperbolic Neural Networks, arXiv 1805.09112, Eq. 25, as the head of Hyp-OC, arXiv
    2404.14406; `HyperbolicMLR` in `hyptorch/nn.py` of Kartik-3004/hyp-oc agrees away from the
    boundary, next to which the 1e-5 of its Moebius addition moves logits.

    >>> z = jnp.array([[0.5, 0.0]])
    >>> logits = gyroplane_logits(z, jnp.eye(2), jnp.zeros((2, 2)), curvature=1.0)
    >>> np.asarray(logits, float).round(3)
    array([[2.197, 0.   ]])
    """
    check_floating(points=points, normals=normals, offsets=offsets)
    check_rank("points", points, 2)
    check_shape("normals", normals, (None, jnp.shape(points)[1]), "[classes, features], as points")
    check_shape("offsets", offsets, jnp.shape(normals), "[classes, features], as normals")
    check_positive(curvature=curvature)
    z, a, p = upcast(points, normals, offsets)
    root = jnp.sqrt(jnp.asarray(curvature, z.dtype))
    z, z_gap = into_ball(root * z)
    p = _exponential(root * p)
    p_gap = 1 - jnp.sum(p * p, -1)
    length, direction = safe_norm(a), safe_normalize(a)
    # Of a zero normal the limit of |a| asinh(s / |a|) for small s is taken, which is s.
    none = length == 0
    length, direction = jnp.where(none, 1, length), direction + jnp.where(none[:, None], a, 0)

    def dot(x: Array, y: Array) -> Array:
        return jnp.einsum("...f,cf->...c", x, y, precision=jax.lax.Precision.HIGHEST)

    # <w, a> / (1 - |w|^2) of the Moebius sum w, in which its denominator cancels.
    along = dot(z, direction) - jnp.sum(p * direction, -1)
    beside = pairwise_squared_euclidean(z, p) * jnp.sum(p * direction, -1) / p_gap
    logits = 2 * length / root * jnp.arcsinh(2 * (along - beside) / z_gap[:, None])
    return restore(logits, points, normals, offsets)


def hyperbolic_cross_entropy_loss(
    points: Points,
    labels: Int[Array, "batch"],
    normals: Tangents,
    offsets: Tangents,
    *,
    curvature: float = 0.1,
) -> Float[Array, "batch"]:
    """Hyp-CE: cross-entropy of a hyperbolic classifier.

    `-log softmax_y(l)` with `l` the `gyroplane_logits`.

    Args:
      points: points of the ball [batch, features].
      labels: the class of each [batch].
      normals: of the gyroplanes [classes, features].
      offsets: of the gyroplanes [classes, features].
      curvature: minus the curvature.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing, arXiv 2404.14406,
    the loss Hyp-CE; the classes there are real faces and pseudo-negatives.

    >>> z, plane = jnp.array([[0.5, 0.0]]), jnp.zeros((2, 2))
    >>> loss = hyperbolic_cross_entropy_loss(z, jnp.array([0]), jnp.eye(2), plane, curvature=1.0)
    >>> np.asarray(loss, float).round(3)
    array([0.105])
    """
    logits = gyroplane_logits(points, normals, offsets, curvature=curvature)
    check_labels(logits, labels, "points")
    loss = cross_entropy(upcast(logits), jnp.asarray(labels))
    return restore(loss, points, normals, offsets)


def hyperbolic_confusion_loss(
    first: Points, second: Points, *, curvature: float = 0.1, is_arctan: bool = False
) -> Float[Array, "batch"]:
    """Hyp-PC: pairs of examples of the one class are to lie close in the Poincare ball.

    `artanh(sqrt(c) |-x + y|) / sqrt(c)` with the ball's addition: half the distance of each pair.

    Args:
      first: points of the ball [batch, features].
      second: the point that each is paired with [batch, features].
      curvature: minus the curvature, the `c` of the formula.
      is_arctan: `arctan` in place of `artanh`, as the released code has it; no distance, and
        bounded.

    Returns:
      One loss a pair [batch]. The mean over pairs of the two halves of a batch is the paper's
      loss, which divides the sum of distances by the batch, twice the number of pairs.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing, arXiv 2404.14406,
    the loss Hyp-PC; `loss.py` of Kartik-3004/hyp-oc for `is_arctan=True`.

    >>> x, y = jnp.zeros((1, 2)), jnp.array([[0.5, 0.0]])
    >>> np.asarray(hyperbolic_confusion_loss(x, y, curvature=1.0), float).round(4)
    array([0.5493])
    """
    check_views(first=first, second=second)
    check_positive(curvature=curvature)
    x, y = upcast(first, second)
    root = jnp.sqrt(jnp.asarray(curvature, x.dtype))
    (x, x_gap), (y, y_gap) = (into_ball(root * z) for z in (x, y))
    squared, gap = jnp.sum(jnp.square(x - y), -1), x_gap * y_gap
    if is_arctan:
        loss = jnp.arctan(safe_sqrt(squared / (squared + gap)))
    else:
        loss = arccosh_one_plus(2 * squared / gap) / 2
    return restore(loss / root, first, second)


def gaussian_pseudo_negatives(
    key: Any,
    features: Points,
    mean: Float[Array, "features"],
    *,
    decay: float = 0.8,
    std: float = 1.0,
    is_running: bool = True,
    axis_name: str | None = None,
) -> tuple[Points, Float[Array, "features"]]:
    """Examples of a class that is not there: a Gaussian around the running mean of the one that is.

    `mean <- decay mean + (1 - decay) mean_i x_i` and `negatives ~ N(mean, std^2 I)`.

    Args:
      key: a random key.
      features: a batch of the one class [batch, features].
      mean: what the step before returned, zeros at first [features].
      decay: the share of the mean so far, alpha in the paper.
      std: standard deviation of every feature; must exceed that of the class. The released code's
        `std_dev` is the variance.
      is_running: False returns the mean of this batch alone, which the next step then mixes
        in, as the released code does.
      axis_name: the mesh axis whose devices share the batch, each with a key of its own.

    Returns:
      As many negatives as features [batch, features], and the mean for the next step [features];
      both are constants for the gradient.

    Raises:
      ValueError: if `key` is no random key, or a shape, a dtype or a hyper-parameter does not fit.

    Source: Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing, arXiv 2404.14406,
    the pseudo-negative class; `train.py` of Kartik-3004/hyp-oc.

    >>> x = jnp.full((4, 2), 5.0)
    >>> _, mean = gaussian_pseudo_negatives(jax.random.key(0), x, jnp.zeros(2))
    >>> np.asarray(mean, float).round(3)
    array([1., 1.])
    """
    check_key(key=key)
    check_floating(features=features, mean=mean)
    check_rank("features", features, 2)
    check(jnp.shape(features)[0] > 0, "features", "got no rows, takes one or more")
    check_shape("mean", mean, jnp.shape(features)[1:], "[features], as features")
    check_range("decay", decay, 0, 1)
    check_positive(std=std)
    x, before = jax.lax.stop_gradient(upcast(features, mean))
    batch = mean_of_rows(x, axis_name)
    mixed = decay * before + (1 - decay) * batch
    # Drawn in one dtype, so that all dtypes see the same negatives.
    noise = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype)
    negatives = mixed + std * noise
    after = mixed if is_running else batch
    return restore(negatives, features, mean), restore(after, features, mean)
