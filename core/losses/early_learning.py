"""When a class has learnt what right labels say and begins to memorize the wrong ones: ADELE."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_integer,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)


class LearningCurve(NamedTuple):
    """The curve `a (1 - exp(-t^b / c))`, see `fit_learning_curve`.

    Attributes:
      height: `a` [].
      exponent: `b` [].
      time: `c` [].
    """

    height: Float[Array, ""]
    exponent: Float[Array, ""]
    time: Float[Array, ""]


def _check_where(where: Array | None, shape: tuple[int, ...], meaning: str) -> Array:
    if where is None:
        return jnp.ones(shape, bool)
    check_boolean(where=where)
    check_shape("where", where, shape, meaning)
    return jnp.asarray(where)


def _check_curve(values: Array, where: Array | None) -> tuple[Array, Array]:
    check_floating(values=values)
    check_rank("values", values, 1)
    check(jnp.shape(values)[0] > 0, "values", "got none, takes one or more")
    y = upcast(values)
    return y, _check_where(where, y.shape, "[epochs], as values")


def fit_learning_curve(
    values: Float[Array, "epochs"], *, where: Bool[Array, "epochs"] | None = None
) -> LearningCurve:
    """Fit a saturating curve to how well a class's training labels are predicted, epoch by epoch.

    `argmin sum_t ((a (1 - exp(-t^b / c)) - y_t) / sigma_t)^2` over `0 <= a <= 1`, `0 < b <= 1`,
    `c > 0`, at `t = 0, 1, ...`; `sigma` falls geometrically from 1 to 0.1, so that late epochs
    weigh more. For each `b` and `c` the best `a` is a quotient; `b` and `log c` are searched on a
    grid that is narrowed around its best point, which no local minimum traps.

    Args:
      values: intersection over union of predictions and given labels [epochs].
      where: which epochs are there, the first ones [epochs]; with it one program serves a curve
        that grows.

    Returns:
      A `LearningCurve` of three numbers [], in float32 or wider.

    Raises:
      ValueError: if a shape or dtype is wrong.

    Source: Adaptive Early-Learning Correction for Segmentation from Noisy Annotations, arXiv
    2110.03740, the IoU curve; `label_correction.py` of Kangningthu/ADELE, which fits by a local
    method, and to times of which the last is `len(values)`, where it is `len(values) - 1` here.
    For values `h` epochs apart the time in epochs is `h^b` times as long.

    >>> t = jnp.arange(10.0)
    >>> curve = fit_learning_curve(0.8 * (1 - jnp.exp(-(t**0.5) / 2)))
    >>> np.asarray(jnp.stack(curve), float).round(1)
    array([0.8, 0.5, 2. ])
    """
    y, mask = _check_curve(values, where)
    y = jax.lax.stop_gradient(jnp.where(mask, y, 0))
    last = jnp.maximum(jnp.sum(mask) - 1, 1)
    t = jnp.arange(len(y), dtype=y.dtype)
    weight = jnp.where(mask, jnp.exp(2 * jnp.log(10.0) * t / last), 0).astype(y.dtype)

    def misfit(b: Array, log_c: Array) -> tuple[Array, Array]:
        rise = -jnp.expm1(-jnp.power(jnp.maximum(t, 1e-30), b) * jnp.exp(-log_c))
        rise = jnp.where(t > 0, rise, 0)
        power = jnp.sum(weight * rise * rise)
        a = jnp.sum(weight * rise * y) / jnp.where(power > 0, power, 1)
        a = jnp.clip(a, 0, 1)
        return jnp.sum(weight * jnp.square(a * rise - y)), a

    grid = jnp.linspace(-1, 1, 17, dtype=y.dtype)
    everywhere = jax.vmap(jax.vmap(misfit, (None, 0)), (0, None))

    def narrow(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        width = jnp.power(jnp.asarray(0.7, y.dtype), i)
        b = jnp.clip(best[0] + 0.5 * width * grid, 1e-3, 1)
        log_c = jnp.clip(best[1] + 8 * width * grid, -8, 8)
        at = jnp.argmin(everywhere(b, log_c)[0])
        return b[at // len(grid)], log_c[at % len(grid)]

    # Width 1 covers exponents 0 to 1 and times e^-8 to e^8; it shrinks slowly, since a long valley
    # leads from point to point. Values tell points apart to the root of rounding and no further.
    rounds = 12 if y.dtype == jnp.float32 else 44
    start = (jnp.asarray(0.5, y.dtype), jnp.asarray(0.0, y.dtype))
    b, log_c = jax.lax.fori_loop(0, rounds, narrow, start)
    return LearningCurve(misfit(b, log_c)[1], b, jnp.exp(log_c))


def learning_slowdown(
    values: Float[Array, "epochs"], *, where: Bool[Array, "epochs"] | None = None
) -> Float[Array, "epochs"]:
    """By which share learning has slowed down at each epoch, of its speed at the first.

    `|f'(1) - f'(t)| / |f'(1)|` with `f` of `fit_learning_curve` and
    `f'(t) = (a b / c) t^(b - 1) exp(-t^b / c)`. A class's labels are corrected from the epoch on
    at which this passes 0.9.

    Args:
      values: intersection over union of predictions and given labels [epochs].
      where: which epochs are there, the first ones [epochs].

    Returns:
      The share at `t = 1, 2, ...` [epochs], in float32 or wider; zero for a curve that has not
      risen.

    Raises:
      ValueError: if a shape or dtype is wrong.

    Source: Adaptive Early-Learning Correction for Segmentation from Noisy Annotations, arXiv
    2110.03740, the criterion; agrees with `label_correction.py` of Kangningthu/ADELE on the epoch
    of correction, where the same times are given.

    >>> t = jnp.arange(6.0)
    >>> slowdown = learning_slowdown(0.9 * (1 - jnp.exp(-t)))
    >>> np.asarray(slowdown, float).round(2)
    array([0.  , 0.63, 0.86, 0.95, 0.98, 0.99])
    """
    y, mask = _check_curve(values, where)
    curve = fit_learning_curve(y, where=mask)
    t = jnp.arange(1, len(y) + 1, dtype=y.dtype)
    # f'(t) / f'(1): the height cancels, and both factors fall with t.
    b, rate = curve.exponent, 1 / curve.time
    quotient = jnp.power(t, b - 1) * jnp.exp(-(jnp.power(t, b) - 1) * rate)
    return jnp.where(curve.height > 0, 1 - quotient, 0)


def correct_labels(
    labels: Int[Array, "batch ..."],
    probabilities: Float[Array, "batch ... classes"],
    ended: Bool[Array, "classes"],
    *,
    threshold: float = 0.8,
    background_threshold: float | None = None,
) -> Int[Array, "batch ..."]:
    """Replace wrong labels of the classes whose early learning has ended by sure predictions.

    A pixel is given its likeliest class where that one's probability is above the threshold, both
    classes, old and new, are the background or have ended, and the new one is the background or
    occurs among the labels of the image.

    Args:
      labels: given labels, 0 for the background [batch, ...].
      probabilities: predictions, as a rule averaged over scales and flips
        [batch, ..., classes].
      ended: which classes have ended early learning [classes]; that of the background is ignored.
      threshold: how sure is sure (tau): 0.8 for PASCAL VOC, 0.7 for SegTHOR.
      background_threshold: the same for the background; `threshold` by default.

    Returns:
      New labels of the shape and dtype of `labels`.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a threshold out of [0, 1].

    Source: Adaptive Early-Learning Correction for Segmentation from Noisy Annotations, arXiv
    2110.03740, label correction; agrees with `label_correction.py` of Kangningthu/ADELE, where
    images without a label of a class that has ended stay as they are.

    >>> p = jnp.array([[[0.05, 0.95], [0.3, 0.7]]])
    >>> correct_labels(jnp.array([[0, 1]]), p, jnp.array([False, True])).tolist()
    [[1, 1]]
    """
    check_integer(labels=labels)
    check_rank("labels", labels, 1, at_least=True)
    check_floating(probabilities=probabilities)
    shape = (*jnp.shape(labels), None)
    check_shape("probabilities", probabilities, shape, "[batch, ..., classes]")
    classes = jnp.shape(probabilities)[-1]
    check_boolean(ended=ended)
    check_shape("ended", ended, (classes,), "[classes]")
    check_range("threshold", threshold, 0, 1)
    low = threshold if background_threshold is None else background_threshold
    check_range("background_threshold", low, 0, 1)
    labels, p, ended = jnp.asarray(labels), upcast(probabilities), jnp.asarray(ended)
    ids = jnp.arange(classes)
    pixels = tuple(range(1, labels.ndim))
    occurs = jnp.any(labels[..., None] == ids, pixels)  # [batch, classes]
    open_ = ended | (ids == 0)
    guess = jnp.argmax(p, -1)
    least = jnp.where(guess == 0, low, threshold)
    sure = jnp.max(p, -1) > least
    among = jnp.any(occurs & ended & (ids > 0), -1, keepdims=True)
    allowed = (occurs | (ids == 0)) & among
    flat = guess.reshape(guess.shape[0], -1)
    fits = jnp.take_along_axis(allowed, flat, 1).reshape(guess.shape)
    # A label that is no class (255 for "ignore") is not open.
    given = jnp.any((labels[..., None] == ids) & open_, -1)
    replace = sure & given & open_[guess] & fits
    return jnp.where(replace, guess.astype(labels.dtype), labels)


def multiscale_consistency_loss(
    logits: Float[Array, "scales batch ... classes"],
    scores: Float[Array, "scales"] | None = None,
    *,
    threshold: float = 0.8,
    clip: float = 0.0,
    where: Bool[Array, "batch ..."] | None = None,
) -> Float[Array, "batch ..."]:
    """How far the predictions at several scales are from their mixture.

    `sum_k KL(p_k || q)` with `q = sum_k w_k p_k`, `w` the softmax of learnt scores. Images of which
    no pixel's mixture is sure are left out.

    Args:
      logits: scores of the classes at each scale, resized to one size
        [scales, batch, ..., classes].
      scores: what the weights of the scales are a softmax of [scales]; equal by default.
      threshold: an image counts where the largest probability of its mixture is at least this
        (rho).
      clip: keep the mixture that far from zero and one; the released code does by 1e-3, with which
        the loss of scales that agree is not zero but below. Zero by default.
      where: which pixels are part of the image [batch, ...]; what a random crop has beside it has
        loss zero and makes no image sure. All by default.

    Returns:
      One loss a pixel [batch, ...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Adaptive Early-Learning Correction for Segmentation from Noisy Annotations, arXiv
    2110.03740, multiscale consistency; values and gradients agree with `JSD_loss.py` of
    Kangningthu/ADELE with `clip=1e-3`.

    >>> z = jnp.log(jnp.array([[[0.9, 0.1]], [[0.9, 0.1]]]))
    >>> float(jnp.abs(multiscale_consistency_loss(z)[0])) < 1e-6
    True
    """
    check_floating(logits=logits)
    check_rank("logits", logits, 3, at_least=True)
    check_range("threshold", threshold, 0, 1)
    check_range("clip", clip, 0, 0.5, open_high=True)
    z = upcast(logits)
    if scores is None:
        log_w = jnp.full(z.shape[0], -jnp.log(float(z.shape[0])), z.dtype)
    else:
        check_floating(scores=scores)
        check_shape("scores", scores, z.shape[:1], "[scales]")
        log_w = jax.nn.log_softmax(jnp.asarray(scores, z.dtype))
    log_p = jax.nn.log_softmax(z, -1)
    log_q = jax.nn.logsumexp(log_p + log_w.reshape(-1, *[1] * (z.ndim - 1)), 0)
    q = jnp.exp(log_q)
    if isinstance(clip, jax.Array) or clip:
        inside = (q > clip) & (q < 1 - clip)
        bound = jnp.log(jnp.where(q <= clip, clip, 1 - clip))
        log_q = jnp.where(inside, log_q, bound)
        q = jnp.clip(q, clip, 1 - clip)
    loss = jnp.sum(jnp.exp(log_p) * (log_p - log_q), (0, -1))
    there = _check_where(where, loss.shape, "[batch, ...], as logits")
    top = jnp.where(there, jnp.max(jax.lax.stop_gradient(q), -1), 0)
    unsure = jnp.max(top, tuple(range(1, loss.ndim)), keepdims=True) < threshold
    loss = jnp.where(unsure | ~there, 0, loss)
    return restore(loss, logits)
