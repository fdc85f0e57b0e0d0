"""Exact SGD on a linear layer under a spherical loss, in time without the number of classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    restore,
    safe_sqrt,
    upcast,
)
from ._linear import AxisName
from .linear_spherical import SphericalLoss
from .spherical import z_loss_of_moments


class FactoredLayer(NamedTuple):
    """The weights `W = B U + 1 s'` of a linear layer, one row a class, and what its losses need.

    Attributes:
      rows: `B`, of which a step changes those of the labels [classes, features].
      mixing: `U`, what all rows are multiplied by [features, features].
      inverse: that of `U` [features, features].
      shift: `s`, what is added to all rows [features].
      mean: the mean row of `W` [features].
      gram: `sum_k (w_k - mean) (w_k - mean)'` over its rows [features, features].
    """

    rows: Float[Array, "classes features"]
    mixing: Float[Array, "features features"]
    inverse: Float[Array, "features features"]
    shift: Float[Array, "features"]
    mean: Float[Array, "features"]
    gram: Float[Array, "features features"]


def factored_layer_init(
    kernel: Float[Array, "features classes"], *, axis_name: AxisName = None
) -> FactoredLayer:
    """A linear layer in the factors that `factored_spherical_step` updates.

    `W = B U + 1 s'` with `U = I` and `s = 0`, the mean of its rows and their Gram matrix around it.
    A bias is the weight of a feature that is always one.

    Args:
      kernel: weights [features, classes]; inside a `shard_map`, this device's classes.
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.

    Returns:
      A `FactoredLayer` in float32, or float64 for that. All but its rows is small and, over the
      devices, the same.

    Raises:
      ValueError: if the shape or dtype does not fit.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, the factors and the matrix `Q`, which is centred here.

    >>> state = factored_layer_init(jnp.ones((3, 50_000)))
    >>> bool(jnp.all(state.gram == 0)), state.mean.tolist()
    (True, [1.0, 1.0, 1.0])
    """
    check_floating(kernel=kernel)
    check_rank("kernel", kernel, 2)
    check(np.shape(kernel)[1] > 0, "kernel", "got no classes, takes one or more")
    rows = upcast(kernel).T
    classes, features = rows.shape
    mean = jnp.sum(rows, 0)
    if axis_name is not None:
        mean = jax.lax.psum(mean, axis_name)
        classes = classes * jax.lax.axis_size(axis_name)
    mean = mean / classes
    centred = rows - mean
    gram = jnp.matmul(centred.T, centred, precision="highest")
    if axis_name is not None:
        gram = jax.lax.psum(gram, axis_name)
    # Two arrays, so that both can be donated.
    mixing, inverse = (jnp.eye(features, dtype=rows.dtype) for _ in range(2))
    return FactoredLayer(rows, mixing, inverse, jnp.zeros_like(mean), mean, gram)


def factored_layer_kernel(state: FactoredLayer) -> Float[Array, "features classes"]:
    """The weights of a factored layer, multiplied out: `W' = U' B' + s 1'`.

    Args:
      state: the layer.

    Returns:
      Weights [features, classes]; inside a `shard_map`, this device's classes. Their cost grows
      with the number of classes.

    Raises:
      ValueError: if `state` is not a `FactoredLayer`.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, `W = V U`.

    >>> factored_layer_kernel(factored_layer_init(jnp.array([[1.0, 2.0]]))).tolist()
    [[1.0, 2.0]]
    """
    _check_state(state)
    product = jnp.matmul(state.mixing.T, state.rows.T, precision="highest")
    return product + state.shift[:, None]


def factored_layer_condition(state: FactoredLayer) -> Float[Array, ""]:
    """How unevenly the steps so far have stretched the layer: the condition number of `U`.

    `|U| |U^-1| / d` in Frobenius norms, which is one for `U = I`. Rounding errors of the steps grow
    with it; above some hundreds in float32, `factored_layer_refresh` is due.

    Args:
      state: the layer.

    Returns:
      The number [], one or more.

    Raises:
      ValueError: if `state` is not a `FactoredLayer`.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, numerical stabilization, which looks at singular values of `U`.

    >>> float(factored_layer_condition(factored_layer_init(jnp.ones((3, 5)))))
    1.0
    """
    _check_state(state)
    both = (safe_sqrt(jnp.sum(jnp.square(a))) for a in (state.mixing, state.inverse))
    return next(both) * next(both) / state.mixing.shape[0]


def factored_layer_refresh(state: FactoredLayer, *, axis_name: AxisName = None) -> FactoredLayer:
    """The same layer with `U = I`: its factors multiplied out, mean and Gram matrix summed anew.

    `B <- B U + 1 s'`. It takes `O(classes features^2)`; every `classes / batch` steps or so it adds
    no more than the steps themselves take.

    Args:
      state: the layer.
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.

    Returns:
      A `FactoredLayer` of the same weights, without the rounding errors of its inverse, mean and
      Gram matrix.

    Raises:
      ValueError: if `state` is not a `FactoredLayer`.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, numerical stabilization; there one singular value of `U` at a time is
    brought back to one, here all are.

    >>> state = factored_layer_init(jnp.ones((3, 5)))
    >>> state = factored_layer_refresh(state._replace(mixing=2 * state.mixing))
    >>> state.mean.tolist()
    [2.0, 2.0, 2.0]
    """
    return factored_layer_init(factored_layer_kernel(state), axis_name=axis_name)


def factored_spherical_step(
    state: FactoredLayer,
    hidden: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    *,
    learning_rate: float | Float[Array, ""],
    loss: SphericalLoss = z_loss_of_moments,
    axis_name: AxisName = None,
) -> tuple[Float[Array, "batch"], Float[Array, "batch features"], FactoredLayer]:
    """Losses, their gradient by the inputs, and a step of SGD by the weights, for any vocabulary.

    For the outputs `o = W h` a spherical loss depends on their mean `h' w` with the mean row `w`,
    their variance `h' Q h / K` with the centred Gram matrix `Q`, and the label's output. With `a`,
    `b` and `c` its derivatives by the three, the gradient by `W` is

        1 sum_i (a_i - 2 b_i h_i' w) h_i' / K  +  W sum_i 2 b_i h_i h_i' / K  +  sum_i c_i e_y h_i',

    a vector added to all rows, a matrix that multiplies all rows, and as many rows as examples. The
    step leaves `W = B U + 1 s'` in its factors: `s` takes the first, `U` the second, and the rows
    of the labels in `B` the third, times the inverse of the new `U`, which Woodbury's formula
    gives. `w` and `Q` follow. Nothing is approximated, and all of it takes `O(batch features^2)`
    for batches up to the number of features (beyond, `O(features^3)` more), if the old state is
    donated to the jitted step.

    The batch's loss is the mean of its losses. Where `2 learning_rate b_i |h_i|^2 / K` reaches one,
    `U` becomes singular; smaller steps, `factored_layer_condition` and `factored_layer_refresh`
    keep it from that. An optimizer with a memory of each weight has no such step: for Adam take
    `linear_spherical_loss`.

    Args:
      state: the layer.
      hidden: its inputs `h` [batch, features].
      labels: the right class of each example [batch], from 0 on, counted over all devices.
      learning_rate: of the weights [].
      loss: the member of the family, as in `linear_spherical_loss`.
      axis_name: the mesh axis, or axes, over which the rows are split; None for one device. The
        batch is the same on all.

    Returns:
      One loss an example [batch], the gradient of their mean by `hidden` [batch, features] at the
      old weights, and the layer after the step.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, for the squared error, one example and minibatches; An Exploration of
    Softmax Alternatives Belonging to the Spherical Loss Family, arXiv 1511.05042, for the family.
    There `Q` is not centred and the sum of the rows is kept for it. The steps are those of the
    C++ code of pascal20100/factored_output_layer.

    >>> state = factored_layer_init(jnp.zeros((3, 50_000)).at[:, 7].set(1.0))
    >>> h, y = jnp.ones((2, 3)), jnp.array([7, 8])
    >>> loss, gradient, state = factored_spherical_step(state, h, y, learning_rate=0.1)
    >>> np.asarray(loss, float).round(3)
    array([0.   , 0.695])
    """
    _check_state(state)
    check_floating(hidden=hidden)
    check_shape("hidden", hidden, (None, state.rows.shape[1]), "[batch, features], as state")
    check_integer(labels=labels)
    check_shape("labels", labels, np.shape(hidden)[:1], "[batch], one a row of hidden")
    check(callable(loss), "loss", f"got {loss!r}, takes a function of the moments")
    with jax.default_matmul_precision("highest"):
        return _step(state, hidden, jnp.asarray(labels), learning_rate, loss, axis_name)


def _check_state(state: FactoredLayer) -> None:
    check(
        isinstance(state, FactoredLayer),
        "state",
        f"got {type(state).__name__}, takes a FactoredLayer",
    )
    check_rank("state", state.rows, 2)


def _step(
    state: FactoredLayer,
    hidden: Array,
    labels: Array,
    learning_rate: float | Array,
    loss: SphericalLoss,
    axis_name: AxisName,
) -> tuple[Array, Array, FactoredLayer]:
    rows, mixing, inverse, shift, w, gram = state
    h = hidden.astype(rows.dtype)
    batch, (local, features) = h.shape[0], rows.shape
    classes = local if axis_name is None else local * jax.lax.axis_size(axis_name)
    rate = jnp.asarray(learning_rate, rows.dtype) / batch

    # The labels' rows of W, which another device may hold.
    y = labels if axis_name is None else labels - jax.lax.axis_index(axis_name) * local
    here = (y >= 0) & (y < local)
    own = rows.at[jnp.where(here, y, 0)].get(mode="promise_in_bounds") @ mixing + shift
    own = jnp.where(here[:, None], own, 0)
    if axis_name is not None:
        own = jax.lax.psum(own, axis_name)

    spread = h @ gram
    mean, label = h @ w, jnp.sum(h * own, -1)
    variance = jnp.sum(spread * h, -1) / classes
    noise = jnp.finfo(h.dtype).eps * jnp.trace(gram) * jnp.sum(h * h, -1) / classes

    def losses(mean: Array, variance: Array, label: Array) -> tuple[Array, Array]:
        values = loss(mean, jnp.where(variance <= noise, 0, variance), label, classes)
        return jnp.sum(values), values

    (a, b, c), values = jax.grad(losses, (0, 1, 2), has_aux=True)(mean, variance, label)
    gradient = a[:, None] * w + (2 / classes * b)[:, None] * spread + c[:, None] * own

    # W <- W M - 1 r' - E, with M = I - h' b h and c h in the labels' rows of E.
    a, b = rate / classes * a, 2 * rate / classes * b
    c = jnp.where((labels >= 0) & (labels < classes), rate * c, 0)
    r = (a - b * mean) @ h
    change = c[:, None] * h
    s = jnp.sum(change, 0)

    def times_m(v: Array) -> Array:
        """`M v` of a matrix or a vector `v`."""
        return v - h.T @ (b * (h @ v).T).T

    # h M^-1, from the smaller of two systems of equations.
    if batch <= features:
        turned = jnp.linalg.solve(jnp.eye(batch, dtype=h.dtype) - (h @ h.T) * b, h)
    else:
        turned = jnp.linalg.solve(times_m(jnp.eye(features, dtype=h.dtype)), h.T).T
    turned = turned @ inverse
    at = jnp.where(here, y, local)  # a row of another device is dropped
    cross = times_m((own - w).T @ change)
    twice = (labels[:, None] == labels).astype(h.dtype)  # examples of one class share a row
    fresh = change.T @ (twice @ change) - jnp.outer(s, s) / classes
    new = FactoredLayer(
        rows=rows.at[at].add(-c[:, None] * turned, mode="drop"),
        mixing=times_m(mixing.T).T,
        inverse=inverse + h.T @ (b[:, None] * turned),
        shift=times_m(shift) - r,
        mean=times_m(w) - r - s / classes,
        gram=times_m(times_m(gram).T) - cross - cross.T + fresh,
    )
    return restore(values, hidden), restore(gradient / batch, hidden), new
