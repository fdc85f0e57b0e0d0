"""Penalties on what differs between training domains: domain generalization."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import domain_alignment
from ..curvature.trees import is_floating
from ..numerics import check, check_range


def hgp_penalty(
    fun: Callable[..., Any],
    head: Any,
    *args: Any,
    alpha: float = 1e-4,
    beta: float = 5e-3,
    stop_mean: bool = True,
) -> Float[Array, "domains"]:
    """Alignment of domains by the Hessian-gradient product of the classifier's head.

    `alpha |H_e g_e - H g|^2 + beta |g_e - g|^2` for each domain e, with gradient g and Hessian H of
    the mean loss of all domains. Its mean is added to the mean loss. Where features are used
    differently in two domains, so that the head's gradient or Hessian there is not the same, the
    network is to find others. It trains the features through `args` as well as the head.

    Args:
      fun: `fun(head, *args) -> loss []` of one domain, such as the mean cross-entropy of the head's
        logits.
      head: the head's parameters, a tree of arrays [...].
      *args: features and labels of every domain [domains, ...].
      alpha: weight of the Hessians' part.
      beta: weight of the gradients' part; alone it is gradient matching.
      stop_mean: hold g and H g constant in derivatives; False for the authors' script of
        Coloured MNIST.

    Returns:
      One penalty a domain [domains].

    Raises:
      ValueError: naming the argument that is out of range or has no axis of domains.

    Source: Understanding Hessian Alignment for Domain Generalization, arXiv 2308.11778, section 5,
    HGP; huawei-noah/Federated-Learning HessianAlignment/domainbed/algorithms.py, whose defaults
    these are and which takes the product as `|g| grad |g|`.

    >>> square = lambda w, x: jnp.sum((x * w) ** 2) / 2
    >>> w, x = jnp.array([1.0]), jnp.array([[1.0], [2.0]])
    >>> hgp_penalty(square, w, x, alpha=0.0, beta=1.0).tolist()
    [2.25, 2.25]
    """
    _check_head(head, alpha, beta)
    found = domain_alignment(fun, estimate="hgp", stop_mean=stop_mean)(head, *args)
    return _restore(alpha * found.curvature + beta * found.gradient, head)


def hutchinson_penalty(
    key: Array,
    fun: Callable[..., Any],
    head: Any,
    *args: Any,
    alpha: float = 1e-3,
    beta: float = 5e-3,
    n_samples: int = 300,
    stop_mean: bool = True,
) -> Float[Array, "domains"]:
    """Alignment of domains by the diagonal of the Hessian of the classifier's head.

    `alpha |D_e - D|^2 + beta |g_e - g|^2` for each domain e, with Hutchinson's estimate D of the
    Hessian's diagonal. As `hgp_penalty`, whose Hessian counts along the gradient alone.

    Args:
      key: a random key [] for the probes, which all domains share.
      fun: `fun(head, *args) -> loss []` of one domain.
      head: the head's parameters, a tree of arrays [...].
      *args: features and labels of every domain [domains, ...].
      alpha: weight of the diagonals' part.
      beta: weight of the gradients' part.
      n_samples: number of probes.
      stop_mean: hold g and D constant in derivatives.

    Returns:
      One penalty a domain [domains].

    Raises:
      ValueError: naming the argument that is out of range or has no axis of domains.

    Source: Understanding Hessian Alignment for Domain Generalization, arXiv 2308.11778, section 5,
    Hutchinson; huawei-noah/Federated-Learning HessianAlignment/domainbed/algorithms.py, whose
    defaults these are; its probes are drawn anew for each domain, so that its penalty of equal
    domains is not zero.

    >>> square = lambda w, x: jnp.sum((x * w) ** 2) / 2
    >>> w, x = jnp.array([1.0]), jnp.array([[1.0], [2.0]])
    >>> hutchinson_penalty(jax.random.key(0), square, w, x, alpha=1.0, beta=0.0).tolist()
    [2.25, 2.25]
    """
    _check_head(head, alpha, beta)
    measure = domain_alignment(fun, estimate="hutchinson", n_samples=n_samples, stop_mean=stop_mean)
    found = measure(head, *args, key=key)
    return _restore(alpha * found.curvature + beta * found.gradient, head)


def _check_head(head: Any, alpha: Any, beta: Any) -> None:
    floats = any(is_floating(leaf) for leaf in jax.tree.leaves(head))
    check(floats, "head", "got no floating-point leaf, takes one or more")
    check_range("alpha", alpha, 0)
    check_range("beta", beta, 0)


def _restore(values: Array, head: Any) -> Array:
    floats = [leaf for leaf in jax.tree.leaves(head) if is_floating(leaf)]
    return values.astype(jnp.result_type(*floats))
