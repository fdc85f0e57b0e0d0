"""How far apart the gradients and Hessians of a loss are over several domains."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import accumulation_dtype, check, check_count, check_key
from .probes import rademacher_like
from .trees import Split

Estimate = Literal["hgp", "hutchinson"]


class DomainAlignment(NamedTuple):
    """Squared distances of each domain to the mean of all.

    Attributes:
      gradient: of the gradients [domains].
      curvature: of what stands for the Hessians [domains].
    """

    gradient: Float[Array, "domains"]
    curvature: Float[Array, "domains"]


def domain_alignment(
    fun: Callable[..., Any],
    *,
    estimate: Estimate = "hgp",
    n_samples: int = 100,
    stop_mean: bool = True,
) -> Callable[..., DomainAlignment]:
    """How far the gradient and the Hessian of each domain are from those of the mean loss.

        gradient_e = |g_e - g|^2,   g_e = grad f_e,  f = mean_e f_e
        "hgp":         curvature_e = |H_e g_e - H g|^2
        "hutchinson":  curvature_e = |D_e - D|^2,   D_e = 1/S sum_s z_s * H_e z_s

    Products with the Hessian alone, and differentiable, so that a network can be trained to have
    aligned ones. Meant for the head of a classifier, whose Hessian says which features are used and
    how sure the predictions are. All domains share the probes z, so that equal domains are at
    distance zero; the released code draws anew for each.

    Args:
      fun: `fun(params, *args) -> loss []` of one domain.
      estimate: "hgp" compares products of the Hessian with the gradient, "hutchinson" diagonals.
      n_samples: S of "hutchinson".
      stop_mean: hold the mean's gradient and Hessian constant when the distances are
        differentiated; False for the authors' script of Coloured MNIST.

    Returns:
      A function `(params, *args, key=None) -> DomainAlignment`, where `args` have a leading axis
      [domains, ...] and "hutchinson" needs a `key`.

    Raises:
      ValueError: naming the argument that is out of range or has no axis of domains.

    Source: Understanding Hessian Alignment for Domain Generalization, arXiv 2308.11778, section 5;
    huawei-noah/Federated-Learning HessianAlignment/domainbed/algorithms.py (`HGP`, `Hutchinson`).

    >>> square = lambda w, x: jnp.sum((x * w) ** 2) / 2
    >>> x = jnp.array([[1.0], [2.0]])  # g = 1, 4 and H = 1, 4
    >>> found = domain_alignment(square)(jnp.array([1.0]), x)
    >>> found.gradient.tolist(), found.curvature.tolist()
    ([2.25, 2.25], [27.5625, 95.0625])
    """
    message = f"got {estimate!r}, takes 'hgp' or 'hutchinson'"
    check(estimate in ("hgp", "hutchinson"), "estimate", message)
    check_count(n_samples=n_samples)

    def measure(params: Any, *args: Any, key: Any = None) -> DomainAlignment:
        leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(args)}
        same = len(leading) == 1 and () not in leading and (0,) not in leading
        check(same, "args", f"got leading axes {leading}, takes one [domains, ...] of all")
        split = Split.of(params)
        floats = split.floats

        def slope(floats: Any, domain: Any) -> Any:
            return jax.grad(lambda leaves: fun(split.join(leaves), *domain))(floats)

        def product(vector: Any, domain: Any) -> Any:
            return jax.jvp(lambda leaves: slope(leaves, domain), (floats,), (vector,))[1]

        def mean(tree: Any) -> Any:
            center = [jnp.mean(leaf, 0) for leaf in tree]
            return jax.lax.stop_gradient(center) if stop_mean else center

        grads = jax.vmap(slope, (None, 0))(floats, args)
        center = mean(grads)
        if estimate == "hgp":
            curves = jax.vmap(product)(grads, args)
            middle = mean(jax.vmap(product, (None, 0))(center, args))
        else:
            check_key(key=key)

            def add(total: Any, key: Array) -> tuple[Any, None]:
                z = rademacher_like(key, floats)
                hz = jax.vmap(product, (None, 0))(z, args)
                return [t + h * x for t, h, x in zip(total, hz, z)], None

            zeros = [jnp.zeros_like(g) for g in grads]
            total, _ = jax.lax.scan(add, zeros, jax.random.split(key, n_samples))
            curves = [t / n_samples for t in total]
            middle = mean(curves)
        return DomainAlignment(_squares(grads, center), _squares(curves, middle))

    return measure


def _squares(rows: Any, center: Any) -> Float[Array, "domains"]:
    """Squared distance of each domain's tree to the centre, in float32 or wider."""
    dtype = accumulation_dtype(*rows)
    gaps = [x.astype(dtype) - c.astype(dtype) for x, c in zip(rows, center)]
    return sum((jnp.sum(jnp.square(g).reshape(len(g), -1), 1) for g in gaps), start=jnp.zeros(()))
