"""Softmax-free attention against its dense forms, and the Newton inverse against LAPACK."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import attention
from papyrax.attention import newton_inverse

FORM = ("normalize", "inverse", "iterations")
soft_attention = jax.jit(attention.soft_attention, static_argnames=FORM)
pooled = jax.jit(attention.soft_attention, static_argnames=(*FORM, "landmarks"))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0, T=12, N=4, K=2, m=3):
    rng = np.random.default_rng(seed)
    shapes = ((2, T, N, 4), (2, T, K, 4), (2, T, K, 5), (2, m, K, 4))
    return tuple(rng.normal(size=shape) for shape in shapes)


def gaussian(a, b):
    return np.exp(-0.5 * 4**-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1))


def brute(q, k, v, points, normalize, mask=None, ridge=0.01):
    """One batch entry and head at a time, with LAPACK's inverse."""
    B, T, N, _ = q.shape
    out = np.zeros((B, T, N, v.shape[-1]))
    for b, n in np.ndindex(B, N):
        h = n // (N // k.shape[2])
        L = points[b, :, h]
        A = gaussian(L, L)
        middle = np.linalg.inv(A + ridge * np.eye(len(L)))
        if normalize:
            D = np.diag(A.sum(1) ** -0.5)
            middle = D @ middle @ D
        shown = np.ones(T) if mask is None else mask
        weights = gaussian(q[b, :, n], L) @ middle @ gaussian(L, k[b, :, h]) * shown
        out[b, :, n] = weights @ v[b, :, h]
    return out


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("inverse", ["newton", "exact"])
def test_equals_the_definition(normalize, inverse):
    q, k, v, points = draw()
    mask = np.arange(12) != 5
    options = {"normalize": normalize, "inverse": inverse, "iterations": 50}
    for hidden in (None, mask):
        got = soft_attention(q, k, v, mask=hidden, landmarks=points, **options)
        want = brute(q, k, v, points, normalize, hidden)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_landmarks_by_number_are_means_of_runs_of_keys_that_exist():
    q, k, v, _ = draw()
    points = k.reshape(2, 3, 4, 2, 4).mean(2)
    want = soft_attention(q, k, v, landmarks=points)
    np.testing.assert_allclose(pooled(q, k, v, landmarks=3), want, rtol=1e-11)
    mask = np.array([1, 1, 0, 0] + [1] * 8, bool)
    points[:, 0] = k[:, :2].mean(1)
    want = soft_attention(q, k, v, mask=mask, landmarks=points)
    np.testing.assert_allclose(pooled(q, k, v, mask=mask, landmarks=3), want, rtol=1e-11)
    assert np.all(np.asarray(pooled(q, k, v, mask=np.zeros(12, bool), landmarks=3)) == 0)


def test_a_landmark_at_every_token_gives_the_dense_kernel():
    q, _, v, _ = draw(N=2)
    got = soft_attention(q, q, v, landmarks=q, normalize=False, inverse="exact", ridge=1e-10)
    want = np.stack(
        [
            np.stack([gaussian(q[b, :, h], q[b, :, h]) @ v[b, :, h] for h in range(2)], 1)
            for b in range(2)
        ]
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_implied_weights_are_symmetric_and_positive(normalize):
    q, _, _, points = draw(N=2)
    weights = soft_attention(
        q,
        q,
        np.broadcast_to(np.eye(12)[None, :, None], (2, 12, 2, 12)),
        landmarks=points,
        normalize=normalize,
        inverse="exact",
    )
    weights = np.moveaxis(np.asarray(weights), 2, 1)
    np.testing.assert_allclose(weights, np.swapaxes(weights, -1, -2), atol=1e-12)
    assert np.linalg.eigvalsh(weights).min() > -1e-12


def test_moving_all_tokens_changes_nothing():
    q, k, v, points = draw()
    want = soft_attention(q, k, v, landmarks=points)
    got = soft_attention(q + 3, k + 3, v, landmarks=points + 3)
    np.testing.assert_allclose(got, want, rtol=1e-11)


def test_normalized_similarity_has_spectral_radius_one():
    L = draw(m=9)[3][0, :, 0]
    A = gaussian(L, L)
    D = np.diag(A.sum(1) ** -0.5)
    np.testing.assert_allclose(np.linalg.eigvalsh(D @ A @ D).max(), 1, rtol=1e-12)
    assert np.linalg.eigvalsh(A).max() > 2


def test_far_tokens_keep_their_distances():
    """|a|^2 + |b|^2 - 2 a.b in float32 would have no digit left at 1e4."""
    q, _, v, _ = (x.astype(np.float32) for x in draw(N=2))
    near = soft_attention(q, q, v, landmarks=q[:, ::4])
    far = soft_attention(q + 1e4, q + 1e4, v, landmarks=q[:, ::4] + 1e4)
    np.testing.assert_allclose(far, near, rtol=0, atol=2e-2 * np.abs(near).max())


def kernel_matrix(m=6):
    return gaussian(*(np.random.default_rng(1).normal(size=(m, 4)) * 2,) * 2)


def test_newton_inverse_and_its_derivatives_are_those_of_the_inverse():
    A = kernel_matrix()
    ridge = 0.01 * np.eye(6)
    newton = functools.partial(newton_inverse, iterations=40)
    np.testing.assert_allclose(newton(A), np.linalg.inv(A + ridge), rtol=1e-10)

    def loss(f, a):
        return jnp.sum(jnp.sin(f(a)) * jnp.arange(36).reshape(6, 6))

    def both(f):
        direction = np.random.default_rng(2).normal(size=(6, 6))
        return jax.jit(lambda a: jax.jvp(jax.grad(functools.partial(loss, f)), (a,), (direction,)))(
            A
        )

    for got, want in zip(both(newton), both(lambda a: jnp.linalg.inv(a + ridge))):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7 * np.abs(want).max())


def test_newton_error_is_the_stated_power():
    A = kernel_matrix()
    P = A + 0.01 * np.eye(6)
    bound = np.abs(P).sum(0).max() * np.abs(P).sum(1).max()
    for iterations in (0, 3, 8):
        V = newton_inverse(A, iterations=iterations)
        error = np.linalg.eigvals(np.eye(6) - V @ P)
        want = (1 - 1.8 * np.linalg.eigvalsh(P) ** 2 / bound) ** (2**iterations)
        np.testing.assert_allclose(np.sort(error.real), np.sort(want), atol=1e-10)


def test_the_released_inverse_is_that_of_all_examples_together():
    q, k, v, points = draw()
    options = {"landmarks": points, "inverse": "released"}
    converged = soft_attention(q, k, v, **options, iterations=60)
    exact = soft_attention(q, k, v, landmarks=points, inverse="exact", ridge=1e-12)
    np.testing.assert_allclose(converged, exact, rtol=1e-6)
    both = soft_attention(q, k, v, **options, iterations=4)[1:]
    one = attention.soft_attention(
        q[1:], k[1:], v[1:], landmarks=points[1:], inverse="released", iterations=4
    )
    assert np.abs(both - one).max() > 1e-3
    far = points * 1e3
    assert not np.any(soft_attention(q, k, v, landmarks=far, inverse="released"))


def test_newton_inverse_never_diverges():
    rng = np.random.default_rng(3)
    matrices = [rng.normal(size=(5, 5)) * s for s in (1e-6, 1.0, 1e4)]
    matrices += [np.zeros((5, 5)), np.ones((5, 5)), np.eye(5)]
    got = newton_inverse(np.stack(matrices).astype(np.float32), iterations=60)
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(got[3], 100 * np.eye(5), rtol=1e-4)


def test_inside_a_scan_derivatives_survive_to_second_order():
    A = kernel_matrix()

    def loss(a):
        out, _ = jax.lax.scan(lambda c, _: (newton_inverse(c, iterations=40), None), a, None, 2)
        return jnp.sum(jnp.sin(out))

    def plain(a):
        ridge = 0.01 * jnp.eye(6)
        return jnp.sum(jnp.sin(jnp.linalg.inv(jnp.linalg.inv(a + ridge) + ridge)))

    u = np.random.default_rng(4).normal(size=A.shape)
    got, want = (jax.jit(lambda a, f=f: jax.jvp(jax.grad(f), (a,), (u,)))(A) for f in (loss, plain))
    for g, w in zip(got, want):
        np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-6 * np.abs(w).max())


def test_memory_and_flops_of_the_gradient_are_linear_in_the_tokens():
    def cost(n):
        x = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
        loss = lambda q, v: jnp.sum(jnp.sin(attention.soft_attention(q, q, v, landmarks=16)))  # noqa: E731
        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()["flops"]

    (memory, flops), (more_memory, more_flops) = cost(1024), cost(2048)
    assert more_memory <= 2.2 * memory
    assert more_flops <= 2.2 * flops
