"""Further positives made from features, by a module that is trained with the encoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..losses.interpolation import mix_features
from ..numerics import check_count, check_floating, check_range, check_shape


class Hallucinator(nnx.Module):
    """Makes one more positive of each query: moved away from its key, then through a perceptron.

        e = (1 + r) q - r k        g = W_3 relu(W_2 relu(W_1 [q, e]))

    The queries come back first and the made ones after them; both have the keys as their positives,
    in any contrastive loss: `info_nce_loss(module(q, k, r), concatenate([k, k]), queue)`.

    Args:
      features: width of queries and keys.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with queries, not normalized [batch, features], their keys, constants for the gradient
    [batch, features], and the amount `r` of extrapolation, drawn anew at each step from 0 to 0.1
    [], it returns [2 batch, features].

    Raises:
      ValueError: for a size that does not fit, or an input of another shape or dtype.

    Source: Hallucination Improves the Performance of Unsupervised Visual Representation Learning,
    arXiv 2307.12168, the asymmetric extrapolation and the non-linear module; `models/generator.py`
    and `models/moco.py` of the authors' repository.

    >>> module = Hallucinator(8, rngs=nnx.Rngs(0))
    >>> module(jnp.ones((4, 8)), jnp.zeros((4, 8)), 0.05).shape
    (8, 8)
    """

    def __init__(
        self,
        features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(features=features)
        self.features = features
        kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.first = nnx.Linear(2 * features, 2 * features, **kinds)
        self.second = nnx.Linear(2 * features, 2 * features, **kinds)
        self.last = nnx.Linear(2 * features, features, **kinds)

    def __call__(
        self,
        queries: Float[Array, "batch features"],
        keys: Float[Array, "batch features"],
        amount: Any,
    ) -> Float[Array, "both features"]:
        """Queries and made positives [2 batch, features] of queries and keys [batch, features]."""
        check_floating(queries=queries, keys=keys)
        check_shape("queries", queries, (None, self.features), "[batch, features]")
        check_shape("keys", keys, jnp.shape(queries), "[batch, features], as queries")
        check_shape("amount", amount, (), "[], one for all")
        check_range("amount", amount, 0)
        away = mix_features(queries, jax.lax.stop_gradient(keys), 1 + amount)
        hidden = jnp.concatenate([queries, away], 1)
        for layer in (self.first, self.second):
            hidden = jax.nn.relu(layer(hidden))
        made = self.last(hidden)
        return jnp.concatenate([queries.astype(made.dtype), made])
