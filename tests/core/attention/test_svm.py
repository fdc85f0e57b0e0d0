"""The attention support vector machine against SLSQP, its optimality conditions and symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from papyrax import attention
from papyrax.attention import attention_margins, matrix_correlation

svm = jax.jit(attention.attention_svm, static_argnames=("norm", "iterations"))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed, n=3, T=4, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, T, d)), rng.normal(size=(n, d)), rng.integers(0, T, n)


def constraints(x, z, optimal):
    """One row a constraint: (x_opt - x_t) z^T, flat."""
    rows = []
    for i, o in enumerate(optimal):
        rows += [np.outer(x[i, o] - x[i, t], z[i]).ravel() for t in range(x.shape[1]) if t != o]
    return np.stack(rows)


def slsqp(F):
    found = scipy.optimize.minimize(
        lambda w: (0.5 * w @ w, w),
        np.zeros(F.shape[1]),
        jac=True,
        constraints={"type": "ineq", "fun": lambda w: F @ w - 1, "jac": lambda w: F},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return found.x


@pytest.mark.parametrize("seed", range(3))
def test_frobenius_solution_is_that_of_slsqp(seed):
    x, z, optimal = draw(seed)
    want = slsqp(constraints(x, z, optimal)).reshape(5, 5)
    np.testing.assert_allclose(svm(x, z, optimal), want, atol=1e-9)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_least_margin_is_one_and_no_other_norm_is_smaller(norm):
    x, z, optimal = draw(3)
    weights = np.asarray(svm(x, z, optimal, norm=norm))
    margins = np.asarray(attention_margins(weights, x, z, optimal))
    others = np.arange(4) != optimal[:, None]
    np.testing.assert_allclose(margins[others].min(), 1, atol=1e-10)
    other = svm(x, z, optimal, norm="nuclear" if norm == "frobenius" else "frobenius")
    kind = "fro" if norm == "frobenius" else "nuc"
    assert np.linalg.norm(weights, kind) < np.linalg.norm(other, kind) - 1e-4


def test_nuclear_solution_meets_its_dual():
    """|W|_* is the most that multipliers a >= 0 with |sum a F| <= 1 in spectral norm add up to."""
    x, z, optimal = draw(4)
    F = constraints(x, z, optimal)
    weights = np.asarray(svm(x, z, optimal, norm="nuclear"))
    # At the optimum sum_k a_k F_k is the polar factor of W on its range; least squares finds a.
    u, s, v = np.linalg.svd(weights)
    r = int((s > 1e-4 * s[0]).sum())
    assert r < 4  # low rank is what the norm is for
    active = np.flatnonzero(F @ weights.ravel() < 1 + 1e-5)
    in_range = np.stack([u[:, :r].T @ f.reshape(5, 5) @ v[:r].T for f in F[active]])
    a, _ = scipy.optimize.nnls(in_range.reshape(len(active), -1).T, np.eye(r).ravel())
    dual = np.linalg.norm(np.einsum("k,kde->de", a, F[active].reshape(-1, 5, 5)), 2)
    assert dual <= 1 + 1e-4
    np.testing.assert_allclose(a.sum() / max(dual, 1), np.linalg.norm(weights, "nuc"), rtol=2e-4)


def test_maps_over_problems():
    x, z, optimal = (np.stack(a) for a in zip(draw(4), draw(5)))
    got = jax.vmap(lambda *a: svm(*a, norm="nuclear"))(x, z, optimal)
    for i in range(2):
        np.testing.assert_allclose(got[i], svm(x[i], z[i], optimal[i], norm="nuclear"), atol=1e-5)


def test_float32_is_close():
    x, z, optimal = draw(5)
    narrow = (x.astype(np.float32), z.astype(np.float32), optimal)
    for norm, rtol in (("frobenius", 1e-3), ("nuclear", 5e-2)):
        want = np.asarray(svm(x, z, optimal, norm=norm))
        got = svm(*narrow, norm=norm)
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= rtol * np.abs(want).max()


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_rotations_and_units(norm):
    x, z, optimal = draw(6)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    want = np.asarray(svm(x, z, optimal, norm=norm))
    got = svm(30 * x @ turn.T, 0.1 * z @ turn.T, optimal, norm=norm)
    np.testing.assert_allclose(3 * turn.T @ got @ turn, want, atol=1e-5)


def test_hidden_tokens_have_no_constraint():
    x, z, optimal = draw(7)
    optimal = np.zeros(3, int)
    mask = np.array([True, True, True, False])
    got = svm(x, z, optimal, np.broadcast_to(mask, (3, 4)))
    np.testing.assert_allclose(got, svm(x[:, :3], z, optimal), atol=1e-10)


def test_derivative_is_that_of_the_solution():
    x, z, optimal = draw(8)
    direction = np.random.default_rng(1).normal(size=x.shape)
    _, got = jax.jvp(lambda x: svm(x, z, optimal), (x,), (direction,))
    step = 1e-4
    ahead, back = (
        slsqp(constraints(x + s * direction, z, optimal)).reshape(5, 5) for s in (step, -step)
    )
    want = (ahead - back) / (2 * step)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_nuclear_solution_refuses_to_be_differentiated():
    x, z, optimal = draw(9)
    with pytest.raises(NotImplementedError, match="nuclear"):
        jax.grad(lambda x: jnp.sum(attention.attention_svm(x, z, optimal, norm="nuclear")))(x)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_inseparable_tokens_show_in_the_margins(norm):
    x = np.ones((2, 3, 5))
    x[:, 1, 0] = (2, 0)  # asked one way by the first example and the other by the second
    z = np.ones((2, 5))
    weights = svm(x, z, np.zeros(2, int), norm=norm)
    assert np.all(np.isfinite(weights))
    assert np.asarray(attention_margins(weights, x, z, np.zeros(2, int)))[:, 1].min() < 0.5


def test_correlation_is_a_cosine():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    want = [np.vdot(p, q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a, b)]
    np.testing.assert_allclose(matrix_correlation(a, b), want, rtol=1e-12)
    np.testing.assert_allclose(matrix_correlation(a, -2e30 * a), -1, rtol=1e-12)
    np.testing.assert_allclose(matrix_correlation(a, 0 * a), 0)
