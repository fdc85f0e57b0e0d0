"""Estimators of the diagonal of a Hessian that share their pass with the gradient.

An estimator gives, for one piece of the batch, a statistic that is linear in the loss. Pieces and
devices can therefore be averaged exactly, before anything is squared or made absolute.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import check, check_count, check_positive
from .likelihoods import Likelihood, check_likelihood, row_weights, sampled_score
from .probes import PROBES, Distribution, check_distribution
from .trees import dot, varying_like

Floats = list[jax.Array]
Model = Callable[[Floats], tuple[Any, Any]]


class Measured(NamedTuple):
    """What one pass over one piece of the batch gives.

    Attributes:
      value: the mean loss [].
      grads: its gradient.
      statistic: averages over pieces to what `Estimator.diagonal` takes; None without a refresh.
      terms: the number of terms that the loss is the mean of [].
    """

    value: jax.Array
    grads: Floats
    statistic: Any
    terms: jax.Array


class Estimator:
    """How the diagonal is estimated: `hutchinson`, `gnb` or `exact_diagonal`."""

    def loss(self, outputs: Any, *args: Any) -> Any:
        """The scalar loss of what `fun` returns: `fun` returns it already, unless overridden."""
        del args
        return outputs

    def first_order(self, model: Model, args: Any, floats: Floats) -> tuple[Any, Measured]:
        """Value and gradient alone."""

        def f(floats: Floats) -> tuple[Any, Any]:
            outputs, aux = model(floats)
            return self.loss(outputs, *args), aux

        (value, aux), grads = jax.value_and_grad(f, has_aux=True)(floats)
        return aux, Measured(value, grads, None, jnp.zeros((), jnp.float32))

    def measure(
        self, model: Model, args: Any, floats: Floats, key: jax.Array, piece: Any
    ) -> tuple[Any, Measured]:
        """Value, gradient and statistic of one piece of the batch, in one pass."""
        raise NotImplementedError

    def diagonal(self, statistic: Any, terms: jax.Array) -> Floats:
        """The diagonal from the mean of the statistic and the total number of terms."""
        del terms
        return statistic


@dataclasses.dataclass(frozen=True)
class Hutchinson(Estimator):
    """See `hutchinson`."""

    n_samples: int
    distribution: Distribution

    def measure(
        self, model: Model, args: Any, floats: Floats, key: jax.Array, piece: Any
    ) -> tuple[Any, Measured]:
        """One `jvp` of the gradient, or one linearization for several probes."""
        del piece  # all pieces and devices share the probe: the mean of H_i z is then H z

        def value_and_grad(floats: Floats) -> tuple[Any, Any]:
            aux, first = self.first_order(model, args, floats)
            return (first.value, first.grads), aux

        like = PROBES[self.distribution]
        if self.n_samples == 1:
            z = like(key, floats)
            (value, grads), (_, hz), aux = jax.jvp(value_and_grad, (floats,), (z,), has_aux=True)
            diag = [a * b for a, b in zip(z, hz)]
        else:
            # One linearization serves all probes: 1 + 2n gradients instead of 3n.
            (value, grads), product, aux = jax.linearize(value_and_grad, floats, has_aux=True)

            def add(total: Floats, key: jax.Array) -> tuple[Floats, None]:
                z = like(key, floats)
                terms = [a * b / self.n_samples for a, b in zip(z, product(z)[1])]
                return [t + x for t, x in zip(total, terms)], None

            keys = jax.random.split(key, self.n_samples)
            diag, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, grads), keys)
        return aux, Measured(value, grads, diag, jnp.zeros((), jnp.float32))


@dataclasses.dataclass(frozen=True)
class GNB(Estimator):
    """See `gnb`."""

    loss_fn: Callable[..., Any]
    likelihood: Likelihood
    n_samples: int
    where: Callable[..., Any] | None
    clip_norm: float | None

    def loss(self, outputs: Any, *args: Any) -> Any:
        """The loss of the outputs."""
        return self.loss_fn(outputs, *args)

    def measure(
        self, model: Model, args: Any, floats: Floats, key: jax.Array, piece: Any
    ) -> tuple[Any, Measured]:
        """One forward pass with a backward pass for the labels and for each sampled set."""
        # The forward pass is shared by the gradient and by that of the sampled labels.
        outputs, pull, aux = jax.vjp(model, floats, has_aux=True)
        weights = row_weights(outputs, self.where(*args) if self.where else None)
        value, cotangent = jax.value_and_grad(lambda f: self.loss(f, *args))(outputs)
        (grads,) = pull(cotangent)

        def sampled(key: jax.Array) -> Floats:
            return pull(sampled_score(self.likelihood, key, outputs, weights))[0]

        key = jax.random.fold_in(key, piece)  # every piece has its own examples, so its own labels
        if self.n_samples == 1:
            scores = [g[None] for g in sampled(key)]
        else:
            scores = jax.lax.map(sampled, jax.random.split(key, self.n_samples))
        return aux, Measured(value, grads, scores, jnp.sum(weights).astype(jnp.float32))

    def diagonal(self, statistic: Any, terms: jax.Array) -> Floats:
        """The number of terms times the mean square of the sampled gradients."""
        wide = [g.astype(jnp.promote_types(g.dtype, jnp.float32)) for g in statistic]
        if self.clip_norm is not None:
            norms = jnp.sqrt(jax.vmap(lambda g: dot(g, g))(wide))
            scale = jnp.minimum(1, self.clip_norm / jnp.maximum(norms, 1e-30))
            wide = [g * scale.reshape(-1, *(1,) * (g.ndim - 1)) for g in wide]
        squares = [jnp.mean(jnp.square(g), axis=0) * terms.astype(g.dtype) for g in wide]
        return [s.astype(g.dtype) for s, g in zip(squares, statistic)]


@dataclasses.dataclass(frozen=True)
class Exact(Estimator):
    """See `exact_diagonal`."""

    batch_size: int | None

    def measure(
        self, model: Model, args: Any, floats: Floats, key: jax.Array, piece: Any
    ) -> tuple[Any, Measured]:
        """The gradient, and one forward-over-forward pass for each entry."""
        del key, piece
        aux, first = self.first_order(model, args, floats)

        def f(floats: Floats) -> Any:
            return self.loss(model(floats)[0], *args)

        def entry(i: jax.Array) -> jax.Array:
            """e_i' H e_i by forward over forward; the unit vector is made where it is used."""
            unit, start = [], 0
            for x in floats:
                one_hot = jnp.arange(start, start + x.size) == i
                unit.append(varying_like(one_hot.reshape(x.shape).astype(x.dtype), x))
                start += x.size
            return jax.jvp(lambda x: jax.jvp(f, (x,), (unit,))[1], (floats,), (unit,))[1]

        entries = jax.lax.map(
            entry, jnp.arange(sum(x.size for x in floats)), batch_size=self.batch_size
        )
        diag, start = [], 0
        for x in floats:
            diag.append(entries[start : start + x.size].reshape(x.shape).astype(x.dtype))
            start += x.size
        return aux, first._replace(statistic=diag)


def hutchinson(*, n_samples: int = 1, distribution: Distribution = "rademacher") -> Estimator:
    """Hutchinson's estimator of the diagonal of the Hessian.

        diag H ~ 1/n sum_s z_s * (H z_s),   E[z z'] = I

    Unbiased; exact for a diagonal Hessian and Rademacher probes. One probe costs two gradients
    beyond the gradient itself, n probes 2n.

    Args:
      n_samples: n, the number of probes.
      distribution: "rademacher" (signs: least variance) or "normal" (as in Sophia's algorithm 1).

    Returns:
      An estimator for `value_grad_and_diag`, of trees [...] as the parameters.

    Raises:
      ValueError: if `n_samples` is not positive or `distribution` unknown.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    equation 10; normal probes: Sophia, arXiv 2305.14342, algorithm 1.

    >>> cubic = lambda p: jnp.sum(p**3)
    >>> f = papyrax.curvature.value_grad_and_diag(cubic, estimator=hutchinson())
    >>> f(jnp.array([1.0, 2.0]), key=jax.random.key(0))[2].diag.tolist()
    [6.0, 12.0]
    """
    check_count(n_samples=n_samples)
    check_distribution(distribution)
    return Hutchinson(n_samples, distribution)


def gnb(
    loss: Callable[..., Any],
    *,
    likelihood: Likelihood = "categorical",
    n_samples: int = 1,
    where: Callable[..., Any] | None = None,
    clip_norm: float | None = None,
) -> Estimator:
    """The Gauss-Newton-Bartlett estimator of the diagonal of the Gauss-Newton matrix.

        y_i ~ p(y | f_i),   g^ = grad of the mean of -log p(y_i | f_i),   diag G ~ N g^2

    With it, the function given to `value_grad_and_diag` returns the outputs f (logits), and the
    loss is told to the estimator. Positive by construction, first order only (it serves kernels
    without a forward-mode rule), and, with the forward pass shared, 5/3 of a gradient in
    operations. N counts the rows of the whole batch, over all pieces and devices.

    Args:
      loss: `loss(outputs, *args) -> loss []`, the mean over rows of the negative log-likelihood of
        a row, with the `args` of the model.
      likelihood: what outputs [..., outputs] mean: "categorical" (logits), "bernoulli"
        (independent logits) or "gaussian" (means of unit variance).
      n_samples: how many labels are drawn for each row.
      where: `where(*args) -> mask [...]` of the rows that the loss is the mean of; all by default.
      clip_norm: scales g^ down to this global norm first, which the authors' training script does
        with 1.0; the algorithm in the paper does not.

    Returns:
      An estimator for `value_grad_and_diag`, of trees [...] as the parameters.

    Raises:
      ValueError: if `likelihood` is unknown or a number is not positive.

    Source: Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
    arXiv 2305.14342, algorithm 2; Liuhong99/Sophia train_sophiag.py (two passes, clipped).

    >>> import optax
    >>> loss = lambda f, x, y: optax.softmax_cross_entropy_with_integer_labels(f, y).mean()
    >>> f = papyrax.curvature.value_grad_and_diag(lambda w, x, y: x @ w, estimator=gnb(loss))
    >>> x, y = jnp.ones((4, 2)), jnp.array([0, 1, 2, 0])
    >>> value, grads, curvature = f(jnp.zeros((2, 3)), x, y, key=jax.random.key(0))
    >>> curvature.diag.shape, bool(jnp.all(curvature.diag >= 0))
    ((2, 3), True)
    """
    check(callable(loss), "loss", f"got {loss!r}, takes a function of the outputs")
    check_likelihood(likelihood)
    check_count(n_samples=n_samples)
    if clip_norm is not None:
        check_positive(clip_norm=clip_norm)
    return GNB(loss, likelihood, n_samples, where, clip_norm)


def exact_diagonal(*, batch_size: int | None = None) -> Estimator:
    """The exact diagonal of the Hessian, one entry after the other; for small problems and tests.

        (diag H)_i = e_i' H e_i

    As many forward-over-forward passes as there are parameters; each unit vector exists only
    while it is used, so that memory stays linear in the number of parameters.

    Args:
      batch_size: how many entries are computed together.

    Returns:
      An estimator for `value_grad_and_diag`, of trees [...] as the parameters.

    Raises:
      ValueError: if `batch_size` is not positive.

    Source: definition of the diagonal that ADAHESSIAN, arXiv 2006.00719, estimates.

    >>> cubic = lambda p: p[0] ** 2 * p[1]
    >>> f = papyrax.curvature.value_grad_and_diag(cubic, estimator=exact_diagonal())
    >>> f(jnp.array([1.0, 3.0]), key=jax.random.key(0))[2].diag.tolist()
    [6.0, 0.0]
    """
    check_count(batch_size=1 if batch_size is None else batch_size)
    return Exact(batch_size)
