"""M-FAC: natural gradients with the empirical Fisher matrix of the last gradients."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..curvature.inverse_fisher import HIGHEST, ridge_cholesky
from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check, check_count, check_positive, check_range
from .decay import decayed_weights, on_floats

Blocks = Literal["all", "leaf"]


class MFacState(NamedTuple):
    """State of `scale_by_m_fac`.

    Attributes:
      count: number of updates so far [].
      buffer: the last gradients, leaf by leaf [window, ...]; not in order, for none is needed.
      gram: their inner products [window, window], or a tree of such with blocks="leaf".
    """

    count: jax.Array  # type: ignore[assignment]  # tuples have a method of that name
    buffer: Any
    gram: Any


def _inner_products(
    buffer: Float[Array, "window ..."], gradient: Float[Array, "..."]
) -> Float[Array, "window"]:
    """Products of every gradient of a leaf's buffer with one; no reshape, so shards stay put."""
    axes = tuple(range(1, buffer.ndim)), tuple(range(gradient.ndim))
    wide = accumulation_dtype(buffer)
    return jnp.tensordot(
        buffer, gradient, axes, precision=HIGHEST, preferred_element_type=wide
    ).astype(wide)


def _coefficients(
    gram: Float[Array, "window window"], slot: jax.Array, damping: Any
) -> Float[Array, "window"]:
    """Coefficients c with F^-1 g = G'c for the gradient g in row `slot` of G.

    As g = G'e, the Woodbury identity (g - G'A^-1 G g) / damping with A = m damping I + G G' is
    m G'A^-1 e: without the cancellation and without another product with G.
    """
    m = gram.shape[-1]
    factor, _ = ridge_cholesky(gram, m * jnp.asarray(damping, gram.dtype))
    unit = jnp.zeros(m, gram.dtype).at[slot].set(1)
    return m * jax.scipy.linalg.cho_solve((factor, True), unit)


def scale_by_m_fac(
    damping: Any = 1e-5,
    *,
    window: int = 1024,
    blocks: Blocks = "all",
    buffer_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiply the gradient by the inverse empirical Fisher matrix of the last gradients.

        F = damping I + 1/m sum_i g_i g_i',  over the last m = window gradients and zeros before
        update = F^-1 g,  the newest gradient g being one of them

    The dynamic M-FAC. With the gradients as the rows of G and S = G G',
    `F^-1 g = m G' (m damping I + S)^-1 e`, where e is the unit vector of g's row: a step is one
    product of G with g for the new row of S, one Cholesky factor of m x m numbers, and one product
    of G with a vector. No matrix larger than the buffer [window, parameters] exists.

    The buffer follows the parameters leaf by leaf, so that sharded parameters give a buffer sharded
    in the same way, of which only `window` numbers a product cross devices. Gradients with entries
    that are not finite would stay in it for `window` steps: keep them out with
    `optax.apply_if_finite`.

    Args:
      damping: lambda.
      window: m, the number of gradients kept; memory is m times that of the parameters.
      blocks: "all" is one Fisher matrix for all parameters, as the authors have it; "leaf" is one
        for every leaf, its blocks on the diagonal, which needs no product across leaves.
      buffer_dtype: dtype of the buffer, such as bfloat16 for half of the memory; that of the
        parameters by default. F is then the Fisher matrix of the rounded gradients, and the update
        that of the rounded gradient. Inner products are accumulated in float32 or wider.

    Returns:
      A `GradientTransformationExtraArgs`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 3.2; IST-DASLab/M-FAC optim.py (elimination without pivoting in place
    of Cholesky's, equal up to rounding; there `window` is a multiple of 32 up to 1024).

    >>> tx = scale_by_m_fac(1.0, window=2)
    >>> params, g = jnp.zeros(2), jnp.array([2.0, 0.0])
    >>> updates, state = tx.update(g, tx.init(params))  # F = diag(1 + 4 / 2, 1)
    >>> np.asarray(updates, float).round(4).tolist()
    [0.6667, 0.0]
    """
    check_positive(damping=damping)
    check_count(window=window)
    check(blocks in ("all", "leaf"), "blocks", f"got {blocks!r}, takes 'all' or 'leaf'")
    fits = buffer_dtype is None or jnp.issubdtype(jnp.dtype(buffer_dtype), jnp.floating)
    check(fits, "buffer_dtype", f"got {buffer_dtype!r}, takes None or a floating-point dtype")

    def init(params: Any) -> MFacState:
        def empty(p: Any) -> jax.Array:
            if not is_floating(p):
                return jnp.zeros_like(p)
            zeros = jnp.zeros_like(p, dtype=buffer_dtype)
            return jnp.broadcast_to(zeros, (window, *zeros.shape))

        buffer = jax.tree.map(empty, params)

        def gram(*leaves: jax.Array) -> jax.Array:
            return jnp.zeros((window, window), accumulation_dtype(*leaves))

        floats = [x for x in jax.tree.leaves(buffer) if is_floating(x)]
        grams = gram(*floats) if blocks == "all" else jax.tree.map(gram, buffer)
        return MFacState(jnp.zeros((), jnp.int32), buffer, grams)

    def update(
        updates: Any, state: MFacState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, MFacState]:
        del params, extra_args
        slot = state.count % window

        def insert(g: jax.Array, rows: jax.Array) -> jax.Array:
            return rows.at[slot].set(g.astype(rows.dtype)) if is_floating(rows) else rows

        buffer = jax.tree.map(insert, updates, state.buffer)

        def row(rows: jax.Array, gram: jax.Array) -> jax.Array:
            if not is_floating(rows):
                return jnp.zeros(window, gram.dtype)
            return _inner_products(rows, rows[slot]).astype(gram.dtype)

        def renew(gram: jax.Array, row: jax.Array) -> jax.Array:
            return gram.at[slot].set(row).at[:, slot].set(row)

        if blocks == "all":
            parts = jax.tree.map(lambda rows: row(rows, state.gram), buffer)
            total = jax.tree.reduce(jnp.add, parts, jnp.zeros(window, state.gram.dtype))
            gram = renew(state.gram, total)
            shared = _coefficients(gram, slot, damping)
            coefficients = jax.tree.map(lambda _: shared, buffer)
        else:
            gram = jax.tree.map(lambda s, rows: renew(s, row(rows, s)), state.gram, buffer)
            coefficients = jax.tree.map(lambda s: _coefficients(s, slot, damping), gram)

        def combine(g: jax.Array, rows: jax.Array, c: jax.Array) -> jax.Array:
            if not is_floating(rows):
                return g
            wide = jnp.promote_types(rows.dtype, c.dtype)
            product = jnp.tensordot(c, rows.astype(wide), 1, precision=HIGHEST)
            return product.astype(g.dtype)

        directions = jax.tree.map(combine, updates, buffer, coefficients)
        return directions, MFacState(optax.safe_increment(state.count), buffer, gram)

    return optax.GradientTransformationExtraArgs(init, update)


def m_fac(
    learning_rate: optax.ScalarOrSchedule,
    damping: Any = 1e-5,
    momentum: Any = 0.0,
    *,
    window: int = 1024,
    weight_decay: Any = 0.0,
    mask: Any = None,
    blocks: Blocks = "all",
    buffer_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """M-FAC: descent along the inverse empirical Fisher matrix times the gradient, with momentum.

        g <- g + weight_decay * p,   u = F^-1 g,   v <- momentum v + (1 - momentum) u
        p <- p - learning_rate * v

    with the F of `scale_by_m_fac`. It needs gradients alone, one pass a step:

        updates, state = tx.update(grads, state, params)

    The length of u grows as the damping falls, so the two are tuned together.

    Args:
      learning_rate: a number or a schedule.
      damping: lambda of the Fisher matrix.
      momentum: decay of the average of the updates, in [0, 1).
      window: the number of gradients kept. The authors use 1024 at most.
      weight_decay: added to the gradient (L2), as in the authors' code; for decoupled decay chain
        `scale_by_m_fac` with `optax.add_decayed_weights`.
      mask: which leaves decay, as in `optax.add_decayed_weights`.
      blocks: "all" or "leaf".
      buffer_dtype: dtype of the buffer of gradients.

    Returns:
      A `GradientTransformationExtraArgs`; with weight decay its updates need `params`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 4.2; IST-DASLab/M-FAC optim.py (the same defaults, but for a default
    learning rate of 1e-3), whose trajectory is that here.

    >>> tx, params = m_fac(0.3, damping=1.0, window=2), jnp.zeros(2)
    >>> updates, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(params), params)
    >>> np.asarray(updates, float).round(3)
    array([-0.2, -0. ])
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("momentum", momentum, 0, 1, open_high=True)
    check_range("weight_decay", weight_decay, 0)
    rule = scale_by_m_fac(damping, window=window, blocks=blocks, buffer_dtype=buffer_dtype)
    return optax.with_extra_args_support(
        optax.chain(
            decayed_weights(weight_decay, mask),
            rule,
            on_floats(optax.ema(momentum, debias=False)),
            optax.scale_by_learning_rate(learning_rate),
        )
    )
