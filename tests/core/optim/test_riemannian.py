"""Steps on the Grassmann manifold against singular value decompositions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import recorded

from papyrax.optim import grassmann_sgd

RATE, MOMENTUM = 0.3, 0.8


def numpy_steps(s, grads, transport, retraction):
    """The algorithm as the paper writes it, one subspace."""
    m = np.zeros_like(s)
    for g in grads:
        m = MOMENTUM * m + g
        d = m - s @ (s.T @ m)
        m = d if transport else m
        if retraction == "geodesic":
            u, angles, vt = np.linalg.svd(-RATE * d, full_matrices=False)
            s = (s @ vt.T @ np.diag(np.cos(angles)) + u @ np.diag(np.sin(angles))) @ vt
        else:
            q, r = np.linalg.qr(s - RATE * d)
            s = q * np.sign(np.diag(r))
    return s


@pytest.mark.parametrize(
    ("transport", "retraction"), [(True, "geodesic"), (False, "geodesic"), (True, "qr")]
)
def test_steps(transport, retraction):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        bases = np.linalg.qr(rng.normal(size=(2, 5, 2)))[0]
        bases *= np.sign(rng.normal(size=(2, 1, 2)))
        grads, bias = rng.normal(size=(3, 2, 5, 2)), rng.normal(size=(3, 4))
        tx = grassmann_sgd(
            RATE, MOMENTUM, transport=transport, retraction=retraction, weight_decay=0.1
        )
        sgd = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE, MOMENTUM))

        def run(tx, params, grads):
            def step(carry, g):
                updates, state = tx.update(g, carry[1], carry[0])
                return (optax.apply_updates(carry[0], updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), grads)[0][0]

        both = jax.jit(lambda p, g: run(tx, p, g))
        params = {"head": jnp.asarray(bases), "bias": jnp.ones(4)}
        got = both(params, {"head": grads, "bias": bias})
        for k in range(2):
            want = numpy_steps(bases[k], grads[:, k], transport, retraction)
            np.testing.assert_allclose(got["head"][k], want, atol=1e-12)
            np.testing.assert_allclose(want.T @ want, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(got["bias"], run(sgd, jnp.ones(4), bias), atol=1e-12)


@pytest.mark.parametrize("name", ["released", "momentum"])
def test_authors(name):
    """Losses and subspaces over twelve steps of the authors' head, in float64.

    Their code orthonormalizes the bases at every fifth step with whatever signs LAPACK gives.
    Without momentum that changes no subspace. With it the columns flip and the momentum does not,
    so that their run is one without the decomposition.
    """
    entries = recorded("grassmann", "optim")
    shared, entry = entries["released"], entries[name]
    with jax.enable_x64(True):
        x, labels, bases = (jnp.asarray(np.array(shared[k])) for k in ("x", "labels", "bases"))
        unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        tx = grassmann_sgd(**entry["static"])

        def loss(bases):
            parts = jnp.einsum("bd,kdr->bkr", unit, bases)
            logits = shared["scale"] * jnp.linalg.norm(parts, axis=-1)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(carry, _):
            value, grad = jax.value_and_grad(loss)(carry[0])
            updates, state = tx.update(grad, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), value

        walk = jax.jit(lambda b: jax.lax.scan(step, (b, tx.init(b)), length=12))
        (got, _), values = walk(bases)
        np.testing.assert_allclose(values, entry["losses"], rtol=1e-10)
        projectors = got @ jnp.swapaxes(got, 1, 2)
        np.testing.assert_allclose(projectors, entry["projectors"], rtol=1e-10, atol=1e-12)


def test_it_finds_the_leading_eigenvectors():
    """Their span minimizes `-trace(S' A S)`; without a gradient nothing moves."""
    rng = np.random.default_rng(2)
    vectors = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = jnp.asarray(vectors @ np.diag([5, 4, 1, 0.5, 0.2, 0.1]) @ vectors.T, jnp.float32)
    tx = grassmann_sgd(optax.constant_schedule(0.05), 0.5)
    start = jnp.linalg.qr(jnp.asarray(rng.normal(size=(6, 2)), jnp.float32))[0]

    def step(carry, active):
        s, state = carry
        grads = active * jax.grad(lambda s: -jnp.trace(s.T @ matrix @ s))(s)
        updates, state = tx.update(grads, state, s)
        return (optax.apply_updates(s, updates), state), None

    walk = jax.jit(lambda s, active: jax.lax.scan(step, (s, tx.init(s)), active)[0][0])
    found = np.asarray(walk(start, jnp.ones(200)), np.float64)
    want = vectors[:, :2] @ vectors[:, :2].T
    np.testing.assert_allclose(found @ found.T, want, atol=1e-4)
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(walk(start, jnp.zeros(200)), start, atol=1e-5)


def test_what_is_no_basis_is_named():
    tx = grassmann_sgd(0.1, subspaces={"w": True})
    with pytest.raises(ValueError, match=r"subspaces: got one of shape \(2, 3\)"):
        tx.init({"w": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match="params: got None"):
        tx.update({"w": jnp.ones((3, 2))}, tx.init({"w": jnp.ones((3, 2))}))
