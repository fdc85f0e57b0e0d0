"""How right a generated report is, against a reference."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check_floating,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)


def green_score(
    matched: Float[Array, "..."], errors: Float[Array, "... kinds"]
) -> Float[Array, "..."]:
    """GREEN: the share of matched findings among matched findings and significant errors.

    `m / (m + sum_k e_k)`, zero without a matched finding.

    Args:
      matched: how many findings report and reference share, as floating point [...].
      errors: how many clinically significant errors of each kind there are; GREEN tells six kinds
        [..., kinds].

    Returns:
      Scores [...] from zero to one.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: GREEN: Generative Radiology Report Evaluation and Error Notation, arXiv 2405.03595; the
    judge of arXiv 2410.07025.

    >>> green_score(jnp.array([3.0, 0.0]), jnp.array([[1.0, 0.0], [0.0, 0.0]])).tolist()
    [0.75, 0.0]
    """
    check_floating(matched=matched, errors=errors)
    check_rank("errors", errors, 1, at_least=True)
    check_shape("matched", matched, jnp.shape(errors)[:-1], "[...], one a row of errors")
    m, e = upcast(matched, errors)
    return restore(safe_divide(m, m + jnp.sum(e, -1)), matched, errors)
