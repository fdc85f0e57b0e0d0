"""Losses of regions against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax import losses


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_spatial_alignment():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 40))
    want = []
    for c, a in zip(*maps):
        c, a = (np.where(x >= np.sort(x)[-3], np.sort(x)[::-1][4], x) for x in (c, a))
        c, a = softmax(c), softmax(a)
        want.append(np.sum(a * np.log(a / c)) + np.sum(c * np.log(c / a)))
    run = jax.jit(lambda c, a: losses.spatial_alignment_loss(c, a, level=0.1))
    with jax.enable_x64(True):
        close(run(*maps), want)
        close(run(maps[0], maps[0] + 5), np.zeros(3))
        # The slope of KL(a || c) in the logits of c is c - a.
        x, y = maps[:, 0, :5]
        grad = jax.grad(lambda c: losses.spatial_alignment_loss(c, y, outliers=0))(x)
        close(grad, softmax(x) - softmax(y))


def test_foreground_background():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 6, 3))
    m, n = rng.uniform(size=(2, 6))
    cos = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    want = 0.7 * (1 - cos(m @ x, n @ y)) + 0.3 * (1 - cos((1 - m) @ x, (1 - n) @ y))
    with jax.enable_x64(True):
        run = jax.jit(losses.foreground_background_loss)
        close(run(x, y, m, n), want)
        close(run(x, x, m, m), 0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_mutual_matches():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 3))
    y = np.concatenate([x[::-1][:5] + 0.3 * rng.normal(size=(5, 3)), rng.normal(size=(4, 3))])
    s = unit(x) @ unit(y).T
    run = jax.jit(losses.mutual_matches, static_argnames="least_similarity")
    found = run(x, y, least_similarity=0.7)
    want = {
        (i, j)
        for i in range(8)
        for j in range(9)
        if s[i, j] == s[i].max() == s[:, j].max() and s[i, j] > 0.7
    }
    pairs = lambda m: {(i, int(m.partner[i])) for i in np.flatnonzero(m.is_match)}  # noqa: E731
    assert pairs(found) == want
    assert 0 < len(want) < 8
    swapped = run(y, x, least_similarity=0.7)
    assert pairs(swapped) == {(j, i) for i, j in want}
    assert not run(x, y, least_similarity=1.0).is_match.any()
    assert not losses.mutual_matches(x, y, np.zeros((8, 9), bool)).is_match.any()


def test_reliable_matches_and_their_loss():
    rng = np.random.default_rng(3)
    x, y = np.eye(6)[:5], np.eye(6)[[3, 1, 0, 4]] + 0.02 * rng.normal(size=(4, 6))
    x[1] += 0.9 * np.eye(6)[3]  # two candidates that are alike
    where = np.ones((5, 4), bool)
    where[4, :3] = False  # an only candidate
    found = losses.reliable_matches(x, y, where, least_similarity=0.6)
    s = np.where(where, unit(x) @ unit(y).T, -9)
    first, second = np.sort(s, 1)[:, -1], np.sort(s, 1)[:, -2]
    want = (first > 0.6) & (first > 2 * second)
    assert found.is_match.tolist() == want.tolist() == [True, False, False, True, True]
    few = losses.reliable_matches(x, y, where, least_similarity=0.6, most=2)
    assert few.is_match.tolist() == [True, False, False, True, False]
    with jax.enable_x64(True):
        x, y = jnp.asarray(x), jnp.asarray(y)
        found = losses.reliable_matches(x, y, where, least_similarity=0.6)
        a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
        kept = [0, 3, 4]
        cost = [first[i] * (1 - unit(a)[i] @ unit(b)[s[i].argmax()]) for i in kept]
        close(losses.correspondence_loss(a, b, found), np.mean(cost))
        none = found._replace(is_match=jnp.zeros(5, bool))
        value, grad = jax.value_and_grad(lambda a: losses.correspondence_loss(a, b, none))(a)
        assert value == 0
        assert not grad.any()
