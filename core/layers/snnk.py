"""Linear layers in random features: as many parameters an output as there are features."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..attention import random_projections, snnk_features, snnk_relu_features, snnk_weights
from ..numerics import check, check_count, check_floating, check_range, check_shape, restore, upcast

Kind = Literal["relu", "cosine", "sine"]


class SNNKLinear(nnx.Module):
    """A scalable neural network kernel: a layer and its nonlinearity in one dot product.

        out = phi(x) Theta^T,   Theta = Psi(W, b) at the start

    with phi and Psi random features of input and weights, whose product estimates f(W x + b). Theta
    is trained and the features are not, so the layer has `features` numbers an output ("relu") or
    twice as many, whatever the number of inputs, and is linear in its parameters. No nonlinearity
    follows.

    - "relu": phi(z) = max(G z, floor) / sqrt(m). The product stands for the arc-cosine kernel
      |x| |w| (sin t + (pi - t) cos t) / (2 pi) of the angle t between x and w; there is no b.
    - "cosine", "sine": universal random features, whose product is cos(W x + b) or sin(W x + b) in
      the mean. Their variance grows exponentially with |x| and |w|.

    Args:
      in_features: width of the inputs.
      out_features: width of the outputs.
      features: m, the number of random directions.
      kind: what the layer stands for at the start.
      floor: of the ReLU features; below zero it lets negative ones through.
      damping: of the universal features, which lowers the variance of long inputs.
      orthogonal: random directions at right angles, in blocks of `in_features`.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for directions and parameters.

    Called with x [..., in_features], it returns [..., out_features]. The directions are an
    `nnx.Variable`, which `nnx.Optimizer(wrt=nnx.Param)` leaves alone.

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Scalable Neural Network Kernels, arXiv 2310.13225; compared with
    arijitthegame/neural-network-kernels `src/nnk/nnk.py` (the ReLU layers), whose W is drawn as
    PyTorch draws it, uniform with variance 1 / (3 in_features), as here.

    >>> layer = SNNKLinear(256, 3, features=16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 256))).shape, layer.weights[...].size
    ((2, 3), 48)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        features: int,
        kind: Kind = "relu",
        floor: float = 0.0,
        damping: float = 0.0,
        orthogonal: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(in_features=in_features, out_features=out_features, features=features)
        kinds = "relu", "cosine", "sine"
        check(kind in kinds, "kind", f"got {kind!r}, takes {', '.join(map(repr, kinds))}")
        check_range("damping", damping, 0)
        self.in_features, self.kind = in_features, kind
        self.floor, self.damping, self.dtype = floor, damping, dtype
        g = random_projections(rngs.params(), features, in_features, orthogonal=orthogonal)
        self.projections = nnx.Variable(g.astype(param_dtype))
        bound = 1 / math.sqrt(in_features)
        shape = out_features, in_features + 1
        start = jax.random.uniform(rngs.params(), shape, g.dtype, -bound, bound)
        weights, bias = start[:, :-1], start[:, -1]
        if kind == "relu":
            theta = snnk_relu_features(weights, g, floor=floor)
        else:
            xi, one = self._frequencies(g), jnp.ones(features, g.dtype)
            phase = (0.0 if kind == "cosine" else -np.pi / 2) * one
            theta = snnk_weights(weights, g, xi, one, phase, bias, damping=damping)
        self.weights = nnx.Param(theta.astype(param_dtype))

    def _frequencies(self, g: Float[Array, "m d"]) -> Float[Array, "m"]:
        """Those of the cosine: one, 1 / (2 pi)."""
        return jnp.full(len(g), 1 / (2 * np.pi), g.dtype)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... out"]:
        """The layer of inputs [..., in_features]."""
        check_floating(x=x)
        shape = (*np.shape(x)[:-1], self.in_features)
        check_shape("x", x, shape, "[..., in_features]")
        theta, g = self.weights[...], jax.lax.stop_gradient(self.projections[...])
        like = (x, theta) if self.dtype is None else (jnp.zeros((), self.dtype),)
        x, theta, g = upcast(x, theta, g)
        if self.kind == "relu":
            phi = snnk_relu_features(x, g, floor=self.floor)
        else:
            phi = snnk_features(x, g, self._frequencies(g), damping=self.damping)
        return restore(phi @ theta.T, *like)
