"""Why training of a fitted classifier stops: softmax collapse and growth along the weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    safe_normalize,
    upcast,
)


def softmax_collapse(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], *, dtype: Any = None
) -> Float[Array, ""]:
    """Share of the examples whose softmax has collapsed onto the label in a given precision.

    An example counts where `sum_j exp(z_j - z_y)`, each term and the sum rounded to `dtype`, is
    exactly one: its cross-entropy is then exactly zero and it teaches nothing any more.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      dtype: precision of the softmax; that of `logits` by default.

    Returns:
      The share [], in float32.

    Raises:
      ValueError: if the shapes or dtypes do not fit, or `dtype` is float64 where that is not
        enabled.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, the definition of softmax
    collapse; `logger.py` of LucasPrietoAl/grokking-at-the-edge-of-numerical-stability counts every
    example whose sum is one after subtracting the largest logit, misclassified ones included.

    >>> logits = jnp.array([[30.0, 0.0], [3.0, 0.0]])
    >>> float(softmax_collapse(logits, jnp.array([0, 0])))
    0.5
    """
    check_floating(logits=logits)
    check_rank("logits", logits, 1, at_least=True)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(logits)[:-1], "[...], one a row of logits")
    logits = jnp.asarray(logits)
    precision = jnp.dtype(logits.dtype if dtype is None else dtype)
    check(
        jnp.issubdtype(precision, jnp.floating)
        and jax.dtypes.canonicalize_dtype(precision) == precision,
        "dtype",
        f"got {precision}, takes an enabled floating-point dtype",
    )
    limits = jnp.finfo(precision)

    def rounded(x: Array) -> Array:
        # Explicit, because a compiler may keep more digits between fused operations.
        return jax.lax.reduce_precision(x, limits.nexp, limits.nmant)

    z = rounded(logits.astype(jnp.promote_types(precision, jnp.float32)))
    label = jnp.take_along_axis(z, jnp.asarray(labels)[..., None], axis=-1)
    total = rounded(jnp.sum(rounded(jnp.exp(rounded(z - label))), axis=-1))
    return jnp.mean(total == 1, dtype=jnp.float32)


def nlm_alignment(params: Any, grads: Any) -> Any:
    """How much of each gradient step only makes the weights longer: naive loss minimization.

    `cos(-g, w)`, tensor by tensor: 1 where a step of gradient descent is pure growth of the
    weights, which scales the logits of a homogeneous network and changes no prediction; 0 where it
    is perpendicular, as after `papyrax.optim.scale_by_perpgrad`.

    Args:
      params: a tree of weights of any shapes [...].
      grads: the gradients of the loss to be minimized, a tree of the same shapes.

    Returns:
      A tree of the same structure with one cosine [] a tensor, in float32 or wider; zero where the
      weights or the gradient are zero.

    Raises:
      ValueError: if the trees or the shapes of their leaves differ.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, the section on naive loss
    minimization.

    >>> float(nlm_alignment(jnp.array([3.0, 4.0]), jnp.array([-0.6, -0.8])))
    1.0
    """
    trees: list[Any] = [jax.tree.structure(tree) for tree in (params, grads)]
    check(trees[0] == trees[1], "grads", "got a tree of another structure, takes that of params")

    def cosine(w: Any, g: Any) -> Array:
        check_floating(params=w, grads=g)
        check_shape("grads", g, jnp.shape(w), "as params")
        w, g = upcast(w, g)
        return -jnp.sum(safe_normalize(w.ravel()) * safe_normalize(g.ravel()))

    return jax.tree.map(cosine, params, grads)
