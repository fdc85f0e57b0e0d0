"""Alignment of domains, against Hessians that are formed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import curvature, losses

RNG = np.random.default_rng(0)
W, X, Y = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 5, 3)), RNG.integers(0, 2, (3, 5))


def loss(head, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(x @ head, y).mean()


def by_hand():
    """Gradients [3, 6] and Hessians [3, 6, 6] of a linear softmax head: formulae, no tracing."""
    gradients, hessians = [], []
    for x, y in zip(X, Y):
        p = np.exp(x @ W)
        p /= p.sum(1, keepdims=True)
        gradients.append(np.einsum("ni,nk->ik", x, p - np.eye(2)[y]).ravel() / len(x))
        spread = p[:, :, None] * np.eye(2) - p[:, :, None] * p[:, None]
        h = np.einsum("ni,nj,nkl->ikjl", x, x, spread) / len(x)
        hessians.append(h.reshape(6, 6))
    return np.array(gradients), np.array(hessians)


def test_hgp_equals_full_hessians():
    with jax.enable_x64(True):
        args = jnp.asarray(W), jnp.asarray(X), jnp.asarray(Y)
        found = jax.jit(curvature.domain_alignment(loss))(*args)
        penalty = lambda *a: losses.hgp_penalty(loss, *a, alpha=0.3, beta=2.0)  # noqa: E731
        both = jax.jit(penalty)(*args)
    g, h = by_hand()
    gradient = np.sum((g - g.mean(0)) ** 2, 1)
    own = np.einsum("eij,ej->ei", h, g)
    hgp = np.sum((own - h.mean(0) @ g.mean(0)) ** 2, 1)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-10)
    np.testing.assert_allclose(found.curvature, hgp, rtol=1e-10)
    np.testing.assert_allclose(both, 0.3 * hgp + 2 * gradient, rtol=1e-10)


def test_hutchinson_approaches_the_diagonal_and_is_exact_for_a_diagonal_hessian():
    _, h = by_hand()
    diagonal = np.einsum("eii->ei", h)
    want = np.sum((diagonal - diagonal.mean(0)) ** 2, 1)
    measure = curvature.domain_alignment(loss, estimate="hutchinson", n_samples=20_000)
    found = jax.jit(measure)(jnp.asarray(W), jnp.asarray(X), jnp.asarray(Y), key=jax.random.key(0))
    np.testing.assert_allclose(found.curvature, want, rtol=0.1)

    scale = jnp.asarray(RNG.uniform(1, 2, (3, 4)))
    bowl = lambda w, s: jnp.sum(s * w**4)  # noqa: E731
    w = jnp.asarray(RNG.normal(size=4))
    one = curvature.domain_alignment(bowl, estimate="hutchinson", n_samples=1)
    diagonal = 12 * np.asarray(scale) * np.asarray(w) ** 2
    want = np.sum((diagonal - diagonal.mean(0)) ** 2, 1)
    np.testing.assert_allclose(one(w, scale, key=jax.random.key(1)).curvature, want, rtol=1e-5)


@pytest.mark.parametrize("name", ["hgp", "hutchinson"])
def test_equal_domains_are_aligned(name):
    measure = curvature.domain_alignment(loss, estimate=name, n_samples=3)
    x, y = (jnp.broadcast_to(jnp.asarray(a[0]), a.shape) for a in (X, Y))
    found = jax.jit(measure)(jnp.asarray(W), x, y, key=jax.random.key(0))
    np.testing.assert_allclose(found.gradient, 0, atol=1e-12)
    np.testing.assert_allclose(found.curvature, 0, atol=1e-12)


def test_the_mean_is_held_constant_where_asked():
    """With one domain of two at rest, half of the gap's derivative is the mean's."""
    bowl = lambda w, s: s * w**2  # noqa: E731

    def penalty(stop_mean):
        """Of s_1, at s_2 = 1 and w = 1: g = 2 s, mean g = s_1 + 1."""

        def value(s):
            pair = jnp.stack([s, jnp.ones(())])
            args = {"alpha": 0.0, "beta": 1.0, "stop_mean": stop_mean}
            return losses.hgp_penalty(bowl, jnp.ones(()), pair, **args)[0]

        return float(jax.jit(jax.grad(value))(3.0))

    assert penalty(False) == 4.0  # d/ds (s - 1)^2
    assert penalty(True) == 8.0  # d/ds (2 s - 4)^2
