"""The diagonal estimators against exact diagonals, and what the fused pass promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from papyrax.curvature import (
    exact_diagonal,
    gnb,
    hutchinson,
    rademacher_like,
    value_grad_and_diag,
    value_grad_and_hvp,
)

RNG = np.random.default_rng(0)
BATCH, CLASSES = 16, 3
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(4, 5)) * 0.7, jnp.float32),
    "v": jnp.asarray(RNG.normal(size=(5, CLASSES)) * 0.7, jnp.float32),
}
X = jnp.asarray(RNG.normal(size=(BATCH, 4)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, CLASSES, BATCH), jnp.int32)
KEY = jax.random.key(0)


def logits(p, x, y):
    del y
    return jnp.tanh(x @ p["w"]) @ p["v"]


def cross_entropy(f, x, y):
    del x
    return jnp.mean(jax.nn.logsumexp(f, -1) - jnp.take_along_axis(f, y[:, None], -1)[:, 0])


def loss(p, x, y):
    return cross_entropy(logits(p, x, y), x, y)


def loss_and_aux(p, x, y):
    f = logits(p, x, y)
    hits = jnp.sum(f.argmax(-1) == y)
    return cross_entropy(f, x, y), {"hits": hits, "mean_logit": jnp.mean(f)}


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def assert_same(got, want, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol, atol)


@functools.cache
def dense_diagonals():
    """(diag H, diag G) of the loss by dense matrices."""
    start, unravel = ravel_pytree(PARAMS)
    f = lambda q: logits(unravel(q), X, Y)  # noqa: E731
    jacobian = jax.jit(jax.jacobian(f))(start)
    prob = jax.nn.softmax(f(start))
    outer = jax.vmap(lambda p: jnp.diag(p) - jnp.outer(p, p))(prob)
    ggn = jnp.einsum("rip,rij,rjp->p", jacobian, outer, jacobian) / BATCH
    hessian = jax.jit(jax.hessian(lambda q: loss(unravel(q), X, Y)))(start)
    return unravel(jnp.diag(hessian)), unravel(ggn)


def z_scores(samples, want):
    """Distance of the mean over the first axis from `want`, in standard errors."""
    leaves = [np.asarray(x, np.float64).reshape(N, -1) for x in jax.tree.leaves(samples)]
    samples = np.concatenate(leaves, axis=1)
    error = samples.std(0, ddof=1) / np.sqrt(N)
    return (samples.mean(0) - flat(want)) / np.maximum(error, 1e-7)


N = 1000


@pytest.mark.parametrize(
    ("estimator", "which"),
    [
        (hutchinson(), 0),
        (hutchinson(n_samples=3), 0),
        (hutchinson(distribution="normal"), 0),
        (gnb(cross_entropy), 1),
        (gnb(cross_entropy, n_samples=2), 1),
    ],
    ids=["rademacher", "three probes", "normal", "gnb", "gnb two labels"],
)
def test_expectation_is_the_exact_diagonal(estimator, which):
    """35 z-scores: the mean of their squares is near one, and none is far out."""
    fun = loss if which == 0 else logits
    f = value_grad_and_diag(fun, estimator=estimator)
    draw = jax.jit(jax.vmap(lambda key: f(PARAMS, X, Y, key=key)[2].diag))
    z = z_scores(draw(jax.random.split(jax.random.key(5), N)), dense_diagonals()[which])
    assert np.abs(z).max() < 4.5
    assert np.mean(z**2) < 2.5


def test_more_probes_have_less_variance():
    def spread(n):
        f = value_grad_and_diag(loss, estimator=hutchinson(n_samples=n))
        draw = jax.jit(jax.vmap(lambda key: f(PARAMS, X, Y, key=key)[2].diag))
        return flat(jax.tree.map(lambda x: x.var(0), draw(jax.random.split(KEY, 500)))).sum()

    assert 0.18 < spread(4) / spread(1) < 0.32


def test_exact_diagonal():
    for batch_size in (None, 8):
        f = value_grad_and_diag(loss, estimator=exact_diagonal(batch_size=batch_size))
        value, grads, curvature = jax.jit(f)(PARAMS, X, Y, key=KEY)
        want_value, want_grads = jax.value_and_grad(loss)(PARAMS, X, Y)
        assert_same((value, grads), (want_value, want_grads))
        assert_same(curvature.diag, dense_diagonals()[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("fun", "estimator"),
    [(loss, hutchinson()), (loss, hutchinson(n_samples=2)), (logits, gnb(cross_entropy))],
)
def test_value_and_gradient_are_those_of_value_and_grad(fun, estimator):
    f = jax.jit(value_grad_and_diag(fun, estimator=estimator), static_argnames="refresh")
    want = jax.value_and_grad(loss)(PARAMS, X, Y)
    for refresh in (True, False):
        value, grads, curvature = f(PARAMS, X, Y, key=KEY, refresh=refresh)
        assert_same((value, grads), want)
    assert curvature.diag is None


def test_hutchinson_is_the_probe_times_its_product():
    _, _, curvature = jax.jit(value_grad_and_diag(loss))(PARAMS, X, Y, key=KEY)
    leaves, treedef = jax.tree.flatten(PARAMS)
    z = treedef.unflatten(rademacher_like(KEY, leaves))
    _, _, hz = jax.jit(value_grad_and_hvp(loss))(PARAMS, z, X, Y)
    assert_same(curvature.diag, jax.tree.map(jnp.multiply, z, hz))


def test_diagonal_hessian_has_no_variance():
    scale = jnp.array([4.0, 9.0, 25.0])
    f = value_grad_and_diag(lambda p: jnp.sum(scale * p * p) / 2)
    for seed in range(3):
        diag = f(jnp.ones(3), key=jax.random.key(seed))[2].diag
        np.testing.assert_array_equal(diag, scale)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("pieces", [2, 4])
def test_microbatches_change_nothing(pieces, aux):
    fun = loss_and_aux if aux else loss
    whole = jax.jit(value_grad_and_diag(fun, has_aux=aux))(PARAMS, X, Y, key=KEY)
    cut = value_grad_and_diag(fun, has_aux=aux, microbatches=pieces)
    assert_same(jax.jit(cut)(PARAMS, X, Y, key=KEY), whole)
    first = jax.jit(lambda: cut(PARAMS, X, Y, key=KEY, refresh=False)[:2])()
    assert_same(first, whole[:2])


def test_microbatches_of_the_sampled_gradient_are_averaged_before_the_square():
    """And the count N is that of the whole batch."""
    f = value_grad_and_diag(logits, estimator=gnb(cross_entropy), microbatches=4)
    draw = jax.jit(jax.vmap(lambda key: f(PARAMS, X, Y, key=key)[2].diag))
    z = z_scores(draw(jax.random.split(jax.random.key(7), N)), dense_diagonals()[1])
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_fraction_shares_the_gradient(fraction):
    """The gradient is that of the whole batch, the curvature that of every n-th example."""
    f = jax.jit(value_grad_and_diag(loss_and_aux, fraction=fraction, has_aux=True))
    (value, aux), grads, curvature = f(PARAMS, X, Y, key=KEY)
    (want, want_aux), want_grads = jax.value_and_grad(loss_and_aux, has_aux=True)(PARAMS, X, Y)
    assert_same((value, grads, aux), (want, want_grads, want_aux))
    assert aux["hits"].dtype == jnp.int32
    part = (np.arange(BATCH) % 4) < 4 * fraction
    sub = jax.jit(value_grad_and_diag(loss))(PARAMS, X[part], Y[part], key=KEY)
    assert_same(curvature.diag, sub[2].diag)


def test_batch_argnums_and_keyword_arguments_are_not_cut():
    def fun(p, scale, x, *, offset):
        return jnp.mean(x @ p * scale[0]) + jnp.sum(offset) * jnp.sum(p**2)

    p, scale, x, offset = jnp.ones(3), jnp.array([2.0, 0.0]), X[:, :3], jnp.ones(5)
    whole = value_grad_and_diag(fun)(p, scale, x, offset=offset, key=KEY)
    cut = value_grad_and_diag(fun, microbatches=4, fraction=0.5, batch_argnums=2)
    assert_same(jax.jit(cut)(p, scale, x, offset=offset, key=KEY), whole)
    with pytest.raises(ValueError, match=r"args: got arrays with first axes \[2, 16\]"):
        value_grad_and_diag(fun, microbatches=4)(p, scale, x, offset=offset, key=KEY)


def test_static_and_traced_refresh_agree():
    f = value_grad_and_diag(loss)
    traced = jax.jit(lambda r: f(PARAMS, X, Y, key=KEY, refresh=r))
    value, grads, curvature = traced(True)
    want = jax.jit(f)(PARAMS, X, Y, key=KEY)
    assert_same((value, grads, curvature.diag), (want[0], want[1], want[2].diag), rtol=1e-6)
    assert bool(curvature.valid)
    value, grads, curvature = traced(False)
    assert_same((value, grads), want[:2])
    assert not bool(curvature.valid)
    assert not flat(curvature.diag).any()


def test_concrete_refresh_of_any_kind_is_static():
    f = value_grad_and_diag(loss)
    for no in (False, np.False_, jnp.array(False), np.arange(10)[3] % 10 == 0):
        assert f(PARAMS, X, Y, key=KEY, refresh=no)[2] == (None, False)
    with pytest.raises(ValueError, match="refresh: got 3"):
        f(PARAMS, X, Y, key=KEY, refresh=3)


WIDE = {"w": jnp.zeros((64, 256)), "v": jnp.zeros((256, 10))}


def wide_logits(p, x, y):
    del y
    return jax.nn.gelu(jax.nn.gelu(x @ p["w"]) @ p["u"]) @ p["v"]


def flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_cost_in_operations_and_no_conditional_by_default():
    """3.05 gradients with Hutchinson, 1 + 2f with a part, 1.75 with shared-forward GNB."""
    rng = np.random.default_rng(0)
    shapes = {"w": (64, 256), "u": (256, 256), "v": (256, 10)}
    p = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    x, y = jnp.ones((128, 64)), jnp.zeros(128, jnp.int32)
    full = lambda p: cross_entropy(wide_logits(p, x, y), x, y)  # noqa: E731
    gradient = flops(jax.value_and_grad(full), p)

    def cost(fun, **options):
        f = value_grad_and_diag(fun, **options)
        return flops(lambda p, key: f(p, x, y, key=key), p, KEY) / gradient

    wide_loss = lambda p, x, y: cross_entropy(wide_logits(p, x, y), x, y)  # noqa: E731
    assert 2 < cost(wide_loss) <= 3.05
    assert cost(wide_loss, fraction=0.25) <= 1.55
    assert cost(wide_logits, estimator=gnb(cross_entropy)) <= 1.75

    f = value_grad_and_diag(wide_loss)
    text = str(jax.make_jaxpr(lambda p: f(p, x, y, key=KEY))(p))
    assert " cond[" not in text
    off = jax.make_jaxpr(lambda p: f(p, x, y, key=KEY, refresh=False)[:2])(p)
    assert "random_bits" not in str(off)
    traced = str(jax.make_jaxpr(lambda p, r: f(p, x, y, key=KEY, refresh=r))(p, True))
    assert traced.count(" cond[") == 1


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_shard_map_equals_one_device(check_vma, microbatches):
    mesh = jax.make_mesh((8,), ("data",))
    spec = PartitionSpec("data")
    f = value_grad_and_diag(loss, axis_name="data", microbatches=microbatches)

    def local(p, x, y):
        value, grads, curvature = f(p, x, y, key=KEY)
        return value, grads, curvature.diag

    step = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec, spec),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
    )
    x, y = (jax.device_put(a, NamedSharding(mesh, spec)) for a in (X, Y))
    value, grads, curvature = jax.jit(value_grad_and_diag(loss))(PARAMS, X, Y, key=KEY)
    replicated = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
    assert_same(step(replicated, x, y), (value, grads, curvature.diag))


def test_gnb_in_shard_map_counts_all_devices():
    mesh = jax.make_mesh((8,), ("data",))
    spec = PartitionSpec("data")
    f = value_grad_and_diag(logits, estimator=gnb(cross_entropy), axis_name="data")

    def draws_of(p, x, y, keys):
        return jax.vmap(lambda key: f(p, x, y, key=key)[2].diag)(keys)

    run = jax.jit(
        jax.shard_map(
            draws_of,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec, spec, PartitionSpec()),
            out_specs=PartitionSpec(),
        )
    )
    place = lambda a, s: jax.device_put(a, NamedSharding(mesh, s))  # noqa: E731
    keys = place(jax.random.split(KEY, N), PartitionSpec())
    draws = run(place(PARAMS, PartitionSpec()), place(X, spec), place(Y, spec), keys)
    z = z_scores(draws, dense_diagonals()[1])
    assert np.abs(z).max() < 4.5


def test_pmap_and_named_vmap():
    f = value_grad_and_diag(loss, axis_name="data")
    want = jax.jit(value_grad_and_diag(loss))(PARAMS, X, Y, key=KEY)
    x, y = X.reshape(8, 2, 4), Y.reshape(8, 2)
    for mapper in (jax.pmap, jax.vmap):
        mapped = mapper(lambda p, x, y: f(p, x, y, key=KEY), axis_name="data", in_axes=(None, 0, 0))
        mapped = mapped if mapper is jax.pmap else jax.jit(mapped)
        got = jax.tree.map(lambda a: a[3], mapped(PARAMS, x, y))
        assert_same((got[0], got[1], got[2].diag), (want[0], want[1], want[2].diag))


def test_sharded_arrays_under_jit_equal_one_device():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    place = lambda a, *s: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*s)))  # noqa: E731
    p = {"w": place(PARAMS["w"], "data"), "v": place(PARAMS["v"])}
    for options in ({}, {"fraction": 0.25}, {"microbatches": 2}):
        f = jax.jit(value_grad_and_diag(loss, **options))
        got = f(p, place(X, "data"), place(Y, "data"), key=KEY)
        assert_same(got, f(PARAMS, X, Y, key=KEY))


def test_masked_rows_do_not_count_for_gnb():
    keep = jnp.arange(BATCH) < 10

    def masked(f, x, y, m):
        terms = jax.nn.logsumexp(f, -1) - jnp.take_along_axis(f, y[:, None], -1)[:, 0]
        return jnp.sum(jnp.where(m, terms, 0)) / jnp.sum(m)

    estimator = gnb(masked, where=lambda x, y, m: m)
    f = value_grad_and_diag(lambda p, x, y, m: logits(p, x, y), estimator=estimator)
    draw = jax.jit(jax.vmap(lambda key: f(PARAMS, X, Y, keep, key=key)[2].diag))
    draws = draw(jax.random.split(KEY, N))
    exact = value_grad_and_diag(logits, estimator=gnb(cross_entropy, n_samples=1))
    sub = jax.jit(jax.vmap(lambda key: exact(PARAMS, X[:10], Y[:10], key=key)[2].diag))
    want = sub(jax.random.split(jax.random.key(9), N))
    mean, other = (flat(jax.tree.map(lambda a: a.mean(0), d)) for d in (draws, want))
    variance = sum(flat(jax.tree.map(lambda a: a.var(0), d)) for d in (draws, want)) / N
    assert np.abs((mean - other) / np.sqrt(variance)).max() < 4.5


def test_clip_norm_bounds_the_sampled_gradient():
    f = value_grad_and_diag(logits, estimator=gnb(cross_entropy, clip_norm=1e-3))
    diag = jax.jit(f)(PARAMS, X, Y, key=KEY)[2].diag
    np.testing.assert_allclose(flat(diag).sum(), BATCH * 1e-6, rtol=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_other_likelihoods(likelihood):
    """The expectation is the exact Fisher diagonal, here by a sum over a tiny model."""
    fun = lambda p, x: x @ p  # noqa: E731
    p, x = jnp.array([[0.3], [-0.5]]), X[:, :2]
    nll = {
        "bernoulli": lambda f, x: jnp.mean(jax.nn.softplus(f[:, 0])),
        "gaussian": lambda f, x: jnp.mean(jnp.square(f[:, 0])) / 2,
    }[likelihood]
    f = value_grad_and_diag(fun, estimator=gnb(nll, likelihood=likelihood))
    draws = jax.jit(jax.vmap(lambda key: f(p, x, key=key)[2].diag))(jax.random.split(KEY, N))
    q = jax.nn.sigmoid(x @ p)
    variance = q * (1 - q) if likelihood == "bernoulli" else jnp.ones_like(q)
    want = jnp.mean(variance * x**2, axis=0)[:, None]
    assert np.abs(z_scores(draws, want)).max() < 4


def test_integer_leaves_and_mixed_dtypes():
    p = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones((2, 2)), "n": jnp.int32(4)}
    f = value_grad_and_diag(
        lambda p: jnp.sum(p["a"].astype(jnp.float32) ** 2) * p["n"] + jnp.sum(p["b"] ** 4)
    )
    for run in (f, lambda p, key: jax.jit(f)(p, key=key, refresh=jnp.array(True))):
        _, grads, curvature = run(p, key=KEY)
        assert [x.dtype for x in jax.tree.leaves(curvature.diag)] == [
            jnp.bfloat16,
            jnp.float32,
            jnp.int32,
        ]
        np.testing.assert_array_equal(curvature.diag["a"].astype(jnp.float32), 8)
        np.testing.assert_array_equal(curvature.diag["b"], 12)
        assert grads["n"] == curvature.diag["n"] == 0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"fraction: got 1\.5"):
        value_grad_and_diag(loss, fraction=1.5)
    with pytest.raises(ValueError, match="microbatches: got 0"):
        value_grad_and_diag(loss, microbatches=0)
    with pytest.raises(ValueError, match="estimator: got"):
        value_grad_and_diag(loss, estimator="hutchinson")
    with pytest.raises(ValueError, match="microbatches: got 3 of a batch of 16"):
        value_grad_and_diag(loss, microbatches=3)(PARAMS, X, Y, key=KEY)
    with pytest.raises(ValueError, match=r"fraction: got 0\.3 of a batch of 16"):
        value_grad_and_diag(loss, fraction=0.3)(PARAMS, X, Y, key=KEY)
    with pytest.raises(ValueError, match="batch_argnums: got 3"):
        value_grad_and_diag(loss, fraction=0.5, batch_argnums=3)(PARAMS, X, Y, key=KEY)
    with pytest.raises(ValueError, match="key: got int"):
        value_grad_and_diag(loss)(PARAMS, X, Y, key=0)
    with pytest.raises(ValueError, match="n_samples: got 0"):
        hutchinson(n_samples=0)
    with pytest.raises(ValueError, match="distribution: got 'cauchy'"):
        hutchinson(distribution="cauchy")
    with pytest.raises(ValueError, match="likelihood: got 'poisson'"):
        gnb(cross_entropy, likelihood="poisson")
    with pytest.raises(ValueError, match="clip_norm: got 0"):
        gnb(cross_entropy, clip_norm=0.0)
    with pytest.raises(ValueError, match="batch_size: got 0"):
        exact_diagonal(batch_size=0)
    with pytest.raises(ValueError, match=r"batch_size: got 2\.5"):
        exact_diagonal(batch_size=2.5)
    pair = gnb(lambda f, x, y: jnp.sum(f[0]))
    f = value_grad_and_diag(lambda p, x, y: (logits(p, x, y),), estimator=pair)
    with pytest.raises(ValueError, match="fun: got outputs"):
        f(PARAMS, X, Y, key=KEY)
