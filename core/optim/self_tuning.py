"""Self-tuning networks: hyper-parameters learnt through weights that respond to them.

The weights are a function of the hyper-parameters, `w(h)`, fitted on the training loss around the
present `h`; the validation loss of `w(h)` then has a gradient in `h`. `papyrax.layers.HyperLinear`
and `HyperConv` are such weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    upcast,
)


def constrain_hyperparameters(
    unconstrained: Float[Array, "... hyper"],
    low: Any = -np.inf,
    high: Any = np.inf,
) -> Float[Array, "... hyper"]:
    """Hyper-parameters in their ranges, from numbers that can be anything.

        low + (high - low) sigmoid(h),  low + softplus(h),  high - softplus(h)  or  h

    by which ends of the range are finite. For whole numbers take `jnp.floor` of the result: the
    method needs no derivative of it.

    Args:
      unconstrained: h [..., hyper].
      low: the lower ends, a number or a sequence [hyper]; -inf for none.
      high: the upper ends.

    Returns:
      The hyper-parameters [..., hyper].

    Raises:
      ValueError: if a shape or dtype does not fit or a range is empty.

    Source: Self-Tuning Networks, arXiv 1903.03088, section 3;
    asteroidhouse/self-tuning-networks stn_utils/hyperparameter.py (`hparam_transform`).

    >>> constrain_hyperparameters(jnp.zeros(2), low=[0.0, 1.0], high=[0.5, 3.0]).tolist()
    [0.25, 2.0]
    """
    check_floating(unconstrained=unconstrained)
    check_rank("unconstrained", unconstrained, 1, at_least=True)
    width = jnp.shape(unconstrained)[-1]
    ends = {}
    for name, end in (("low", low), ("high", high)):
        end = np.asarray(end, float)
        check(end.shape in ((), (width,)), name, f"got shape {end.shape}, takes () or ({width},)")
        check(not np.isnan(end).any(), name, "got NaN, takes numbers or infinities")
        ends[name] = np.broadcast_to(end, (width,))
    a, b = ends["low"], ends["high"]
    check(bool((a < b).all()), "high", f"got {high} with low={low}, takes more than low")
    below, above = np.isfinite(a), np.isfinite(b)
    h = upcast(unconstrained)
    low_, high_ = (jnp.asarray(np.where(np.isfinite(e), e, 0), h.dtype) for e in (a, b))
    one_sided = jnp.where(below, low_ + jax.nn.softplus(h), high_ - jax.nn.softplus(h))
    both = low_ + (high_ - low_) * jax.nn.sigmoid(h)
    out = jnp.where(below & above, both, jnp.where(below | above, one_sided, h))
    return restore(out, unconstrained)


def perturb_hyperparameters(
    key: Array, hyper: Float[Array, "hyper"], scale: Float[Array, "hyper"], *, draws: int
) -> Float[Array, "draws hyper"]:
    """Hyper-parameters around the present ones, over which the best response is learnt.

        h_i = h + softplus(s) e_i,   e_i ~ N(0, I)

    Args:
      key: a random key [].
      hyper: h, unconstrained [hyper].
      scale: s, the standard deviations before softplus [hyper].
      draws: how many, as a rule one for each example of the batch.

    Returns:
      Perturbed h [draws, hyper].

    Raises:
      ValueError: if a shape or dtype does not fit or `draws` is no count.

    Source: Self-Tuning Networks, arXiv 1903.03088, section 3;
    asteroidhouse/self-tuning-networks stn_utils/hyperparameter.py (`perturb`).

    >>> perturb_hyperparameters(jax.random.key(0), jnp.ones(2), jnp.zeros(2), draws=3).shape
    (3, 2)
    """
    _check_hyper(hyper, scale)
    check_count(draws=draws)
    h, s = upcast(hyper, scale)
    # In float32 whatever the hyper-parameters are, so that a key means the same perturbation.
    noise = jax.random.normal(key, (draws, h.shape[0]), jnp.float32).astype(h.dtype)
    return restore(h + jax.nn.softplus(s) * noise, hyper, scale)


def perturbation_entropy(scale: Float[Array, "hyper"]) -> Float[Array, ""]:
    """Entropy of the perturbations, which a small weight keeps from vanishing.

        sum_j log( softplus(s_j) sqrt(2 pi e) )

    Args:
      scale: s, the standard deviations before softplus [hyper].

    Returns:
      The entropy [].

    Raises:
      ValueError: if the shape or dtype does not fit.

    Source: Self-Tuning Networks, arXiv 1903.03088, section 3 (adjusting the scale);
    asteroidhouse/self-tuning-networks stn_utils/hyperparameter.py (`compute_entropy`).

    >>> round(float(perturbation_entropy(jnp.log(jnp.expm1(jnp.ones(1))))), 4)
    1.4189
    """
    check_floating(scale=scale)
    check_rank("scale", scale, 1)
    s = upcast(scale)
    # log softplus(s) is s to rounding far below zero, where softplus itself underflows.
    low = s < -15
    logs = jnp.where(low, s, jnp.log(jax.nn.softplus(jnp.where(low, 0, s))))
    return restore(jnp.sum(logs + 0.5 * np.log(2 * np.pi * np.e)), scale)


class SelfTuningState(NamedTuple):
    """Where a self-tuning network stands.

    Attributes:
      params: the weights and their response to the hyper-parameters.
      hyper: unconstrained hyper-parameters [hyper].
      scale: standard deviations of their perturbations before softplus [hyper].
      optimizer: state of the optimizer of `params`.
      hyper_optimizer: state of the optimizer of `hyper` (and `scale`).
    """

    params: Any
    hyper: Float[Array, "hyper"]
    scale: Float[Array, "hyper"]
    optimizer: Any
    hyper_optimizer: Any


class SelfTuning(NamedTuple):
    """The functions of `self_tuning`.

    Attributes:
      init: `(params, hyper [hyper], scale=0.5) -> SelfTuningState`.
      train: `(state, key, *args) -> (state, loss [])`, a step of the weights.
      valid: `(state, key, *args) -> (state, loss [])`, a step of the hyper-parameters.
    """

    init: Callable[..., SelfTuningState]
    train: Callable[..., tuple[SelfTuningState, Array]]
    valid: Callable[..., tuple[SelfTuningState, Array]]


def self_tuning(
    train_loss: Callable[..., Any],
    valid_loss: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    hyper_optimizer: optax.GradientTransformation,
    *,
    draws: int,
    tune_scale: bool = True,
    entropy_weight: float = 1e-5,
) -> SelfTuning:
    """Training that tunes its own hyper-parameters by a best response learnt alongside.

        train:  params  <-  descent on  E_e train_loss(params, h + softplus(s) e)
        valid:  h, s    <-  descent on  E_e valid_loss(params, h + softplus(s) e) - kappa entropy(s)

    Both losses depend on h through the weights, `w(h)`; the training loss besides through what h
    regularizes, which the validation loss leaves out. Where w(h) is the best response to h, the
    gradient of the second is the hypergradient of bilevel optimization, without a Hessian. The
    authors take a few epochs of `train` alone, and then two steps of `train` for one of `valid`.

    Args:
      train_loss: `train_loss(params, hyper [draws, hyper], *args) -> [...]`; its mean counts.
      valid_loss: the same for validation, without the regularization.
      optimizer: of the weights; the authors' is SGD with 0.01 and momentum 0.9.
      hyper_optimizer: of the hyper-parameters; the authors' is Adam with 3e-3.
      draws: perturbations a step, as a rule one for each example of the batch.
      tune_scale: learn s too; where not, `valid` does not perturb and s stays.
      entropy_weight: kappa.

    Returns:
      A `SelfTuning` of the functions `init`, `train` and `valid`.

    Raises:
      ValueError: naming the argument that is out of range or does not fit.

    Source: Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured
    Best-Response Functions, arXiv 1903.03088, Algorithm 1; asteroidhouse/self-tuning-networks
    cnn/hypertrain.py, whose trajectory is that here for the same noise.

    >>> bowl = lambda w, h: (w["a"] + w["b"] * h[:, 0] - h[:, 0]) ** 2  # w(h) = h is best
    >>> aim = lambda w, h: (w["a"] + w["b"] * h[:, 0] - 3) ** 2
    >>> tune = self_tuning(bowl, aim, optax.sgd(0.1), optax.sgd(0.1), draws=64, tune_scale=False)
    >>> state = tune.init({"a": jnp.zeros(()), "b": jnp.zeros(())}, jnp.zeros(1))
    >>> step = jax.jit(lambda s, k: tune.valid(tune.train(s, k)[0], k)[0])
    >>> for key in jax.random.split(jax.random.key(0), 500):
    ...     state = step(state, key)
    >>> abs(float(state.hyper[0]) - 3) < 0.2
    True
    """
    check_count(draws=draws)
    check_range("entropy_weight", entropy_weight, 0)

    def init(params: Any, hyper: Any, scale: Any = 0.5) -> SelfTuningState:
        check_floating(hyper=hyper)
        check_rank("hyper", hyper, 1)
        check_positive(scale=scale)
        check(np.ndim(scale) in (0, 1), "scale", f"got shape {np.shape(scale)}, takes () or (n,)")
        hyper = jnp.asarray(hyper)
        raw = jnp.log(jnp.expm1(jnp.asarray(scale, hyper.dtype)))
        raw = jnp.broadcast_to(raw, hyper.shape)
        tuned = (hyper, raw) if tune_scale else (hyper,)
        return SelfTuningState(
            params, hyper, raw, optimizer.init(params), hyper_optimizer.init(tuned)
        )

    def train(state: SelfTuningState, key: Array, *args: Any) -> tuple[SelfTuningState, Array]:
        drawn = perturb_hyperparameters(key, state.hyper, state.scale, draws=draws)
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(train_loss(p, drawn, *args)))(
            state.params
        )
        updates, inner = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, optimizer=inner), loss

    def valid(state: SelfTuningState, key: Array, *args: Any) -> tuple[SelfTuningState, Array]:
        def objective(tuned: tuple[Array, ...]) -> tuple[Array, Array]:
            if tune_scale:
                drawn = perturb_hyperparameters(key, *tuned, draws=draws)
                bonus = entropy_weight * perturbation_entropy(tuned[1])
            else:
                drawn = jnp.broadcast_to(tuned[0], (draws, *tuned[0].shape))
                bonus = jnp.zeros(())
            loss = jnp.mean(valid_loss(state.params, drawn, *args))
            return loss - bonus, loss

        tuned = (state.hyper, state.scale) if tune_scale else (state.hyper,)
        grads, loss = jax.grad(objective, has_aux=True)(tuned)
        updates, inner = hyper_optimizer.update(grads, state.hyper_optimizer, tuned)
        hyper, *scale = optax.apply_updates(tuned, updates)
        state = state._replace(hyper=hyper, hyper_optimizer=inner)
        return (state._replace(scale=scale[0]) if tune_scale else state), loss

    return SelfTuning(init, train, valid)


def _check_hyper(hyper: Any, scale: Any) -> None:
    check_floating(hyper=hyper, scale=scale)
    check_rank("hyper", hyper, 1)
    check_shape("scale", scale, jnp.shape(hyper), "[hyper], as hyper")
