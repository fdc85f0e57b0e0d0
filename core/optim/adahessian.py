"""AdaHessian: Adam's second moment made of the diagonal of the Hessian instead of the gradient."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import Curvature
from ..curvature.trees import is_floating
from ..kernels.hessian_diagonal.reference import direction, moving_average, second_moment
from ..numerics import accumulation_dtype, check, check_range
from .curvature import check_decays, check_interval, one_minus_power, refreshed, resolve
from .decay import decayed_weights

Average = Literal["spatial", "none"] | int | Callable[[tuple[int, ...]], tuple[int, ...]]
AverageOf = Literal["abs", "signed"]


class AdahessianState(NamedTuple):
    """State of `scale_by_adahessian`.

    Attributes:
      count: number of updates so far [].
      refreshes: number of curvature estimates so far [].
      mu: moving average of the gradient, like the parameters.
      nu: moving average of the squared averaged diagonal, at its averaged shape.
    """

    count: jax.Array  # type: ignore[assignment]  # tuples have a method of that name
    refreshes: jax.Array
    mu: Any
    nu: Any


class _Averaging:
    """Averages a leaf over its spatial axes or over blocks, and spreads the averages again."""

    def __init__(self, average: Average):
        known = callable(average) or average in ("spatial", "none")
        block = isinstance(average, int) and not isinstance(average, bool) and average >= 1
        check(
            known or block,
            "average",
            f"got {average!r}, takes 'spatial', 'none', a block length, or a function of a shape "
            "(inject_hyperparams needs static_args=('average',) for the last two)",
        )
        self._average = average

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if callable(self._average):
            return tuple(self._average(shape))
        # JAX kernels end in (inputs, outputs), so the axes of the window come first.
        return tuple(range(len(shape) - 2)) if self._average == "spatial" else ()

    def _block(self, x: Any) -> int:
        length = self._average if isinstance(self._average, int) and x.ndim == 2 else 1
        check(
            x.size % length == 0,
            "average",
            f"got blocks of {length} for a leaf of shape {x.shape}, takes a divisor of its size "
            "(optax.partition gives leaves averages of their own)",
        )
        return length

    def reduce(self, x: jax.Array) -> jax.Array:
        if (length := self._block(x)) > 1:
            return jnp.mean(x.reshape(-1, length), axis=1)
        axes = self._axes(x.shape)
        return jnp.mean(x, axis=axes, keepdims=True) if axes else x

    def spread(self, averages: jax.Array, like: jax.Array) -> jax.Array:
        if (length := self._block(like)) > 1:
            return jnp.repeat(averages, length).reshape(like.shape)
        return averages  # of length one along the averaged axes: it broadcasts


def scale_by_adahessian(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    *,
    average: Average = "spatial",
    average_of: AverageOf = "abs",
    min_curvature: Any = 0.0,
    relative_floor: Any = 0.0,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
    update_interval: Any = None,
    seed: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    """Rescale gradients by a moving average of the diagonal of the Hessian.

        d = z * (H z)                                        (the estimate, z random signs)
        s = mean of |d| over the spatial axes of a convolution kernel, |d| for other leaves
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) s^2
        update = (m / (1 - b1^t)) / ((v / (1 - b2^r))^(k/2) + eps)

    The estimate comes as `update(..., curvature=)` from `papyrax.curvature.value_grad_and_diag`,
    which shares its pass with the gradient; or `update(..., obj_fn=)` computes it here, in a
    second pass; with neither, the last estimate is kept: a lazy Hessian. r counts the estimates, so
    that v is unbiased whatever their interval; until the first one the denominator is 1, which is
    momentum. Entries of an estimate that are not finite keep their last value.

    Args:
      b1: decay of the gradient's average, in [0, 1).
      b2: decay of the squared diagonal's average, in [0, 1).
      eps: added to the denominator, after the power.
      hessian_power: k in [0, 1]; 1 divides by the curvature, 0 is momentum with a fixed step.
      average: "spatial" averages leaves of three axes and more over all but the last two, the
        window of kernels in JAX's layout [..., in, out]; "none" averages nothing; a block length
        averages leaves of two axes over consecutive blocks of the flattened leaf, as the authors'
        code for transformers does; a function maps a shape to the axes to average over.
      average_of: "abs" averages magnitudes, as the authors' code does; "signed" averages the
        signed diagonal, as the paper's text has it, and so lets errors of the estimate cancel.
      min_curvature: the root of v is at least this. A probe can happen to hide a curvature, and the
        update is then divided by eps alone.
      relative_floor: the root of v is at least this times its mean over the leaf.
      mu_dtype: dtype of m; that of the parameters by default.
      nu_dtype: dtype of v; that of the parameters by default, but float32 for half precision, in
        which an average of decay 0.999 would stand still.
      update_interval: with `obj_fn`, the number of updates from one estimate to the next, by a
        `lax.cond`; None estimates at every update, without one.
      seed: seed of the probes for `obj_fn`; the probe of an update depends on it and on the count.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range, or `curvature` where it does not fit.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    algorithm 1; amirgholami/adahessian image_classification/optim_adahessian.py (averages
    magnitudes, no rule for kernels of three axes), transformer/fairseq/optim/adahessian.py (blocks)
    and instruction/adahessian.py (by default rows of matrices as well: a function of the shape),
    whose trajectories are those here.

    >>> tx = scale_by_adahessian(b1=0.0, b2=0.0, eps=0.0)
    >>> curvature = papyrax.curvature.Curvature(jnp.array([2.0, -4.0]))
    >>> updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), curvature=curvature)
    >>> updates.tolist()
    [0.5, 0.25]
    """
    check_decays(b1, b2)
    check_range("eps", eps, 0)
    check_range("hessian_power", hessian_power, 0, 1)
    check_range("min_curvature", min_curvature, 0)
    check_range("relative_floor", relative_floor, 0)
    check_interval(update_interval)
    check(
        average_of in ("abs", "signed"),
        "average_of",
        f"got {average_of!r}, takes 'abs' or 'signed'",
    )
    averaging = _Averaging(average)

    def init(params: Any) -> AdahessianState:
        def zero_nu(p: Any) -> jax.Array:
            if not is_floating(p):
                return jnp.zeros_like(p)
            return averaging.reduce(jnp.zeros_like(p, dtype=nu_dtype or accumulation_dtype(p)))

        return AdahessianState(
            count=jnp.zeros((), jnp.int32),
            refreshes=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(
                lambda p: jnp.zeros_like(p, dtype=mu_dtype if is_floating(p) else None), params
            ),
            nu=jax.tree.map(zero_nu, params),
        )

    def squares(diag: jax.Array, nu: jax.Array) -> jax.Array:
        if not is_floating(nu):
            return nu
        diag = diag.astype(accumulation_dtype(diag, nu))
        s = averaging.reduce(jnp.abs(diag) if average_of == "abs" else diag)
        return second_moment(b2, nu, s)

    def update(
        updates: Any,
        state: AdahessianState,
        params: Any = None,
        *,
        curvature: Curvature | None = None,
        obj_fn: Callable[[Any], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[Any, AdahessianState]:
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
            new = (jax.tree.map(squares, curvature.diag, nu), optax.safe_increment(refreshes))
            nu, refreshes = refreshed(curvature, new, (nu, refreshes))

        def average_gradient(g: jax.Array, m: jax.Array) -> jax.Array:
            return moving_average(b1, m, g) if is_floating(m) else m

        def rescale(g: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            if not is_floating(g):
                return g
            wide = accumulation_dtype(g, m, v)
            c1 = one_minus_power(b1, count, wide)
            c2 = one_minus_power(b2, jnp.maximum(refreshes, 1), wide)
            root = jnp.sqrt(v.astype(wide) / c2)
            floor = min_curvature
            if not (isinstance(relative_floor, int | float) and relative_floor == 0):
                # A reduction: the leaf would be read twice.
                floor = jnp.maximum(floor, relative_floor * jnp.mean(root))
            root = averaging.spread(jnp.maximum(root, floor), g)
            known = refreshes > 0
            return direction(m.astype(wide), root, c1, known, eps, hessian_power).astype(g.dtype)

        mu = jax.tree.map(average_gradient, updates, state.mu)
        directions = jax.tree.map(rescale, updates, mu, nu)
        return directions, AdahessianState(count, refreshes, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def adahessian(
    learning_rate: optax.ScalarOrSchedule = 0.15,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    *,
    weight_decay: Any = 0.0,
    mask: Any = None,
    average: Average = "spatial",
    average_of: AverageOf = "abs",
    min_curvature: Any = 0.0,
    relative_floor: Any = 0.0,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
    update_interval: Any = None,
    seed: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian: gradient descent scaled by the diagonal of the Hessian, with decoupled decay.

        p <- p - learning_rate * (update + weight_decay * p)

    with the update of `scale_by_adahessian`. One pass a step gives everything it needs:

        f = papyrax.curvature.value_grad_and_diag(loss)
        value, grads, curvature = f(params, batch, key=key)
        updates, state = tx.update(grads, state, params, curvature=curvature)

    Args:
      learning_rate: a number or a schedule; 0.15 is the authors' for images.
      b1: see `scale_by_adahessian`, as the others below.
      b2: decay of the squared diagonal's average.
      eps: added to the denominator.
      hessian_power: power of the curvature that is divided by.
      weight_decay: decoupled decay, multiplied by the learning rate. The authors' script divides
        the decay that it is given by the initial learning rate first.
      mask: which leaves decay: a tree of bools or a function of the parameters, as in
        `optax.add_decayed_weights`.
      average: what the diagonal is averaged over.
      average_of: "abs" or "signed".
      min_curvature: floor of the root mean square curvature.
      relative_floor: floor relative to its mean over the leaf.
      mu_dtype: dtype of the gradient's average.
      nu_dtype: dtype of the squared diagonal's average.
      update_interval: interval of the estimates with `obj_fn`.
      seed: seed of the probes for `obj_fn`.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    algorithm 1; amirgholami/adahessian image_classification/optim_adahessian.py.

    >>> loss = lambda p: p[0] ** 2 + 50 * p[1] ** 2
    >>> f = papyrax.curvature.value_grad_and_diag(loss)
    >>> tx, params = adahessian(1.0, b1=0.0, b2=0.0, eps=0.0), jnp.array([3.0, 1.0])
    >>> value, grads, curvature = f(params, key=jax.random.key(0))
    >>> updates, state = tx.update(grads, tx.init(params), params, curvature=curvature)
    >>> optax.apply_updates(params, updates).tolist()
    [0.0, 0.0]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("weight_decay", weight_decay, 0)
    rule = scale_by_adahessian(
        b1=b1,
        b2=b2,
        eps=eps,
        hessian_power=hessian_power,
        average=average,
        average_of=average_of,
        min_curvature=min_curvature,
        relative_floor=relative_floor,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        update_interval=update_interval,
        seed=seed,
    )
    decay = decayed_weights(weight_decay, mask)
    return optax.chain(rule, decay, optax.scale_by_learning_rate(learning_rate))
