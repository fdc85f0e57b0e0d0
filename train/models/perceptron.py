"""A perceptron."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from papyrax.train.models.shared import dropout, split_keys


class MLP(nnx.Module):
    """A perceptron: flatten, then layers of a width each, then the classes.

    Args:
      shape: shape of one input; it is flattened.
      classes: number of outputs.
      widths: units of each hidden layer.
      dropout: share of hidden units that are dropped in training.
      dtype: dtype of the computation.
      rngs: draws the parameters.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        widths: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = [int(np.prod(shape)), *widths]
        initial = nnx.initializers.he_normal()
        self.hidden = nnx.List(
            nnx.Linear(a, b, kernel_init=initial, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(sizes)
        )
        self.head = nnx.Linear(sizes[-1], classes, dtype=dtype, rngs=rngs)
        self.dropout = dropout

    def __call__(
        self, inputs: Float[Array, "B ..."], *, train: bool = False, key: Any = None
    ) -> Float[Array, "B C"]:
        """Logits [batch, classes] of inputs [batch, ...]."""
        x = inputs.reshape(inputs.shape[0], -1)
        for layer, k in zip(self.hidden, split_keys(key, len(self.hidden))):
            x = dropout(nnx.relu(layer(x)), self.dropout, k)
        return self.head(x)
