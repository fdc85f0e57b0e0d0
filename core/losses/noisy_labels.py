"""Learning when some labels are wrong: targets that remember, features that cannot memorize."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import check_labels, check_targets, everyone, is_label, pick, rows_before, softplus

# How far from zero and one the authors of ELR keep probabilities.
_CLIP = 1e-4


def _clip(p: Float[Array, "... classes"]) -> Float[Array, "... classes"]:
    return jnp.clip(p, _CLIP, 1 - _CLIP)


def _log_disagreement(agreement: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.log1p(-jnp.minimum(agreement, 1 - _CLIP))


def elr_regularizer(
    logits: Float[Array, "... classes"], targets: Float[Array, "... classes"]
) -> Float[Array, "..."]:
    """Reward for agreeing with what the model said early on.

    `log(1 - sum_k t_k p_k)` with the probabilities `p`, clipped to [1e-4, 1 - 1e-4]. Its gradient,
    `p_k (sum_j t_j p_j - t_k) / (1 - sum_j t_j p_j)` by the score `z_k`, pulls towards the classes
    of a large target and so cancels that of a wrong label.

    Args:
      logits: scores [..., classes].
      targets: distributions, or less than that, without gradient [..., classes].

    Returns:
      One value an example [...], zero or less.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Early-Learning Regularization Prevents Memorization of Noisy Labels, arXiv 2007.00151,
    Eq. 6; ELR+ adds it, with targets of the other network that are mixed as the inputs are and with
    a weight that ramps up, to cross-entropy to the mixed labels; so added it agrees with
    `ELR_plus/model/loss.py` of shengliu66/ELR.

    >>> value = elr_regularizer(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
    >>> np.asarray(value, float).round(3)
    array([-0.693])
    """
    check_targets(logits, targets)
    z, t = upcast(logits, targets)
    agreement = jnp.sum(jax.lax.stop_gradient(t) * _clip(jax.nn.softmax(z, -1)), -1)
    return restore(_log_disagreement(agreement), logits, targets)


class ElrState(NamedTuple):
    """What `elr_loss` remembers.

    Attributes:
      targets: running mean of the predictions for each training example [examples, classes].
    """

    targets: Float[Array, "examples classes"]


def elr_init(examples: int, classes: int) -> ElrState:
    """The state of `elr_loss`: no prediction remembered, so targets of zero.

    Args:
      examples: number of training examples.
      classes: number of classes.

    Returns:
      An `ElrState` of targets [examples, classes], in float32.

    Raises:
      ValueError: if a number is no count.

    Source: Early-Learning Regularization Prevents Memorization of Noisy Labels, arXiv 2007.00151;
    `ELR/model/loss.py` of shengliu66/ELR.

    >>> elr_init(3, 2).targets.shape
    (3, 2)
    """
    check_count(examples=examples, classes=classes)
    return ElrState(jnp.zeros((examples, classes), jnp.float32))


def elr_loss(
    state: ElrState,
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    indices: Int[Array, "batch"],
    *,
    strength: float = 3.0,
    momentum: float = 0.7,
) -> tuple[Float[Array, "batch"], ElrState]:
    """Cross-entropy that is kept from memorizing by the model's own earlier predictions: ELR.

    `-log p_y + l log(1 - sum_k t_k p_k)` with targets `t <- m t + (1 - m) p / sum p`, moved before
    they are used and without gradient.

    Args:
      state: targets of the training examples.
      logits: scores [batch, classes].
      labels: the given class of each example, from 0 on [batch].
      indices: which training examples these are [batch]; where one occurs twice, one of the two
        new targets is kept.
      strength: `l` (lambda): 3 for CIFAR-10, 7 for CIFAR-100.
      momentum: `m` (beta): 0.7 for CIFAR-10, 0.9 for CIFAR-100.

    Returns:
      One loss an example [batch], and the state with their new targets. Donate the old state to the
      jitted step, or the whole table is copied for the sake of a batch.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Early-Learning Regularization Prevents Memorization of Noisy Labels, arXiv 2007.00151,
    Eqs. 6 and 9; agrees with `ELR/model/loss.py` of shengliu66/ELR, whose clipping of the
    probabilities to [1e-4, 1 - 1e-4] it keeps.

    >>> state = elr_init(10, 2)
    >>> loss, state = elr_loss(state, jnp.array([[2.0, 0.0]]), jnp.array([1]), jnp.array([7]))
    >>> np.asarray(state.targets[7], float).round(3)
    array([0.264, 0.036])
    """
    check_labels(logits, labels)
    check_rank("logits", logits, 2)
    check_integer(indices=indices)
    check_shape("indices", indices, jnp.shape(labels), "[batch], as labels")
    table = jnp.asarray(state.targets)
    check_shape("state", table, (None, jnp.shape(logits)[1]), "targets [examples, classes]")
    check_range("strength", strength, 0)
    check_range("momentum", momentum, 0, 1)
    z, labels, indices = upcast(logits), jnp.asarray(labels), jnp.asarray(indices)
    # One exponential an entry, for cross-entropy, for the probabilities and for the targets.
    own = pick(z, labels)
    top = jax.lax.stop_gradient(jnp.max(z, -1))
    power = jnp.exp(z - top[:, None])
    rest = jnp.sum(jnp.where(is_label(labels, z.shape[-1]), 0, power), -1)
    none = rest == 0
    odds = jnp.where(none, -jnp.inf, (top - own) + jnp.log(jnp.where(none, 1, rest)))
    p = _clip(power * (1 / (rest + jnp.exp(own - top)))[:, None])
    now = jax.lax.stop_gradient(p)
    before = jax.lax.stop_gradient(table)[indices].astype(z.dtype)
    share = (1 - momentum) / jnp.sum(now, -1)
    targets = momentum * before + share[:, None] * now
    # That of the two summands in turn: the targets themselves are for the state alone.
    agreement = momentum * jnp.sum(before * p, -1) + share * jnp.sum(now * p, -1)
    loss = softplus(odds) + strength * _log_disagreement(agreement)
    return restore(loss, logits), ElrState(table.at[indices].set(targets.astype(table.dtype)))


def nested_dropout(
    key: Array,
    features: Float[Array, "... features"],
    *,
    std: float = 10.0,
    mean: float = 0.0,
) -> Float[Array, "... features"]:
    """Keeps the first `k` features and drops the rest, with one random `k` for the whole batch.

    `P(k = i) ~ exp(-((i - mean) / std)^2)`, `i = 1..D`; what is kept is not rescaled. The features
    come to be ordered by importance, and the first few cannot hold what wrong labels ask for.

    Args:
      key: a PRNG key [].
      features: what the linear classifier is given [..., features].
      std: 10 for CIFAR-10, 100 for CIFAR-100, Clothing1M and ANIMAL-10N.
      mean: where the distribution has its peak.

    Returns:
      Masked features of the same shape [..., features].

    Raises:
      ValueError: if `key` is none, `features` has a wrong dtype or none on its last axis, or `std`
        is not positive.

    Source: Compressing Features for Learning with Noisy Labels, arXiv 2206.13140, nested dropout;
    the distribution is that of `nested/train_resnet.py` of yingyichen-cyy/Nested-Co-teaching.

    >>> nested_dropout(jax.random.key(0), jnp.ones(4), std=1e-3).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    check_key(key=key)
    check_floating(features=features)
    check_rank("features", features, 1, at_least=True)
    check(jnp.shape(features)[-1] > 0, "features", "got none, takes one or more on the last axis")
    check_positive(std=std)
    x = upcast(features)
    # In float32 whatever the features are, so that a key means the same width.
    index = jnp.arange(1, x.shape[-1] + 1, dtype=jnp.float32)
    kept = 1 + jax.random.categorical(key, -jnp.square((index - mean) / std))
    return restore(jnp.where(index <= kept, x, 0), features)


def select_nested_width(
    features: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    kernel: Float[Array, "features classes"],
    bias: Float[Array, "classes"] | None = None,
    *,
    penalty: float = 1e-5,
) -> tuple[Int[Array, ""], Float[Array, "features"]]:
    """How many of the first features to keep: the number of highest validation accuracy.

    `argmax_k accuracy(first k features) - penalty (k - 1)`, `k = 1..D`.

    Args:
      features: of validation examples [batch, features].
      labels: their classes, from 0 on [batch].
      kernel: the linear classifier [features, classes].
      bias: its offset [classes]; the paper's has none.
      penalty: what decides between equal accuracies, for fewer features.

    Returns:
      The number `k` [] and the accuracy of each number of features [features].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `penalty` is negative.

    Source: Compressing Features for Learning with Noisy Labels, arXiv 2206.13140; `TestNested` in
    `nested/train_resnet.py` of yingyichen-cyy/Nested-Co-teaching, which returns `k - 1`.

    >>> x, kernel = jnp.eye(2), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> width, accuracy = select_nested_width(x, jnp.array([0, 1]), kernel)
    >>> int(width), accuracy.tolist()
    (2, [0.5, 1.0])
    """
    check_floating(features=features, kernel=kernel)
    check_rank("features", features, 2)
    batch, width = jnp.shape(features)
    check(batch > 0 and width > 0, "features", f"got shape {(batch, width)}, takes no zero")
    check_integer(labels=labels)
    check_shape("labels", labels, (batch,), "[batch], one a row of features")
    check_shape("kernel", kernel, (width, None), "[features, classes]")
    check_range("penalty", penalty, 0)
    x, w = upcast(features, kernel)
    if bias is None:
        start = jnp.zeros((x.shape[0], w.shape[1]), x.dtype)
    else:
        check_floating(bias=bias)
        check_shape("bias", bias, (jnp.shape(kernel)[1],), "[classes], as kernel")
        start = jnp.broadcast_to(jnp.asarray(bias, x.dtype), (x.shape[0], w.shape[1]))

    def add(scores: Array, one: tuple[Array, Array]) -> tuple[Array, Array]:
        column, row = one
        scores = scores + column[:, None] * row
        return scores, jnp.mean(jnp.argmax(scores, -1) == labels, dtype=x.dtype)

    accuracy = jax.lax.scan(add, start, (x.T, w))[1]
    return jnp.argmax(accuracy - penalty * jnp.arange(len(accuracy))) + 1, accuracy


def small_loss_mask(
    losses: Float[Array, "batch"],
    *,
    forget_rate: float | Float[Array, ""] = 0.2,
    axis_name: str | None = None,
) -> Bool[Array, "batch"]:
    """Which examples of a batch to trust: those of the smallest losses.

    `rank_i < floor((1 - forget_rate) B)`. In co-teaching two networks learn each from the examples
    that the other trusts.

    Args:
      losses: one loss an example [batch].
      forget_rate: the share that is left out: 0.2, or 0.3 for Clothing1M.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      True for the trusted examples [batch].

    Raises:
      ValueError: if the shape or dtype is wrong or `forget_rate` is outside [0, 1].

    Source: Compressing Features for Learning with Noisy Labels, arXiv 2206.13140, its second stage;
    Co-teaching, arXiv 1804.06872, Algorithm 1; `co_teaching_resnet/loss.py` of
    yingyichen-cyy/Nested-Co-teaching.

    >>> small_loss_mask(jnp.array([3.0, 1.0, 2.0, 4.0]), forget_rate=0.5).tolist()
    [False, True, True, False]
    """
    check_floating(losses=losses)
    check_rank("losses", losses, 1)
    check_range("forget_rate", forget_rate, 0, 1)
    batch = jnp.shape(losses)[0]
    order = jnp.argsort(everyone(jnp.asarray(losses), axis_name))
    total = len(order)
    # A hair is added, so that (1 - 0.2) * 5 counts as four in every precision.
    kept = jnp.floor((1 - jnp.asarray(forget_rate, jnp.float32)) * total + 1e-4)
    rank = jnp.zeros(total, order.dtype).at[order].set(jnp.arange(total, dtype=order.dtype))
    mine = rank[jnp.arange(batch) + rows_before(batch, axis_name)]
    return mine < kept.astype(order.dtype)
