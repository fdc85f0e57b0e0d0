"""A choice among operations, relaxed so that it can be trained: differentiable search."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..numerics import check, check_floating, restore, upcast

Weighting = Literal["max_w", "softmax"]


class Architecture(nnx.Variable):
    """The logits of a choice, which a search trains apart from the parameters.

    `nnx.Optimizer(..., wrt=nnx.Param)` leaves them alone, `wrt=Architecture` takes them alone.
    """


class MixedOperation(nnx.Module):
    """All operations at once, each weighted by how likely it is to be chosen.

        y = sum_i (1 - max_j w_j + w_i) f_i(x),   w = softmax(logits)

    With Max-W the likeliest operation has the coefficient 1, as it will have once it is chosen,
    and the loss moves its logit by what the others do alone. DARTS has `sum_i w_i f_i(x)`, here
    "softmax".

    Args:
      operations: functions or modules of one argument, of results of one shape.
      weighting: "max_w" or "softmax".
      param_dtype: dtype of the logits, which are zero at first.

    Called with x [...], it returns the weighted sum [...].

    Raises:
      ValueError: if there are no operations, or the weighting is unknown.

    Source: sharpDARTS: Faster and More Accurate Differentiable Architecture Search,
    arXiv 1903.09900, Max-W regularization; ahundt/sharpDARTS cnn/model_search.py, whose values and
    gradients, which go through the maximum as well, are those here.

    >>> mixed = MixedOperation([jnp.sin, jnp.zeros_like])
    >>> mixed.logits[...] = jnp.log(jnp.array([3.0, 1.0]))
    >>> np.asarray(mixed.coefficients(), float).round(6).tolist()
    [1.0, 0.5]
    """

    def __init__(
        self,
        operations: Sequence[Callable[[Any], Any]],
        *,
        weighting: Weighting = "max_w",
        param_dtype: Any = jnp.float32,
    ):
        check(len(operations) > 0, "operations", "got none, takes one or more")
        known = weighting in ("max_w", "softmax")
        check(known, "weighting", f"got {weighting!r}, takes 'max_w' or 'softmax'")
        self.operations = nnx.List(operations)
        self.weighting = weighting
        self.logits = Architecture(jnp.zeros(len(operations), param_dtype))

    def coefficients(self) -> Float[Array, " operations"]:
        """What each operation is multiplied by."""
        weights = jax.nn.softmax(upcast(self.logits[...]))
        return weights if self.weighting == "softmax" else 1 - jnp.max(weights) + weights

    def __call__(self, x: Any) -> Any:
        """The weighted sum of the operations at x [...]."""
        check_floating(x=x)
        outputs = [operation(x) for operation in self.operations]
        wide = [upcast(y) for y in outputs]
        parts = [c * y for c, y in zip(self.coefficients(), wide)]
        return restore(sum(parts[1:], start=parts[0]), *outputs)
