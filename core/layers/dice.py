"""Dice, the activation that switches where its input's distribution lies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import dice
from ..numerics import check, check_count, check_floating, check_positive, check_range, check_shape


class Dice(nnx.Module):
    """`papyrax.attention.dice` with its learned slopes and moving moments.

        p = sigmoid((x - E x) / sqrt(Var x + epsilon)),   out = p x + (1 - p) alpha x

    In training the moments are those of the batch, over all axes but the last, and

        mean <- momentum mean + (1 - momentum) E x,   and the variance alike;

    otherwise they are the moving ones. As in `nnx.BatchNorm`, `model.eval()` and `model.train()`
    switch between the two.

    Args:
      features: width of the input.
      momentum: of the moving moments.
      epsilon: added to the variance.
      use_running_average: whether to take the moving moments.
      dtype: dtype of the output; None for that of input and parameters.
      param_dtype: dtype of alpha.

    Called with x [..., features], it returns [..., features]; `use_running_average` may be given
    with the call.

    Raises:
      ValueError: for a hyper-parameter out of range, or an input of another shape or dtype.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, equation 3
    and section 5.3; compared with zhougr1993/DeepInterestNetwork `din/Dice.py` as `dice` is.

    >>> layer = Dice(3)
    >>> layer(jnp.ones((2, 3))).tolist() == (0.5 * jnp.ones((2, 3))).tolist()
    True
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-8,
        use_running_average: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ):
        check_count(features=features)
        check_range("momentum", momentum, 0, 1)
        check_positive(epsilon=epsilon)
        self.features, self.momentum, self.epsilon = features, momentum, epsilon
        self.use_running_average, self.dtype = use_running_average, dtype
        self.alpha = nnx.Param(jnp.zeros(features, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones(features, jnp.float32))

    def __call__(
        self, x: Float[Array, "... C"], use_running_average: bool | None = None
    ) -> Float[Array, "... C"]:
        """Activate an input [..., features]."""
        check_floating(x=x)
        shape = np.shape(x)
        check(len(shape) > 0, "x", f"got shape {shape}, takes [..., features]")
        check_shape("x", x, (*shape[:-1], self.features), "[..., features]")
        alpha, moving = self.alpha[...], use_running_average
        if moving is None:
            moving = self.use_running_average
        if moving:
            y = dice(x, alpha, self.mean[...], self.variance[...], epsilon=self.epsilon)
        else:
            y = dice(x, alpha, epsilon=self.epsilon)
            self._observe(x)
        return y.astype(self.dtype or jnp.result_type(x, alpha))

    def _observe(self, x: Float[Array, "... C"]) -> None:
        wide = jax.lax.stop_gradient(x).astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        for moment, now in (
            (self.mean, jnp.mean(wide, axes)),
            (self.variance, jnp.var(wide, axes)),
        ):
            moment[...] = self.momentum * moment[...] + (1 - self.momentum) * now
