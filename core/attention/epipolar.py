"""Attention on epipolar-plane images of a light field: a band along the spatial axis."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..numerics import check, check_floating, check_rank, check_shape
from .dot_product import dot_product_attention

Field = tuple[int, int]


def epipolar_mask(views: int, width: int, *, field: Field | None = None) -> Bool[Array, "S S"]:
    """Which token of an epipolar-plane image sees which.

        (i, j) sees (i', j')  <=>  -floor(a/2) <= i' - i < ceil(a/2)  and the same for j and b

    for a field (a, b) of views and positions. A point of the scene is a line in such an image,
    whose slope is its disparity; the band holds the lines up to floor(b/2) positions a step.

    Args:
      views: rows of the image, the views along one angular axis.
      width: columns, the positions along the spatial axis of the same direction.
      field: (views, positions) that are seen; None for (2 views, 11), all views and 5 positions to
        both sides.

    Returns:
      [views * width, views * width], True where the row's token sees the column's.

    Raises:
      ValueError: for numbers that are not positive integers.

    Source: Learning Non-Local Spatial-Angular Correlation for Light Field Image Super-Resolution,
    arXiv 2302.08058, the masked attention of the basic transformer; compared with
    ZhengyuLiang24/EPIT `model/SSR/EPIT.py` (`gen_mask`), where 0 and -inf are added.

    >>> epipolar_mask(1, 4, field=(2, 3)).astype(int).tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    chosen: Any = (2 * views, 11) if field is None else field
    chosen = tuple(chosen) if isinstance(chosen, tuple | list) else (chosen,)
    for name, numbers in (("views", (views,)), ("width", (width,)), ("field", chosen)):
        check(
            len(numbers) == (2 if name == "field" else 1)
            and all(isinstance(n, int | np.integer) and n > 0 for n in numbers),
            name,
            f"got {numbers if name == 'field' else numbers[0]!r}, takes integers above 0",
        )

    def band(count: int, size: int) -> np.ndarray:
        apart = np.arange(count) - np.arange(count)[:, None]
        return (apart >= -(size // 2)) & (apart < size - size // 2)

    return jnp.asarray(np.kron(band(views, chosen[0]), band(width, chosen[1])))


def epipolar_attention(
    query: Float[Array, "*B V W N H"],
    key: Float[Array, "*B V W K H"],
    value: Float[Array, "*B V W K E"],
    *,
    field: Field | None = None,
    scale: float | None = None,
) -> Float[Array, "*B V W N E"]:
    """Softmax attention inside each epipolar-plane image, along a band.

        out_(i,j) = sum over (i', j') in the band of softmax(q_(i,j) . k_(i',j') scale) v_(i',j')

    Images, one for each row or column of the scene, see nothing of each other. A light field
    [batch, U, V, H, W, ...] gives horizontal ones as [batch, U, H, V, W, ...] and vertical ones as
    [batch, V, W, U, H, ...]; the paper applies one transformer to both.

    Args:
      query: [..., views, width, heads, dim].
      key: [..., views, width, key_heads, dim]; key_heads divides heads.
      value: [..., views, width, key_heads, value_dim].
      field: as in `epipolar_mask`.
      scale: of the logits; dim^(-1/2) for None.

    Returns:
      [..., views, width, heads, value_dim].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Learning Non-Local Spatial-Angular Correlation for Light Field Image Super-Resolution,
    arXiv 2302.08058; values and gradients agree with ZhengyuLiang24/EPIT `model/SSR/EPIT.py`
    (`BasicTrans`), which normalizes the tokens before queries and keys, but not before values.

    >>> x = jax.random.normal(jax.random.key(0), (2, 6, 3, 8, 4, 16))
    >>> epipolar_attention(x, x, x).shape
    (2, 6, 3, 8, 4, 16)
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_floating(**{name: x})
        check_rank(name, x, 4, at_least=True)
    lead = np.shape(query)[:-2]
    for name, x in (("key", key), ("value", value)):
        check_rank(name, x, len(lead) + 2)
        check_shape(name, x, (*lead, None, None), "[..., views, width, heads, dim], as query")
    views, width = lead[-2:]
    mask = epipolar_mask(views, width, field=field)

    def tokens(x: Array) -> Float[Array, "M S N H"]:
        return jnp.asarray(x).reshape(-1, views * width, *np.shape(x)[-2:])

    out = dot_product_attention(
        tokens(query), tokens(key), tokens(value), mask=mask[None, None], scale=scale
    )
    return out.reshape(*lead, *out.shape[-2:])
