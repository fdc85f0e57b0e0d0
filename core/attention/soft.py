"""Softmax-free attention: a Gaussian kernel through a few landmarks (SOFT, SOFT++)."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)
from .arguments import check_attention, check_no_bias, split_heads


def _transpose(x: Float[Array, "*B m n"]) -> Float[Array, "*B n m"]:
    return jnp.swapaxes(x, -1, -2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _newton(
    matrix: Float[Array, "*B m m"], iterations: int, ridge: float, step: float
) -> Float[Array, "*B m m"]:
    regular = matrix + ridge * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    size = jnp.abs(regular)
    # The product of the two norms bounds the square of the largest singular value.
    bound = jnp.max(jnp.sum(size, axis=-1), axis=-1) * jnp.max(jnp.sum(size, axis=-2), axis=-1)
    start = safe_divide(jnp.full_like(bound, step), bound)

    def refine(inverse: Array, _: None) -> tuple[Array, None]:
        return 2 * inverse - inverse @ regular @ inverse, None

    # A scan and not a while loop: it can be transposed where a transformation looks inside.
    inverse, _ = jax.lax.scan(
        refine, start[..., None, None] * _transpose(regular), None, length=iterations
    )
    return inverse


@_newton.defjvp
def _newton_jvp(
    iterations: int, ridge: float, step: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    inverse = _newton(*primals, iterations, ridge, step)
    return inverse, -inverse @ tangents[0] @ inverse


def _check_iterations(iterations: int) -> None:
    check(
        isinstance(iterations, int | np.integer) and iterations >= 0,
        "iterations",
        f"got {iterations!r}, takes an integer of 0 or more",
    )


def newton_inverse(
    matrix: Float[Array, "*B m m"],
    *,
    iterations: int = 20,
    ridge: float = 0.01,
    step: float = 1.8,
) -> Float[Array, "*B m m"]:
    """Inverse of a matrix by Newton and Raphson's iteration, with a closed-form derivative.

        P = A + ridge I,   V_0 = step P^T / (|P|_1 |P|_inf),   V <- 2 V - V P V
        dV = - V dA V

    Products alone, so it runs where a factorization is slow. The derivative is that of the true
    inverse at V; no iteration is stored. Directions in which P is small converge last: after k
    iterations the error along a singular vector of P of singular value p is
    (1 - step p^2 / (|P|_1 |P|_inf))^(2^k).

    Args:
      matrix: square matrices [..., m, m].
      iterations: number of iterations.
      ridge: added to the diagonal.
      step: factor of the start, below 2.

    Returns:
      The approximate inverses [..., m, m].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Softmax-free Linear Transformers, arXiv 2207.03341; compared with fudan-zvg/SOFT
    `SOFT/kernel/inverse.py` (`newton_inv`), which is this with the defaults here but for the sums
    in V_0: it takes them before the ridge is added, which may diverge for small A; with `step` for
    that, values and gradients agree. Its SOFT++ kernel has another inverse, which is
    `inverse="released"` of `soft_attention`.

    >>> a = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    >>> bool(jnp.allclose(newton_inverse(a, ridge=0.0), jnp.linalg.inv(a), atol=1e-5))
    True
    """
    check_floating(matrix=matrix)
    check_rank("matrix", matrix, 2, at_least=True)
    shape = np.shape(matrix)
    check(shape[-1] == shape[-2], "matrix", f"got shape {shape}, takes [..., m, m]")
    _check_iterations(iterations)
    check_range("ridge", ridge, 0)
    check_range("step", step, 0, 2, open_low=True, open_high=True)
    return restore(_newton(upcast(matrix), int(iterations), float(ridge), float(step)), matrix)


def _released(matrix: Float[Array, "*B m m"], iterations: int) -> Float[Array, "*B m m"]:
    """The inverse in the released SOFT++: the start is one for all matrices, without a ridge.

    Halving stops where the start contracts, in the norm of largest column sums.
    """
    step = 2 / jnp.square(jnp.max(jnp.sum(matrix, axis=-1)))
    steps = step * 0.5 ** np.arange(11).astype(matrix.dtype)
    squared, identity = matrix @ matrix, jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    norms = [jnp.max(jnp.sum(jnp.abs(identity - s * squared), axis=-2)) for s in steps]
    contracts = jnp.stack(norms) <= 1.01
    chosen = steps[jnp.where(jnp.any(contracts), jnp.argmax(contracts), 10)]

    def refine(inverse: Array, _: None) -> tuple[Array, None]:
        return 2 * inverse - inverse @ matrix @ inverse, None

    return jax.lax.scan(refine, chosen * matrix, None, length=iterations)[0]


def _gaussian(
    a: Float[Array, "*B m H"], b: Float[Array, "*B n H"], scale: Any
) -> Float[Array, "*B m n"]:
    """exp(-scale |a - b|^2 / 2) from differences; |a|^2 + |b|^2 - 2 a.b loses digits far out."""
    squared = jnp.sum(jnp.square(a[..., :, None, :] - b[..., None, :, :]), axis=-1)
    return jnp.exp(-0.5 * scale * squared)


def _pool(key: Array, present: Array, count: int) -> Float[Array, "B m K H"]:
    """Means of the keys that exist in `count` runs of equal length."""
    keys = key.shape[1]
    check(
        count > 0 and keys % count == 0,
        "landmarks",
        f"got {count}, takes a divisor of the {keys} keys, or landmarks as an array",
    )
    runs = key.reshape(key.shape[0], count, keys // count, *key.shape[2:])
    weights = present.reshape(*runs.shape[:4], 1)
    return jnp.sum(runs * weights, axis=2) / jnp.maximum(jnp.sum(weights, axis=2), 1)


def soft_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: None = None,
    mask: Bool[Array, "*#BN1S"] | None = None,
    *,
    landmarks: int | Float[Array, "B m K H"] = 49,
    scale: float | None = None,
    is_causal: bool = False,
    normalize: bool = True,
    inverse: Literal["newton", "exact", "released"] = "newton",
    iterations: int = 20,
    ridge: float = 0.01,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B T N E"]:
    """Attention with a Gaussian kernel in place of softmax, of low rank through landmarks.

        kappa(a, b) = exp(-scale |a - b|^2 / 2),   A = kappa(L, L)
        out = kappa(q, L) A^+ kappa(L, k) v                          (SOFT, normalize=False)
        out = kappa(q, L) D A^+ D kappa(L, k) v,   D = diag(A 1)^(-1/2)           (SOFT++)

    With m landmarks the cost is linear in the number of tokens. The paper shares queries and keys:
    give the same array twice, and the weights are symmetric and positive semi-definite. They are
    not divided by their sum.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads; the query, in the paper.
      value: [batch, keys, key_heads, value_dim].
      bias: None; a Gaussian kernel has no logits to add it to.
      mask: boolean over the keys, [batch or 1, heads or 1, 1, keys] or fewer leading axes; False
        hides a key. A query with no key yields zeros.
      landmarks: an array [batch, landmarks, key_heads, dim] in the space of the keys, or a number
        that divides that of the keys, for the means of as many runs of keys.
      scale: of the squared distance; dim^(-1/2) for None.
      is_causal: False; the landmarks see all keys.
      normalize: SOFT++ (True) or SOFT.
      inverse: "newton" for `newton_inverse`; "exact" for a Cholesky solve of A + ridge I; or
        "released" for the iterations of the authors' SOFT++ kernel, for weights trained by it:
        without a ridge, from one start 2 / (largest row sum)^2 for the whole batch and all heads,
        halved until it contracts, and differentiated step by step. They need not converge, examples
        depend on each other, and landmarks all far apart give zeros.
      iterations: of "newton" and "released".
      ridge: added to the diagonal of A before it is inverted; above 0 for "exact".
      precision: of the matrix products with the values, as in `jax.lax.dot_general`.

    Returns:
      [batch, queries, heads, value_dim] in the inputs' dtype; computed in float32 or better.

    Raises:
      ValueError: for a bias, a mask that differs between queries, `is_causal`, or a wrong shape,
        dtype or hyper-parameter.

    Source: Softmax-free Linear Transformers, arXiv 2207.03341; compared with fudan-zvg/SOFT
    `models/softmax_free_transformer.py`: landmarks there are learned, from a strided convolution of
    q dim^(-1/4), LayerNorm and GELU (times dim^(1/4), they can be given here); its SOFT++ inverts
    A in another way, `inverse="released"`.

    >>> x = jax.random.normal(jax.random.key(0), (2, 12, 4, 8))
    >>> soft_attention(x, x, x, landmarks=3).shape
    (2, 12, 4, 8)
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    check_no_bias(bias)
    check(not is_causal, "is_causal", "got True, takes False: the landmarks see all keys")
    kinds = "newton", "exact", "released"
    check(inverse in kinds, "inverse", f"got {inverse!r}, takes one of {', '.join(kinds)}")
    check_positive(**({"ridge": ridge} if inverse == "exact" else {}))
    _check_iterations(iterations)
    if scale is not None:
        check_positive(scale=scale)
    heads = split_heads(query, key, value, mask)
    batch, _, key_heads, dim = heads.key.shape
    if isinstance(landmarks, int | np.integer):
        points = _pool(heads.key, heads.present, int(landmarks))
    else:
        check_floating(landmarks=landmarks)
        given = key.shape[2]
        check_shape("landmarks", landmarks, (batch, None, given, dim), "[batch, landmarks, ...]")
        points = jnp.repeat(jnp.asarray(landmarks, heads.key.dtype), key_heads // given, axis=2)
    factor = dim**-0.5 if scale is None else scale

    def by_head(x: Array) -> Array:  # [batch, tokens, heads, dim] -> [batch, heads, tokens, dim]
        return jnp.swapaxes(x, 1, 2)

    points = by_head(points)
    grouped = jnp.moveaxis(heads.query, 1, 3)  # [batch, key_heads, group, queries, dim]
    to_query = _gaussian(grouped, points[:, :, None], factor)
    to_key = _gaussian(points, by_head(heads.key), factor) * by_head(heads.present)[:, :, None]
    between = _gaussian(points, points, factor)
    read = jnp.einsum("bkms,bske->bkme", to_key, heads.value, precision=precision)
    degree = jax.lax.rsqrt(jnp.sum(between, axis=-1, keepdims=True)) if normalize else 1.0
    if inverse == "newton":
        solved = newton_inverse(between, iterations=iterations, ridge=ridge) @ (degree * read)
    elif inverse == "released":
        solved = _released(between, iterations) @ (degree * read)
    else:
        regular = between + ridge * jnp.eye(between.shape[-1], dtype=between.dtype)
        solved = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(regular), True), degree * read)
    out = jnp.einsum("bkgtm,bkme->btkge", to_query, degree * solved, precision=precision)
    return restore(out.reshape(*query.shape[:3], value.shape[-1]), query, key, value)
