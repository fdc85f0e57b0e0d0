"""The Poincare ball against its textbook formulas in float64, and at its boundary in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax import losses

C = 0.3


def add(x, y):
    xy, x2, y2 = x @ y, x @ x, y @ y
    return ((1 + 2 * C * xy + C * y2) * x + (1 - C * x2) * y) / (1 + 2 * C * xy + C**2 * x2 * y2)


def exp_at(p, u):
    lam, n = 2 / (1 - C * p @ p), np.linalg.norm(u)
    return add(p, np.tanh(np.sqrt(C) * lam * n / 2) * u / (np.sqrt(C) * n))


def draw(seed, rows, features=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(0.1, 0.9, (rows, 1)) / C**0.5


def test_to_poincare():
    rng = np.random.default_rng(0)
    x, base = 2 * rng.normal(size=(6, 3)), rng.normal(size=3)
    short = [u * min(1, 1.5 / np.linalg.norm(u)) for u in x]
    run = jax.jit(losses.to_poincare, static_argnames=("curvature", "clip_norm", "is_riemannian"))
    with jax.enable_x64(True):
        p = exp_at(np.zeros(3), base)
        got = run(x, base, curvature=C, clip_norm=1.5)
        np.testing.assert_allclose(got, [exp_at(p, u) for u in short], rtol=1e-10)
        got = run(x, curvature=C, clip_norm=1.5)
        np.testing.assert_allclose(got, [exp_at(np.zeros(3), u) for u in short], rtol=1e-10)
        # A small feature stays: series and formula agree where they meet.
        np.testing.assert_allclose(run(1e-6 * x, curvature=C), 1e-6 * x, rtol=1e-10)
        both = run(np.array([[0.1 - 1e-9], [0.1 + 1e-9]]), curvature=1.0)
        np.testing.assert_allclose(both[:, 0], np.tanh([0.1 - 1e-9, 0.1 + 1e-9]), rtol=1e-12)

        def along(x, is_riemannian):
            z = run(x, curvature=C, clip_norm=1.5, is_riemannian=is_riemannian)
            return jnp.sum(z, -1)

        z = np.asarray(run(x, curvature=C, clip_norm=1.5))
        factor = ((1 - C * np.sum(z * z, 1)) / 2) ** 2
        plain, scaled = (jax.grad(lambda x, r=r: jnp.sum(along(x, r)))(x) for r in (False, True))
        np.testing.assert_allclose(scaled, plain * factor[:, None], rtol=1e-10)
        np.testing.assert_allclose(along(x, True), along(x, False), rtol=1e-12)
    far = np.asarray(run(np.float32(1e30) * x, curvature=C, clip_norm=None))
    assert np.all(np.linalg.norm(far, axis=1) * np.sqrt(C) < 1)


def test_gyroplane_logits():
    z = draw(1, 5)
    rng = np.random.default_rng(2)
    a, r = rng.normal(size=(2, 4, 3))
    run = jax.jit(losses.gyroplane_logits, static_argnames="curvature")
    want = np.zeros((5, 4))
    for k in range(4):
        p = exp_at(np.zeros(3), r[k])
        lam, normal = 2 / (1 - C * p @ p), a[k] * (1 - C * p @ p)
        n = np.linalg.norm(normal)
        for i in range(5):
            w = add(-p, z[i])
            inside = 2 * np.sqrt(C) * (w @ normal) / (n * (1 - C * w @ w))
            want[i, k] = lam * n / np.sqrt(C) * np.arcsinh(inside)
    with jax.enable_x64(True):
        np.testing.assert_allclose(run(z, a, r, curvature=C), want, rtol=1e-9)
        flat = run(0.3 * z, a, r, curvature=1e-10)
        plain = 4 * np.einsum("ikf,kf->ik", 0.3 * z[:, None] - r, a)
        np.testing.assert_allclose(flat, plain, rtol=1e-6)
        y = np.array([0, 1, 2, 3, 0])
        loss = losses.hyperbolic_cross_entropy_loss(z, y, a, r, curvature=C)
        e = np.exp(want)
        np.testing.assert_allclose(loss, -np.log(e[np.arange(5), y] / e.sum(1)), rtol=1e-9)


def test_zero_normals_have_a_gradient():
    """One of those that small normals around have, of which none is zero."""
    z = draw(7, 1)
    r = np.random.default_rng(8).normal(size=(1, 3))
    run = jax.jit(lambda a, r: losses.gyroplane_logits(z, a, r, curvature=C)[0, 0])
    gradient = jax.jit(jax.grad(run, (0, 1)))
    w = add(-exp_at(np.zeros(3), r[0]), z[0])
    with jax.enable_x64(True):
        zero, of_offset = gradient(np.zeros((1, 3)), r)
        np.testing.assert_allclose(zero[0], 4 * w / (1 - C * w @ w), rtol=1e-9)
        assert not np.any(of_offset)
        assert run(np.zeros((1, 3)), r) == 0
        beside = np.cross(w, [1.0, 0, 0])
        near, _ = gradient(1e-9 * beside[None], r)
        np.testing.assert_allclose(zero, near, rtol=1e-6)
        around = [gradient(1e-9 * a[None], r)[0][0] @ w for a in np.vstack([np.eye(3), w, -w])]
        assert min(around) > 0
        # A head of zeros learns.
        y, points = np.array([0, 1, 1, 0]), draw(9, 4)

        def loss(head):
            return losses.hyperbolic_cross_entropy_loss(points, y, *head, curvature=C).mean()

        step = jax.jit(lambda h: jax.tree.map(lambda x, g: x - 0.1 * g, h, jax.grad(loss)(h)))
        head = (np.zeros((2, 3)), np.zeros((2, 3)))
        for _ in range(3):
            head = step(head)
        assert loss(head) < np.log(2) - 0.01


def test_logits_next_to_the_boundary():
    """In float32 as precise as the point itself, where the textbook's Moebius sum is not."""
    u = np.array([[4.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
    z = (
        np.tanh(np.linalg.norm(u, axis=1, keepdims=True) / 2)
        * u
        / np.linalg.norm(u, axis=1)[:, None]
    )
    rng = np.random.default_rng(3)
    a, r = rng.normal(size=(2, 2, 3))
    run = functools.partial(losses.gyroplane_logits, curvature=1.0)
    half = [np.asarray(v, np.float32) for v in (z, a, r)]
    with jax.enable_x64(True):
        want = run(*[v.astype(np.float64) for v in half])
    np.testing.assert_allclose(run(*half), want, rtol=2e-3)


def test_confusion():
    x, y = draw(4, 6), draw(5, 6)
    y[0] = x[0]
    run = jax.jit(losses.hyperbolic_confusion_loss, static_argnames=("curvature", "is_arctan"))
    size = np.array([np.linalg.norm(add(-u, v)) for u, v in zip(x, y)])
    with jax.enable_x64(True):
        got = run(x, y, curvature=C)
        np.testing.assert_allclose(got, np.arctanh(np.sqrt(C) * size) / np.sqrt(C), atol=1e-10)
        assert got[0] == 0
        np.testing.assert_allclose(run(y, x, curvature=C), got, rtol=1e-12)
        # Half the distance, which a translation of the ball does not change.
        all_pairs = losses.pairwise_poincare(jnp.asarray(x), jnp.asarray(y), curvature=C)
        np.testing.assert_allclose(2 * got, jnp.diagonal(all_pairs), rtol=1e-9)
        p = exp_at(np.zeros(3), np.ones(3))
        moved = [np.stack([add(p, u) for u in z]) for z in (x, y)]
        np.testing.assert_allclose(run(*moved, curvature=C), got, atol=1e-9)
        released = run(x, y, curvature=C, is_arctan=True)
        np.testing.assert_allclose(released, np.arctan(np.sqrt(C) * size) / np.sqrt(C), atol=1e-10)


def test_pseudo_negatives():
    x = 3 + np.random.default_rng(6).normal(size=(4000, 2)).astype(np.float32)
    start, draw_one = np.array([1.0, -1.0], np.float32), losses.gaussian_pseudo_negatives
    negatives, mean = draw_one(jax.random.key(0), x, start, decay=0.5, std=2.0)
    np.testing.assert_allclose(mean, (start + x.mean(0)) / 2, rtol=1e-5)
    np.testing.assert_allclose(negatives.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(negatives.std(0), 2, rtol=0.05)
    same, kept = draw_one(jax.random.key(0), x, start, decay=0.5, std=2.0, is_running=False)
    np.testing.assert_allclose(same, negatives)
    np.testing.assert_allclose(kept, x.mean(0), rtol=1e-5)
