"""Losses over views against loops, and the limits that they are known for."""

import functools

import brute_pairs as brute
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

N, D = 6, 4


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    return x, x + 0.5 * rng.normal(size=(N, D))


@pytest.mark.parametrize(
    ("name", "slow", "slow_kw", "static"),
    [
        ("nt_xent_loss", brute.nt_xent, {}, {}),
        ("nt_xent_loss", brute.nt_xent, {"t": 0.1}, {"temperature": 0.1}),
        ("decoupled_contrastive_loss", brute.dcl, {}, {}),
        ("decoupled_contrastive_loss", brute.dcl, {"sigma": 0.5}, {"weight_scale": 0.5}),
        ("symmetric_info_nce_loss", brute.clip, {}, {}),
        ("symmetric_info_nce_loss", brute.clip, {"smoothing": 0.1}, {"label_smoothing": 0.1}),
        ("siglip_loss", brute.siglip, {}, {}),
        ("siglip_loss", brute.siglip, {"scale": 3.0, "bias": 1.0}, {"scale": 3.0, "bias": 1.0}),
    ],
)
def test_equals_loops(views, name, slow, slow_kw, static):
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, views)
        f = functools.partial(getattr(losses, name), **static)
        f = jax.jit(f, static_argnames="chunk_size")
        np.testing.assert_allclose(f(x, y), slow(*views, **slow_kw), rtol=1e-10)
        np.testing.assert_allclose(f(x, y, chunk_size=5), f(x, y), rtol=1e-12)
        twice = jnp.concatenate([x[:3], x[:3]])
        np.testing.assert_allclose(
            f(twice, twice), slow(np.asarray(twice), np.asarray(twice), **slow_kw), rtol=1e-10
        )


def test_info_nce(views):
    x, y = views
    negatives = np.random.default_rng(1).normal(size=(N, 7, D))
    t = np.linspace(0.1, 0.5, N)
    want = []
    for i in range(N):
        near = np.exp(brute.cosine(x[i], y[i]) / t[i])
        far = sum(np.exp(brute.cosine(x[i], n) / t[i]) for n in negatives[i])
        want.append(-np.log(near / (near + far)))
    with jax.enable_x64(True):
        args = map(jnp.asarray, (x, y, negatives))
        got = losses.info_nce_loss(*args, temperature=jnp.asarray(t))
        np.testing.assert_allclose(got, want, rtol=1e-10)
        shared = np.broadcast_to(negatives[0], negatives.shape)
        a = losses.info_nce_loss(jnp.asarray(x), jnp.asarray(y), jnp.asarray(negatives[0]))
        b = losses.info_nce_loss(jnp.asarray(x), jnp.asarray(y), jnp.asarray(shared))
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_temperature_for_each_anchor(views):
    x, y = map(jnp.asarray, views)
    t = jnp.linspace(0.1, 0.9, N)
    f = jax.jit(lambda t: losses.symmetric_info_nce_loss(x, y, temperature=t))
    got = f(t)
    for i in range(N):
        one = f(t[i])
        np.testing.assert_allclose(got[i], one[i], rtol=1e-5)
    assert np.all(
        np.isfinite(
            jax.jit(jax.grad(lambda t: jnp.sum(losses.nt_xent_loss(x, y, temperature=t))))(t)
        )
    )


def test_decoupled_softmax(views):
    x, keys = views
    rng = np.random.default_rng(5)
    positive = rng.uniform(size=(N, N)) < 0.4
    positive[2] = False
    with jax.enable_x64(True):
        masks = losses.PairMasks(jnp.asarray(positive), jnp.asarray(~positive))
        got = losses.decoupled_softmax_loss(jnp.asarray(x), jnp.asarray(keys), masks)
    s = np.array([[brute.cosine(a, b) / 0.05 for b in keys] for a in x])
    for i in range(N):
        far = np.exp(s[i][~positive[i]]).sum()
        terms = [-v + np.log(np.exp(v) + far) for v in s[i][positive[i]]]
        np.testing.assert_allclose(got[i], np.mean(terms) if terms else 0.0, rtol=1e-10)


def test_supcon_of_two_views_is_nt_xent(views):
    x, y = map(jnp.asarray, views)
    labels = jnp.tile(jnp.arange(N), 2)
    both = losses.supervised_contrastive_loss(jnp.concatenate([x, y]), labels, temperature=0.5)
    np.testing.assert_allclose(both.reshape(2, N).mean(0), losses.nt_xent_loss(x, y), rtol=1e-5)


def test_cosines_do_not_see_lengths(views):
    x, y = map(jnp.asarray, views)
    scale = jnp.linspace(0.1, 30, N)[:, None]
    for f in map(
        jax.jit, (losses.nt_xent_loss, losses.siglip_loss, losses.decoupled_contrastive_loss)
    ):
        np.testing.assert_allclose(f(scale * x, y), f(x, y), rtol=2e-5)
        grad = jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x, y))))(x)
        np.testing.assert_allclose(jnp.sum(grad * x, -1), jnp.zeros(N), atol=1e-4)


def test_all_embeddings_equal():
    x = jnp.ones((N, D))
    np.testing.assert_allclose(losses.nt_xent_loss(x, x), np.log(2 * N - 1), rtol=1e-6)
    np.testing.assert_allclose(losses.symmetric_info_nce_loss(x, x), np.log(N), rtol=1e-6)
