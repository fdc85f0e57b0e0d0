"""SAF and MESA: a smooth trajectory of the outputs instead of SAM's second gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    accumulation_dtype,
    check,
    check_count,
    check_floating,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
)
from .sharpness import log_ratio_kl


class SafState(NamedTuple):
    """The outputs of past epochs, as `saf_init` makes it.

    Attributes:
      logits: a ring of epochs for every example [examples, lag + 1, classes].
    """

    logits: Float[Array, "examples slots classes"]


def trajectory_loss(
    logits: Float[Array, "batch classes"],
    past_logits: Float[Array, "batch classes"],
    *,
    temperature: Any = 5.0,
) -> Float[Array, "batch"]:
    """How far outputs have moved from what they were: the loss of SAF and MESA.

        temperature^2 KL(softmax(past / temperature) || softmax(logits / temperature))

    A sharp minimum is one into which the loss drops fast, so a trajectory that changes its outputs
    slowly ends in a flat one. With the outputs of a moving average of the parameters as
    `past_logits` this is MESA. The gradient with respect to `past_logits` is zero.

    Args:
      logits: outputs of the network [batch, classes].
      past_logits: its outputs some epochs ago, or those of averaged parameters [batch, classes].
      temperature: divides the logits, tau.

    Returns:
      One value per example [batch].

    Raises:
      ValueError: if the arrays are not floats of one shape, or `temperature` is not positive.

    Source: Sharpness-Aware Training for Free, arXiv 2205.14083, equation 7; AngusDujw/SAF
    SAF_train.py and MESA_train.py.

    >>> now, before = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 0.0]])
    >>> trajectory_loss(before, before).tolist()
    [0.0]
    >>> np.asarray(trajectory_loss(now, before, temperature=1.0), float).round(4).tolist()
    [0.4338]
    """
    check_floating(logits=logits, past_logits=past_logits)
    check_rank("logits", logits, 2)
    check_shape("past_logits", past_logits, jnp.shape(logits), "[batch, classes], as logits")
    check_positive(temperature=temperature)
    dtype = accumulation_dtype(logits, past_logits)
    now, past = (jnp.asarray(x, dtype) / temperature for x in (logits, past_logits))
    values = jnp.square(jnp.asarray(temperature, dtype)) * log_ratio_kl(
        jax.lax.stop_gradient(past), now
    )
    return values.astype(jnp.result_type(logits))


def saf_init(examples: int, classes: int, *, lag: int = 3, dtype: Any = jnp.float32) -> SafState:
    """Room for the outputs of the last epochs of every training example.

    Args:
      examples: number of training examples.
      classes: number of classes.
      lag: how many epochs back SAF looks. The authors' code takes 3, its script for ImageNet 2.
      dtype: dtype of what is kept.

    Returns:
      A `SafState` with zeros [examples, lag + 1, classes].

    Raises:
      ValueError: if a number is not a positive integer, or `dtype` is not floating point.

    Source: Sharpness-Aware Training for Free, arXiv 2205.14083, algorithm 1; AngusDujw/SAF
    SAF_train.py (`train_logits`).

    >>> saf_init(50, 10, lag=3).logits.shape
    (50, 4, 10)
    """
    check_count(examples=examples, classes=classes, lag=lag)
    fits = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    check(fits, "dtype", f"got {dtype!r}, takes a floating-point dtype")
    return SafState(jnp.zeros((examples, lag + 1, classes), dtype))


def saf_loss(
    state: SafState,
    logits: Float[Array, "batch classes"],
    index: Int[Array, "batch"],
    epoch: Int[Array, ""],
    *,
    temperature: Any = 5.0,
    weight: Any = 0.3,
    start_epoch: Any = 5,
) -> tuple[Float[Array, "batch"], SafState]:
    """The trajectory loss against the network's own outputs `lag` epochs ago, from memory.

        weight * temperature^2 KL(softmax(past / temperature) || softmax(logits / temperature))

    for epochs after `start_epoch`, zero before; it is added to the loss of the labels. One pass a
    step, like the plain loss; memory of (lag + 1) classes for every example.

    Args:
      state: what `saf_init` or the last call returned.
      logits: outputs of the network [batch, classes].
      index: the number of each example in the training set [batch].
      epoch: the number of the epoch, from 0 []; traced or not.
      temperature: tau of the trajectory loss.
      weight: lambda, the paper's weight of it.
      start_epoch: the last epoch without it, at least `lag` so that there is a past.

    Returns:
      One value per example [batch], and the new state, which remembers these logits.

    Raises:
      ValueError: if shapes or dtypes do not fit, or a hyper-parameter is out of range.

    Source: Sharpness-Aware Training for Free, arXiv 2205.14083, algorithm 1; AngusDujw/SAF
    SAF_train.py and run.sh (the defaults here; 0.16 in the code).

    >>> state = saf_init(2, 2, lag=1)
    >>> index = jnp.array([0, 1])
    >>> options = {"temperature": 1.0, "weight": 1.0, "start_epoch": 0}
    >>> _, state = saf_loss(state, jnp.zeros((2, 2)), index, 0, **options)
    >>> values, state = saf_loss(state, jnp.array([[2.0, 0.0], [0.0, 0.0]]), index, 1, **options)
    >>> np.asarray(values, float).round(4).tolist()
    [0.4338, 0.0]
    """
    check_rank("logits", logits, 2)
    check_floating(logits=logits)
    slots, classes = state.logits.shape[1:]
    check(
        jnp.shape(logits)[1] == classes,
        "logits",
        f"got {jnp.shape(logits)[1]} classes, takes the {classes} of the state",
    )
    check_shape("index", index, (jnp.shape(logits)[0],), "[batch], as logits")
    check_integer(index=index, epoch=epoch)
    check_range("weight", weight, 0)
    check_range("start_epoch", start_epoch, 0)
    kept = jax.lax.stop_gradient(logits).astype(state.logits.dtype)
    memory = state.logits.at[index, epoch % slots].set(kept)
    # lag = slots - 1 epochs ago is one slot ahead.
    past = memory[index, (epoch + 1) % slots].astype(logits.dtype)
    values = weight * trajectory_loss(logits, past, temperature=temperature)
    values = jnp.where(jnp.asarray(epoch) > start_epoch, values, 0).astype(logits.dtype)
    return values, SafState(memory)


def mesa_loss(
    logits: Float[Array, "batch classes"],
    average_logits: Float[Array, "batch classes"],
    *,
    temperature: Any = 5.0,
    weight: Any = 0.8,
) -> Float[Array, "batch"]:
    """MESA: the trajectory loss against the outputs of a moving average of the parameters.

        weight * temperature^2 KL(softmax(average / temperature) || softmax(logits / temperature))

    SAF without its memory, for one more forward pass. The average is
    `optax.incremental_update(params, average, 1 - decay)` after each step, with the authors' decay
    of 0.9998 on ImageNet.

    Args:
      logits: outputs of the network [batch, classes].
      average_logits: outputs of the network with averaged parameters [batch, classes].
      temperature: tau.
      weight: lambda.

    Returns:
      One value per example [batch].

    Raises:
      ValueError: if shapes or dtypes do not fit, or a hyper-parameter is out of range.

    Source: Sharpness-Aware Training for Free, arXiv 2205.14083, section 3.3; AngusDujw/SAF
    MESA_train.py and run.sh.

    >>> mesa_loss(jnp.ones((2, 3)), jnp.zeros((2, 3))).tolist()
    [0.0, 0.0]
    """
    check_floating(average_logits=average_logits)
    check_shape("average_logits", average_logits, jnp.shape(logits), "as logits")
    check_range("weight", weight, 0)
    values = weight * trajectory_loss(logits, average_logits, temperature=temperature)
    return values.astype(jnp.result_type(logits))
