"""Sophia: momentum divided by the diagonal of the Hessian, each entry clipped."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import Curvature
from ..curvature.trees import is_floating
from ..kernels.hessian_diagonal.reference import moving_average
from ..numerics import accumulation_dtype, check, check_positive, check_range
from .curvature import (
    check_decays,
    check_interval,
    finite_or,
    one_minus_power,
    refreshed,
    resolve,
)
from .decay import decayed_weights

Form = Literal["paper", "levanter", "official"]


class SophiaState(NamedTuple):
    """State of `scale_by_sophia`.

    Attributes:
      count: number of updates so far [].
      refreshes: number of curvature estimates so far [].
      mu: moving average of the gradient, like the parameters.
      nu: moving average of the diagonal, like the parameters.
    """

    count: jax.Array  # type: ignore[assignment]  # tuples have a method of that name
    refreshes: jax.Array
    mu: Any
    nu: Any


def scale_by_sophia(
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = 0.01,
    *,
    clip_threshold: Any = 1.0,
    form: Form = "paper",
    mu_dtype: Any = None,
    nu_dtype: Any = None,
    update_interval: Any = 10,
    seed: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    """Divide the momentum by the diagonal of the Hessian, and clip each entry.

        m <- b1 m + (1 - b1) g                              at every update
        h <- b2 h + (1 - b2) d                              at updates with an estimate d
        update = clip(m / max(gamma h, eps), -clip_threshold, clip_threshold)

    Where the curvature is negative, or not known yet, the update is a sign. The estimate comes as
    `update(..., curvature=)` from `papyrax.curvature.value_grad_and_diag`, meant to be every tenth
    step: with `hutchinson()` it is Sophia-H, with `gnb(...)` Sophia-G; or `update(..., obj_fn=)`
    computes Hutchinson's here. With neither, the last one is kept.

    Args:
      b1: decay of the gradient's average, in [0, 1).
      b2: decay of the diagonal's average, in [0, 1); it has no bias correction.
      eps: least denominator.
      gamma: scale of the curvature, the authors' rho. They tune it so that 10 to 50 percent of the
        entries are not clipped.
      clip_threshold: largest size of an entry; None does not clip.
      form: "paper" is algorithm 3, as above. "levanter" is the form of Levanter and optax: m with
        bias correction, and an estimate counts from the next update on. "official" is that of the
        authors' SophiaG: the denominator is gamma max(h, 0) + eps (there rho B h + 1e-15, where B
        is the number of tokens of a batch, which `gnb` has in its estimate). There an estimate is
        made after a step, at the parameters and for the update of the next one.
      mu_dtype: dtype of m; that of the parameters by default.
      nu_dtype: dtype of h; that of the parameters by default, but float32 for half precision.
      update_interval: with `obj_fn`, the number of updates from one estimate to the next, by a
        `lax.cond`; None estimates at every update, without one.
      seed: seed of the probes for `obj_fn`; the probe of an update depends on it and on the count.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range, or `curvature` where it does not fit.

    Source: Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
    arXiv 2305.14342, algorithm 3; Liuhong99/Sophia sophia.py; stanford-crfm/levanter
    src/levanter/optim/sophia.py; `form` has the differences.

    >>> tx = scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0)
    >>> curvature = papyrax.curvature.Curvature(jnp.array([2.0, 0.1, -3.0]))
    >>> updates, _ = tx.update(jnp.ones(3), tx.init(jnp.ones(3)), curvature=curvature)
    >>> updates.tolist()
    [0.5, 1.0, 1.0]
    """
    check_decays(b1, b2)
    check_range("eps", eps, 0, open_low=True)
    check_range("gamma", gamma, 0, open_low=True)
    if clip_threshold is not None:
        check_positive(clip_threshold=clip_threshold)
    forms = ("paper", "levanter", "official")
    check(form in forms, "form", f"got {form!r}, takes {', '.join(forms)}")
    check_interval(update_interval)

    def init(params: Any) -> SophiaState:
        def zero_nu(p: Any) -> jax.Array:
            dtype = nu_dtype or accumulation_dtype(p)
            return jnp.zeros_like(p, dtype=dtype if is_floating(p) else None)

        def zero_mu(p: Any) -> jax.Array:
            return jnp.zeros_like(p, dtype=mu_dtype if is_floating(p) else None)

        return SophiaState(
            count=jnp.zeros((), jnp.int32),
            refreshes=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(zero_mu, params),
            nu=jax.tree.map(zero_nu, params),
        )

    def mean(decay: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        return moving_average(decay, old, new) if is_floating(old) else old

    def update(
        updates: Any,
        state: SophiaState,
        params: Any = None,
        *,
        curvature: Curvature | None = None,
        obj_fn: Callable[[Any], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[Any, SophiaState]:
        del extra_args  # they are for other transformations
        curvature = resolve(
            updates=updates,
            params=params,
            curvature=curvature,
            obj_fn=obj_fn,
            seed=seed,
            count=state.count,
            update_interval=update_interval,
        )
        count = optax.safe_increment(state.count)
        nu, refreshes = state.nu, state.refreshes
        if curvature.diag is not None:
            average = jax.tree.map(lambda h, d: finite_or(mean(b2, h, d), h), nu, curvature.diag)
            new = (average, optax.safe_increment(refreshes))
            nu, refreshes = refreshed(curvature, new, (nu, refreshes))

        def direction(g: jax.Array, m: jax.Array, h: jax.Array) -> jax.Array:
            if not is_floating(g):
                return g
            wide = accumulation_dtype(g, m, h)
            m, h = m.astype(wide), h.astype(wide)
            if form == "levanter":
                m = m / one_minus_power(b1, count, wide)
            if form == "official":
                denominator = gamma * jnp.maximum(h, 0) + eps
            else:
                denominator = jnp.maximum(gamma * h, eps)
            step = m / denominator
            if clip_threshold is not None:
                step = jnp.clip(step, -clip_threshold, clip_threshold)
            return step.astype(g.dtype)

        mu = jax.tree.map(lambda m, g: mean(b1, m, g), state.mu, updates)
        used = state.nu if form == "levanter" else nu
        directions = jax.tree.map(direction, updates, mu, used)
        return directions, SophiaState(count, refreshes, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def sophia_h(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = 0.01,
    *,
    weight_decay: Any = 0.1,
    mask: Any = None,
    clip_threshold: Any = 1.0,
    form: Form = "paper",
    mu_dtype: Any = None,
    nu_dtype: Any = None,
    update_interval: Any = 10,
    seed: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-H: Sophia with Hutchinson's estimate of the diagonal of the Hessian.

        p <- p - learning_rate * (update + weight_decay * p)

    with the update of `scale_by_sophia`. With an estimate every tenth step:

        f = papyrax.curvature.value_grad_and_diag(loss)
        value, grads, curvature = f(params, batch, key=key, refresh=step % 10 == 0)
        updates, state = tx.update(grads, state, params, curvature=curvature)

    Args:
      learning_rate: a number or a schedule. Clipped entries move by exactly this much.
      b1: see `scale_by_sophia`, as the others below.
      b2: decay of the diagonal's average.
      eps: least denominator.
      gamma: scale of the curvature.
      weight_decay: decoupled decay, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools or a function of the parameters, as in
        `optax.add_decayed_weights`.
      clip_threshold: largest size of an entry of the update.
      form: "paper", "levanter" or "official".
      mu_dtype: dtype of the gradient's average.
      nu_dtype: dtype of the diagonal's average.
      update_interval: interval of the estimates with `obj_fn`.
      seed: seed of the probes for `obj_fn`.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
    arXiv 2305.14342, algorithms 1 and 3; stanford-crfm/levanter src/levanter/optim/sophia.py.

    >>> f = papyrax.curvature.value_grad_and_diag(lambda p: jnp.sum(p**2) + jnp.sum(jnp.cos(p)))
    >>> tx, params = sophia_h(0.1, weight_decay=0.0), jnp.array([3.0, 2.0])
    >>> value, grads, curvature = f(params, key=jax.random.key(0))
    >>> updates, _ = tx.update(grads, tx.init(params), params, curvature=curvature)
    >>> np.asarray(updates, float).round(3)
    array([-0.1, -0.1])
    """
    return _sophia(
        learning_rate,
        weight_decay,
        mask,
        b1=b1,
        b2=b2,
        eps=eps,
        gamma=gamma,
        clip_threshold=clip_threshold,
        form=form,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        update_interval=update_interval,
        seed=seed,
    )


def sophia_g(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = 0.05,
    *,
    weight_decay: Any = 0.1,
    mask: Any = None,
    clip_threshold: Any = 1.0,
    form: Form = "paper",
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-G: Sophia with the Gauss-Newton-Bartlett estimate of the diagonal.

        p <- p - learning_rate * (update + weight_decay * p)

    with the update of `scale_by_sophia`. With an estimate every tenth step, from the model's
    outputs and the loss of them:

        f = papyrax.curvature.value_grad_and_diag(logits, estimator=papyrax.curvature.gnb(loss))
        value, grads, curvature = f(params, x, labels, key=key, refresh=step % 10 == 0)
        updates, state = tx.update(grads, state, params, curvature=curvature)

    The authors' script is form="official", eps=1e-15, b1=0.965 and gnb(loss, clip_norm=1.0), with
    its first estimate at step 10 instead of 0.

    Args:
      learning_rate: a number or a schedule. Clipped entries move by exactly this much.
      b1: see `scale_by_sophia`, as the others below.
      b2: decay of the diagonal's average.
      eps: least denominator.
      gamma: scale of the curvature.
      weight_decay: decoupled decay, multiplied by the learning rate.
      mask: which leaves decay: a tree of bools or a function of the parameters, as in
        `optax.add_decayed_weights`.
      clip_threshold: largest size of an entry of the update.
      form: "paper", "levanter" or "official".
      mu_dtype: dtype of the gradient's average.
      nu_dtype: dtype of the diagonal's average.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
    arXiv 2305.14342, algorithms 2 and 3; Liuhong99/Sophia sophia.py, whose trajectory is that of
    form="official", and train_sophiag.py.

    >>> tx, params = sophia_g(0.1), jnp.ones(2)
    >>> curvature = papyrax.curvature.Curvature(jnp.array([40.0, 0.0]))
    >>> updates, _ = tx.update(params, tx.init(params), params, curvature=curvature)
    >>> np.asarray(updates, float).round(3)
    array([-0.11, -0.11])
    """
    return _sophia(
        learning_rate,
        weight_decay,
        mask,
        b1=b1,
        b2=b2,
        eps=eps,
        gamma=gamma,
        clip_threshold=clip_threshold,
        form=form,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )


def _sophia(
    learning_rate: optax.ScalarOrSchedule, weight_decay: Any, mask: Any, **rule: Any
) -> optax.GradientTransformationExtraArgs:
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("weight_decay", weight_decay, 0)
    decay = decayed_weights(weight_decay, mask)
    return optax.chain(scale_by_sophia(**rule), decay, optax.scale_by_learning_rate(learning_rate))
