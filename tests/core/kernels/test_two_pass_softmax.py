"""Two-pass softmax against NumPy in float64; its derivatives against those of the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from papyrax.kernels import (
    extended_add,
    extended_exp,
    two_pass_log_softmax,
    two_pass_softmax,
)
from papyrax.kernels.two_pass_softmax import pallas_tpu, xla

STATIC = ("axis", "implementation")
softmax = jax.jit(two_pass_softmax, static_argnames=STATIC)
log_softmax = jax.jit(two_pass_log_softmax, static_argnames=STATIC)
X = np.random.default_rng(0).normal(size=(9, 300)).astype(np.float32)


def exact(x, where=True):
    x = np.where(where, np.asarray(x, np.float64), -np.inf)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_float32_is_as_good_as_its_input(implementation):
    for scale in (1, 100, 5000):
        x = np.float32(scale) * X
        want = exact(x)
        got = np.asarray(softmax(x, implementation=implementation), np.float64)
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-30)
        np.testing.assert_allclose(got.sum(-1), 1, rtol=2e-6)
        with np.errstate(divide="ignore"):
            log = np.log(want)
        got = log_softmax(x, implementation=implementation)
        near = log > -600
        np.testing.assert_allclose(np.asarray(got)[near], log[near], rtol=1e-6, atol=scale * 1e-6)


def test_float64():
    with jax.enable_x64(True):
        x = 1e3 * X.astype(np.float64)
        for implementation in ("xla", "interpret"):
            got = softmax(x, implementation=implementation)
            np.testing.assert_allclose(got, exact(x), rtol=1e-13, atol=1e-300)


def test_several_blocks_of_rows_and_columns(monkeypatch):
    monkeypatch.setattr(pallas_tpu, "ROWS", 8)
    monkeypatch.setattr(pallas_tpu, "COLUMNS", 128)
    for log in (False, True):
        got = pallas_tpu.run(jnp.asarray(30 * X), log=log, interpret=True)
        np.testing.assert_allclose(
            got, xla.run(jnp.asarray(30 * X), log=log, pieces=False), rtol=3e-6, atol=1e-5 * log
        )


@pytest.mark.parametrize("cached", [32, 700])
def test_pieces_of_rows_and_of_columns(monkeypatch, cached):
    want = xla.run(jnp.asarray(30 * X), log=False, pieces=False)
    monkeypatch.setattr(xla, "CACHED", cached)
    got = jax.jit(functools.partial(xla.run, log=False, pieces=True))(30 * X)
    np.testing.assert_allclose(got, want, rtol=3e-6)


def test_axis_mask_and_empty_rows():
    where = np.random.default_rng(1).random(X.shape) > 0.5
    where[3] = False
    for implementation in ("xla", "interpret"):
        got = np.asarray(softmax(X.T, where=where.T, axis=0, implementation=implementation)).T
        np.testing.assert_array_equal(got[~where], 0)
        rest = np.arange(9) != 3
        np.testing.assert_allclose(got[rest], exact(X[rest], where[rest]), rtol=3e-6)
        hidden = np.where(where, X, -np.inf).astype(np.float32)
        np.testing.assert_array_equal(got, softmax(hidden, implementation=implementation))
        log = np.asarray(log_softmax(X, where=where, implementation=implementation))
        assert np.all(log[~where] == np.finfo(np.float32).min)


def test_nan_and_infinity_are_not_hidden():
    got = np.asarray(softmax(np.array([[0, np.nan], [0, 1]], np.float32)))
    assert np.all(np.isnan(got[0]))
    np.testing.assert_allclose(got[1], exact([0.0, 1.0]), rtol=1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_derivatives_of_three_orders(log):
    """All nestings of jvp and vjp of second order, and a third; in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        x, u, v, w, g = rng.normal(size=(5, 2, 6))
        ours = functools.partial(two_pass_log_softmax if log else two_pass_softmax)
        plain = jax.nn.log_softmax if log else jax.nn.softmax

        def everything(f):
            value = lambda x: jnp.sum(jnp.sin(3 * f(x)) * g)  # noqa: E731
            forward = lambda x: jax.jvp(f, (x,), (u,))[1]  # noqa: E731
            hvp = lambda x: jax.jvp(jax.grad(value), (x,), (v,))[1]  # noqa: E731
            return (
                forward(x),
                jax.grad(value)(x),
                hvp(x),
                jax.grad(lambda x: jnp.sum(jax.grad(value)(x) * v))(x),
                jax.jvp(forward, (x,), (v,))[1],
                jax.grad(lambda x: jnp.sum(forward(x) * g))(x),
                jax.jvp(hvp, (x,), (w,))[1],
            )

        got, want = jax.jit(lambda: (everything(ours), everything(plain)))()
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_shards_sum_by_the_same_addition():
    """The representation is what partial sums of devices are exchanged in."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("i",))
    x = 200 * X[:1, :].T.reshape(4, 75)

    spec = PartitionSpec("i")

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=(spec, spec))
    def sums(x):
        m, n = jax.lax.associative_scan(extended_add, extended_exp(x[0]))
        return m[-1:], n[-1:]

    ms, ns = (np.asarray(a, np.float64) for a in sums(x))
    got = np.log((ms * 2.0 ** (ns - ns.max())).sum()) + ns.max() * np.log(2)
    top = x.max().astype(np.float64)
    np.testing.assert_allclose(got, top + np.log(np.exp(x - top).sum()), rtol=1e-6)


def test_pairs_stand_for_exponentials():
    x = np.concatenate([np.linspace(-80, 80, 999), [2e4, -2e4, 1e30, -3e38]]).astype(np.float32)
    m, n = (np.asarray(a, np.float64) for a in extended_exp(x))
    assert np.all((m > 0.7) & (m < 1.42))
    assert np.all(n == np.round(n))
    got, want = m[:999] * 2.0 ** n[:999], np.exp(x[:999].astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=3e-7)
    assert [float(a) for a in extended_exp(jnp.float32(-jnp.inf))] == [0.0, np.float32(-3e38)]


def test_addition_commutes_associates_and_has_nothing():
    rng = np.random.default_rng(3)
    a, b, c = (extended_exp(x.astype(np.float32)) for x in 60 * rng.normal(size=(3, 50)))
    add = jax.jit(extended_add)
    for one, other in ((add(a, b), add(b, a)), (add(add(a, b), c), add(a, add(b, c)))):
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_allclose(one[0], other[0], rtol=3e-7)
    nothing = extended_exp(np.full(50, -np.inf, np.float32))
    np.testing.assert_array_equal(add(a, nothing)[0], a[0])
    np.testing.assert_array_equal(add(nothing, nothing)[0], 0)


def test_the_tpu_kernel_is_not_run_elsewhere():
    with pytest.raises(ValueError, match="runs on tpu, not on cpu"):
        two_pass_softmax(X, implementation="pallas_tpu")


def test_a_hessian_vector_product_compiles_for_a_tpu(topology):
    """By default, lowered for a TPU on a machine without one, softmax is the TPU kernel."""
    sharding = jax.sharding.SingleDeviceSharding(topology("v5e:1x1").devices[0])
    x = jax.ShapeDtypeStruct((300, 5000), jnp.float32, sharding=sharding)
    value = lambda x: jnp.sum(jnp.sin(two_pass_softmax(x)))  # noqa: E731
    hvp = jax.jit(lambda x, v: jax.jvp(jax.grad(value), (x,), (v,))[1])
    compiled = hvp.lower(x, x).compile()
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 1
