"""Regression losses against the authors' code, slow versions and their invariants."""

import jax
import numpy as np
import pytest
from authors_code import compare, recorded

import papyrax.losses as losses

AUTHORS = recorded("regression")
LOG2 = np.log(2)
CONDITIONAL = jax.jit(losses.conditional_cs_divergence, static_argnames="normalization")
QMI = jax.jit(losses.cs_mutual_information, static_argnames="normalize")
BAG = jax.jit(losses.interpolated_bag_loss)


def rows(seed, shape=(7, 2)):
    return np.random.default_rng(seed).normal(size=shape)


def gram(x, y, s):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * s**2))


def test_authors_conditional_divergence():
    def bits(**a):
        return CONDITIONAL(
            **a, input_bandwidth=0.8, target_bandwidth=0.8, normalization="sum_of_squares"
        )

    compare(AUTHORS["conditional_cs_divergence"], lambda **a: bits(**a) / LOG2)


@pytest.mark.parametrize("normalize", [False, True])
def test_authors_information(normalize):
    entry = AUTHORS["cs_mutual_information" + ("_normalized" if normalize else "")]
    base = 1 if normalize else LOG2
    compare(entry, lambda x, y: QMI(x, y, bandwidth=0.8, normalize=normalize) / base, 1e-8)


def test_authors_conr():
    entry = AUTHORS["conr_loss"]
    compare(entry, lambda **a: losses.conr_loss(**a, push=0.05, count_others=True).mean())


def test_divergence():
    x, y = rows(0), rows(1, (5, 2)) + 0.5
    divergence = jax.jit(losses.cs_divergence)
    with jax.enable_x64(True):
        want = np.log(gram(x, x, 0.7).mean() * gram(y, y, 0.7).mean() / gram(x, y, 0.7).mean() ** 2)
        np.testing.assert_allclose(divergence(x, y, bandwidth=0.7), want, rtol=1e-10)
        np.testing.assert_allclose(divergence(y, x, bandwidth=0.7), want, rtol=1e-10)
        np.testing.assert_allclose(divergence(x, x), 0, atol=1e-12)
        # Far apart the densities underflow; their divergence does not.
        np.testing.assert_allclose(divergence(x * 0, x * 0 + 1000), 2e6, rtol=1e-9)


def test_conditional_divergence():
    x, y, z = rows(2), rows(3, (7, 1)), rows(4, (7, 1))
    k, s = gram(x, x, 0.9), 0.6

    def total(a, b, w):
        return sum((k[j] * gram(a, b, s)[j]).sum() / w[j] for j in range(7))

    with jax.enable_x64(True):
        for name, w in (("square_of_sum", k.sum(1) ** 2), ("sum_of_squares", (k**2).sum(1))):
            want = np.log(total(y, y, w) * total(z, z, w) / total(z, y, w) ** 2)
            got = CONDITIONAL(x, y, z, input_bandwidth=0.9, target_bandwidth=s, normalization=name)
            np.testing.assert_allclose(got, want, rtol=1e-10)
        np.testing.assert_allclose(CONDITIONAL(x, y, y), 0, atol=1e-12)
        # Inputs all alike leave the divergence of the marginals, all different ones correntropy.
        same = CONDITIONAL(x * 0, y, z)
        np.testing.assert_allclose(same, losses.cs_divergence(y, z), rtol=1e-10)
        apart = CONDITIONAL(x * 1e6, y, z)
        want = -2 * np.log(np.exp(-((y - z) ** 2) / 2).mean())
        np.testing.assert_allclose(apart, want, rtol=1e-10)


def test_information():
    x, y = rows(5), rows(6, (7, 3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(QMI(x, y), QMI(y, x), rtol=1e-10)
        np.testing.assert_allclose(QMI(x, y * 0), 0, atol=1e-12)
        np.testing.assert_allclose(QMI(x, x, normalize=True), 1, rtol=1e-8)
        assert QMI(x, y) > 0
        loss = jax.jit(losses.cs_information_bottleneck_loss)
        got = loss(x, y, y + 0.1, x, weight=0.3)
        np.testing.assert_allclose(got, CONDITIONAL(x, y, y + 0.1) + 0.3, rtol=1e-8)


def slow_conr(f, y, guess, r, w, t, e):
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    s = f @ f.T / t
    out = np.zeros(len(f))
    for i in range(len(f)):
        near = [j for j in range(len(f)) if j != i and abs(y[i] - y[j]) <= w]
        far = [j for j in range(len(f)) if abs(y[i] - y[j]) > w and abs(guess[i] - guess[j]) <= w]
        if near and far:
            push = sum(r[i] * np.exp(e * abs(y[i] - y[j]) + s[i, j]) for j in far)
            total = np.log(sum(np.exp(s[i, j]) for j in near) + push)
            out[i] = r[i] * np.mean([total - s[i, j] for j in near])
    return out


def test_conr():
    rng = np.random.default_rng(7)
    f, y = rng.normal(size=(12, 3)), rng.uniform(0, 6, 12)
    guess, r = rng.uniform(0, 4, 12), rng.uniform(0.2, 2, 12)
    with jax.enable_x64(True):
        conr = jax.jit(losses.conr_loss)
        got = conr(f, y, guess, r, window=1.0, temperature=0.3, push=0.4)
        want = slow_conr(f, y, guess, r, 1.0, 0.3, 0.4)
        assert (want > 0).sum() > 5
        np.testing.assert_allclose(got, want, rtol=1e-10)
        scaled = conr(5 * f[:, ::-1], y, guess, r, window=1.0, temperature=0.3, push=0.4)
        np.testing.assert_allclose(scaled, want, rtol=1e-10)
        # Right predictions confuse nothing.
        np.testing.assert_array_equal(conr(f, y, y, r), 0)
        assert (conr(f, y, guess, r, push=0.8) >= conr(f, y, guess, r, push=0.1)).all()


def test_bags():
    f, y = rows(8, (4, 3)), rows(9, (4,))
    bag, instance = (y - f.mean(1)) ** 2, ((y[:, None] - f) ** 2).mean(1)
    with jax.enable_x64(True):
        np.testing.assert_allclose(BAG(f, y, instance_weight=0.0), bag, rtol=1e-12)
        np.testing.assert_allclose(BAG(f, y, instance_weight=1.0), instance, rtol=1e-12)
        mixed = BAG(f, y, instance_weight=0.3)
        np.testing.assert_allclose(mixed, 0.7 * bag + 0.3 * instance, rtol=1e-12)
        where = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
        got = BAG(f, y, instance_weight=0.3, where=where)
        for i in (1, 3):
            want = BAG(f[i][where[i]], y[i], instance_weight=0.3)
            np.testing.assert_allclose(got[i], want, rtol=1e-12)
        assert got[2] == 0


def test_private_responses():
    y = np.tile([-9.0, 1.0, 2.0, 9.0], (20000, 1))
    release = jax.jit(losses.private_bag_responses, static_argnames=("bound", "epsilon"))
    out = np.asarray(release(jax.random.key(0), y, bound=3.0, epsilon=0.5))
    scale = 2 * 3.0 / (4 * 0.5)
    np.testing.assert_allclose(np.median(out), 0.75, atol=0.1)
    np.testing.assert_allclose(np.abs(out - 0.75).mean(), scale, rtol=0.05)
