"""Slow definitions in NumPy float64 that the tests compare with: one query, one key at a time."""

import numpy as np


def elu_map(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def turn(x, positions_angles):
    """Each pair of features, a complex number, times exp(i angle): [T, N, H] and [T, H / 2]."""
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * positions_angles)[:, None, :]
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def sees(mask, causal, b, n, i, j):
    return (mask is None or bool(mask[b, n, i, j])) and (not causal or j <= i)


def linear_weights(q, k, mask=None, causal=False, eps=1e-6, scale=1.0, phi=elu_map):
    (B, T, N, _), S, K = q.shape, k.shape[1], k.shape[2]
    A = np.zeros((B, N, T, S))
    for b, n, i in np.ndindex(B, N, T):
        seen = [j for j in range(S) if sees(mask, causal, b, n, i, j)]
        kernel = {j: scale * phi(q[b, i, n]) @ phi(k[b, j, n // (N // K)]) for j in seen}
        for j in seen:
            A[b, n, i, j] = kernel[j] / (sum(kernel.values()) + eps)
    return A


def mala_weights(
    q, k, mask=None, causal=False, eps=1e-6, scale=1.0, by_count=False, angles=None, phi=elu_map
):
    """A_ij = beta_i K_ij - gamma_i with K turned by `angles` and S not."""
    (B, T, N, _), S, K = q.shape, k.shape[1], k.shape[2]
    fq, fk = phi(q), phi(k)
    tq = fq if angles is None else np.stack([turn(x, angles) for x in fq])
    tk = fk if angles is None else np.stack([turn(x, angles) for x in fk])
    A = np.zeros((B, N, T, S))
    for b, n, i in np.ndindex(B, N, T):
        h = n // (N // K)
        seen = [j for j in range(S) if sees(mask, causal, b, n, i, j)]
        if not seen:
            continue
        factor = scale / (len(seen) if by_count else 1)
        total = sum(factor * fq[b, i, n] @ fk[b, j, h] for j in seen)
        beta, gamma = 1 + 1 / (total + eps), total / len(seen)
        for j in seen:
            A[b, n, i, j] = beta * factor * tq[b, i, n] @ tk[b, j, h] - gamma
    return A


def apply(A, v):
    group = A.shape[1] // v.shape[2]
    return np.einsum("bnts,bsne->btne", A, np.repeat(v, group, axis=2))
