"""Classifier heads whose logits are angles: to fixed vectors, or to learned subspaces."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ..losses.proxies import cosines
from ..numerics import (
    check,
    check_count,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_norm,
    safe_normalize,
    upcast,
)


class FixedCosineHead(nnx.Module):
    """Logits are cosines with class vectors that are not trained.

    `cos(x, b_k) / temperature`, with `b` of `papyrax.losses.simplex_etf` or
    `papyrax.losses.equiangular_basis_vectors`. The head has no parameters, whatever the number of
    classes: its vectors are an `nnx.Variable`, which `nnx.Optimizer(wrt=nnx.Param)` leaves alone.

    Args:
      basis: one vector a class [classes, features].
      temperature: what cosines are divided by.

    Called with x [..., features], it returns logits [..., classes].

    Raises:
      ValueError: if a shape, a dtype or the temperature does not fit.

    Source: Equiangular Basis Vectors, arXiv 2303.11637, section 3; with a simplex ETF, Inducing
    Neural Collapse in Imbalanced Learning, arXiv 2203.09081, whose logits are not divided by the
    length of x.

    >>> head = FixedCosineHead(jnp.eye(3), temperature=0.5)
    >>> head(jnp.array([[0.0, 7.0, 0.0]])).tolist()
    [[0.0, 2.0, 0.0]]
    """

    def __init__(self, basis: Float[Array, "classes features"], *, temperature: float = 0.07):
        check_floating(basis=basis)
        check_rank("basis", basis, 2)
        check_positive(temperature=temperature)
        self.basis = nnx.Variable(jnp.asarray(basis))
        self.temperature = temperature

    def __call__(self, x: Float[Array, "... features"]) -> Float[Array, "... classes"]:
        """Logits of inputs [..., features]."""
        basis = jax.lax.stop_gradient(self.basis[...])
        _check_input(x, basis.shape[1])
        rows = jnp.reshape(x, (-1, basis.shape[1]))
        logits = cosines(rows, basis) / self.temperature
        return restore(jnp.reshape(logits, (*np.shape(x)[:-1], len(basis))), x)


class GrassmannHead(nnx.Module):
    """Each class is a subspace; its logit is how much of the unit input lies in it.

    `scale |S_k' x / |x||`, with an orthonormal basis `S_k` [features, rank] a class. A linear head
    has a direction a class, into which the inputs of a class are drawn; a subspace lets them vary.
    Train `subspaces` with `papyrax.optim.grassmann_sgd`, which keeps them orthonormal.

    Args:
      features: width of the inputs.
      classes: number of classes.
      rank: dimension of the subspaces, up to `features`.
      scale: the largest logit, `gamma` of the paper.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [..., features], it returns logits [..., classes] between 0 and `scale`.

    Raises:
      ValueError: for sizes that do not fit, or an input of another shape or dtype.

    Source: Get the Best of Both Worlds: Improving Accuracy and Transferability by Grassmann Class
    Representation, arXiv 2308.01547, Eq. 5 and section 4; logits and gradients agree with
    `gcr/grassmann_head.py` of innerlee/GCR.

    >>> head = GrassmannHead(6, 3, rank=2, rngs=nnx.Rngs(0))
    >>> head(jnp.ones((4, 6))).shape
    (4, 3)
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        rank: int = 8,
        scale: float = 25.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(features=features, classes=classes, rank=rank)
        check(rank <= features, "rank", f"got {rank}, takes 1 to {features} (features)")
        check_positive(scale=scale)
        wide = jnp.promote_types(jnp.float32, param_dtype)
        normal = jax.random.normal(rngs.params(), (classes, features, rank), wide)
        self.subspaces = nnx.Param(jnp.linalg.qr(normal)[0].astype(param_dtype))
        self.scale, self.dtype = scale, dtype

    def __call__(self, x: Float[Array, "... features"]) -> Float[Array, "... classes"]:
        """Logits of inputs [..., features]."""
        bases = self.subspaces[...]
        _check_input(x, bases.shape[1])
        like = (x, bases) if self.dtype is None else (jnp.zeros((), self.dtype),)
        x, bases = upcast(x, bases)
        parts = jnp.einsum("...d,kdr->...kr", safe_normalize(x), bases)
        return restore(self.scale * safe_norm(parts), *like)


def _check_input(x: Any, features: int) -> None:
    check_floating(x=x)
    check_rank("x", x, 1, at_least=True)
    check_shape("x", x, (*np.shape(x)[:-1], features), "[..., features]")
