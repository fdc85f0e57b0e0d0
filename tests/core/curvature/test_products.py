"""Products against dense matrices in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from papyrax import curvature

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
Y = RNG.integers(0, 4, 6)
PARAMS = {
    "w": RNG.normal(size=(3, 5)),
    "v": RNG.normal(size=(5, 4)),
    "steps": np.int32(7),  # a constant among the parameters
}
VECTOR = {"w": RNG.normal(size=(3, 5)), "v": RNG.normal(size=(5, 4)), "steps": np.int32(0)}


def logits(p, x, y=None):
    return jnp.tanh(x @ p["w"]) @ p["v"] * (p["steps"] / 7)


def losses(p, x, y):
    f = logits(p, x)
    return jax.nn.logsumexp(f, -1) - jnp.take_along_axis(f, y[:, None], -1)[:, 0]


def loss(p, x, y):
    return jnp.mean(losses(p, x, y))


def arrays():
    """In float64, which is only there inside `enable_x64`."""
    return jax.tree.map(jnp.asarray, (PARAMS, VECTOR, X, Y))


def flat(tree):
    return ravel_pytree([tree["w"], tree["v"]])[0]


def dense(fun, p, *args):
    """A function of the flat floating-point parameters."""
    start, unravel = ravel_pytree([p["w"], p["v"]])

    def of_flat(q):
        w, v = unravel(q)
        return fun({**p, "w": w, "v": v}, *args)

    return of_flat, start


def test_value_grad_and_hvp_is_the_hessian_times_the_vector():
    with jax.enable_x64(True):
        p, v, x, y = arrays()
        fused = jax.jit(curvature.value_grad_and_hvp(loss))
        value, grad, hv = fused(p, v, x, y)
        f, start = dense(loss, p, x, y)
        np.testing.assert_allclose(value, f(start), rtol=1e-14)
        want_grad, hessian = jax.jit(lambda q: (jax.grad(f)(q), jax.hessian(f)(q)))(start)
        np.testing.assert_allclose(flat(grad), want_grad, rtol=1e-12)
        np.testing.assert_allclose(flat(hv), hessian @ flat(v), rtol=1e-11)
        assert grad["steps"].dtype == hv["steps"].dtype == jnp.int32
        assert grad["steps"] == hv["steps"] == 0
        np.testing.assert_allclose(
            flat(jax.jit(curvature.hvp(loss))(p, v, x, y)), flat(hv), rtol=1e-13
        )


def test_auxiliary_output_is_passed_through():
    def with_aux(p, x, y):
        return (loss(p, x, y), {"hits": jnp.sum(logits(p, x).argmax(-1) == y)})

    p, v, x, y = arrays()
    (value, aux), grad, hv = jax.jit(curvature.value_grad_and_hvp(with_aux, has_aux=True))(
        p, v, x, y
    )
    want = jax.jit(curvature.value_grad_and_hvp(loss))(p, v, x, y)
    for got, w in zip(jax.tree.leaves((value, grad, hv)), jax.tree.leaves(want)):
        np.testing.assert_allclose(got, w, rtol=1e-5, atol=1e-7)
    assert aux["hits"].dtype == jnp.int32
    form = jax.jit(curvature.quadratic_form(with_aux, has_aux=True))(p, v, x, y)
    np.testing.assert_allclose(form.curvature, flat(hv) @ flat(v), rtol=1e-4)


def test_quadratic_form_has_the_taylor_coefficients():
    with jax.enable_x64(True):
        p, v, x, y = arrays()
        form = jax.jit(curvature.quadratic_form(loss))(p, v, x, y)
        value, grad, hv = jax.jit(curvature.value_grad_and_hvp(loss))(p, v, x, y)
        np.testing.assert_allclose(form.value, value, rtol=1e-13)
        np.testing.assert_allclose(form.slope, flat(grad) @ flat(v), rtol=1e-12)
        np.testing.assert_allclose(form.curvature, flat(hv) @ flat(v), rtol=1e-12)


def test_ggn_is_jacobian_hessian_of_the_outputs_jacobian():
    with jax.enable_x64(True):
        p, v, x, y = arrays()

        def outer(f, x, y):
            return jnp.mean(jax.nn.logsumexp(f, -1) - jnp.take_along_axis(f, y[:, None], -1)[:, 0])

        got = jax.jit(curvature.ggn_vp(logits, outer))(p, v, x, y)
        f, start = dense(logits, p, x)
        jacobian = jax.jit(jax.jacobian(f))(start).reshape(24, -1)
        hessian = jax.jit(jax.hessian(lambda f: outer(f, x, y)))(f(start)).reshape(24, 24)
        want = jacobian.T @ hessian @ jacobian
        np.testing.assert_allclose(flat(got), want @ flat(v), rtol=1e-11)

        # The Hessian is the Gauss-Newton matrix and the rest, which a straight model has not.
        def linear(p, x, y):
            return x @ p["w"][:, :4]

        gv = jax.jit(curvature.ggn_vp(linear, outer))(p, v, x, y)
        hv = jax.jit(curvature.hvp(lambda p, x, y: outer(linear(p, x, y), x, y)))(p, v, x, y)
        np.testing.assert_allclose(gv["w"], hv["w"], rtol=1e-12)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "gaussian"])
def test_fisher_is_the_covariance_of_the_score(likelihood):
    """The definition E_y[s s'], summed over all labels (the Gaussian one by its moments)."""
    with jax.enable_x64(True):
        p, v, x, _ = arrays()
        f, start = dense(logits, p, x)
        jacobian, outputs = jax.jit(lambda q: (jax.jacobian(f)(q), f(q)))(start)
        if likelihood == "categorical":
            prob = jax.nn.softmax(outputs)
            residual = prob[:, None] - jnp.eye(4)  # [row, label, output]
            cov = jnp.einsum("rl,rli,rlj->rij", prob, residual, residual)
        elif likelihood == "bernoulli":
            prob = jax.nn.sigmoid(outputs)
            cov = jax.vmap(jnp.diag)(prob * (1 - prob) ** 2 + (1 - prob) * prob**2)
        else:
            cov = jnp.broadcast_to(jnp.eye(4), (6, 4, 4))
        fisher = jnp.einsum("rip,rij,rjq->pq", jacobian, cov, jacobian) / 6
        got = jax.jit(curvature.fisher_vp(logits, likelihood=likelihood))(p, v, x)
        np.testing.assert_allclose(flat(got), fisher @ flat(v), rtol=1e-11)


def test_fisher_counts_the_rows_of_the_mask():
    with jax.enable_x64(True):
        p, v, x, _ = arrays()
        keep = jnp.array([True, False, True, True, False, False])
        masked = jax.jit(curvature.fisher_vp(lambda p, x, m: logits(p, x), where=lambda x, m: m))
        got = masked(p, v, x, keep)
        want = jax.jit(curvature.fisher_vp(logits))(p, v, x[keep])
        np.testing.assert_allclose(flat(got), flat(want), rtol=1e-12)
        nothing = masked(p, v, x, jnp.zeros(6, bool))
        np.testing.assert_array_equal(flat(nothing), 0)


def test_empirical_fisher_is_the_second_moment_of_the_gradients():
    with jax.enable_x64(True):
        p, v, x, y = arrays()
        got = jax.jit(curvature.empirical_fisher_vp(losses))(p, v, x, y)
        f, start = dense(losses, p, x, y)
        g = jax.jit(jax.jacobian(f))(start)
        np.testing.assert_allclose(flat(got), g.T @ (g @ flat(v)) / 6, rtol=1e-12)


def test_products_are_symmetric_and_vmap_over_vectors():
    p, v, x, y = arrays()
    fused = curvature.hvp(loss)
    vectors = jax.tree.map(lambda *a: jnp.stack(a), p, v)
    mapped = jax.jit(jax.vmap(lambda u: fused(p, u, x, y)))(vectors)
    left = flat(jax.tree.map(lambda a: a[0], mapped)) @ flat(v)
    right = flat(jax.tree.map(lambda a: a[1], mapped)) @ flat(p)
    np.testing.assert_allclose(left, right, rtol=1e-4)


def test_mixed_precision_parameters():
    p = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.full((2, 2), 2.0)}

    def f(p):
        return jnp.sum(p["a"].astype(jnp.float32) ** 2) + jnp.sum(p["b"] ** 3)

    _, grad, hv = curvature.value_grad_and_hvp(f)(p, jax.tree.map(lambda x: x * 1.0, p))
    assert [x.dtype for x in jax.tree.leaves((grad, hv))] == [jnp.bfloat16, jnp.float32] * 2
    np.testing.assert_array_equal(hv["a"].astype(jnp.float32), 2)
    np.testing.assert_array_equal(hv["b"], 24)


def test_wrong_vectors_are_named():
    p, v, x, y = arrays()
    with pytest.raises(ValueError, match="vector: got a leaf of shape"):
        curvature.hvp(loss)(p, {**v, "w": jnp.zeros((3, 4))}, x, y)
    with pytest.raises(ValueError, match="vector: got the tree"):
        curvature.hvp(loss)(p, {"w": v["w"]}, x, y)
    with pytest.raises(ValueError, match="params: got a leaf of complex"):
        curvature.hvp(lambda p: jnp.abs(p) ** 2)(jnp.complex64(1), jnp.complex64(1))
    with pytest.raises(ValueError, match="likelihood"):
        curvature.fisher_vp(logits, likelihood="poisson")
