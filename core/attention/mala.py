"""Magnitude-aware linear attention (MALA)."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..kernels import linear_attention as kernels
from ..numerics import check, check_range, restore, safe_divide, upcast
from .arguments import Heads, check_attention, check_no_bias, split_heads, visible
from .features import (
    PIECE,
    FeatureMap,
    align,
    chunk_sums,
    configure,
    feature_map_of,
    kernel_products,
    scan_chunks,
)
from .linear import Implementation, check_implementation, check_step, weigh
from .rope import Rope, Rotary, apply_rope, rope_pair

KernelScale = Literal["paper", "released"]


class MalaState(NamedTuple):
    """What MALA remembers of the tokens so far: how many, their means and their covariance.

    Attributes:
      seen: number of tokens [batch, key_heads].
      key_mean: mean of phi(k_j) [batch, key_heads, dim].
      turned_mean: mean of phi(k_j) after RoPE; equal to `key_mean` without.
      value_mean: mean of v_j [batch, key_heads, value_dim].
      covariance: sum of (turned phi(k_j) - its mean) (v_j - its mean)^T
        [batch, key_heads, dim, value_dim].
    """

    seen: Float[Array, "B K"]
    key_mean: Float[Array, "B K H"]
    turned_mean: Float[Array, "B K H"]
    value_mean: Float[Array, "B K E"]
    covariance: Float[Array, "B K H E"]


class _Features(NamedTuple):
    """phi of queries and keys, plain and turned by RoPE (the same arrays without it)."""

    q: Float[Array, "B T K G H"]
    k: Float[Array, "B S K H"]
    q_turned: Float[Array, "B T K G H"]
    k_turned: Float[Array, "B S K H"]


Map = Callable[[Array], Array]
Angles = tuple[Array, ...]


def _angles(rope: Rope | None, phi: Map, query: Array, key: Array) -> tuple[Angles, Angles]:
    """Cosines and sines [batch or 1, tokens, dim] for queries and for keys; none without RoPE.

    They are as long and as wide as the features that they turn.
    """
    pair = rope_pair(rope)
    for name, x, rotary in zip(("query", "key"), (query, key), pair or (), strict=False):
        got, takes = jnp.shape(rotary.cos), (x.shape[1], jax.eval_shape(phi, x).shape[-1])
        check(
            got[-2:] == takes,
            "rope",
            f"got angles of shape {got} for the {name}, takes [..., {takes[0]}, {takes[1]}]",
        )
    of_query, of_key = (
        tuple(x if x.ndim == 3 else x[None] for x in map(jnp.asarray, rotary))
        for rotary in pair or ((), ())
    )
    return of_query, of_key


def _mapped(x: Array, phi: Map, angles: Angles) -> tuple[Array, Array]:
    """phi(x), plain and turned by the angles (the same array where there are none)."""
    plain = phi(x)
    if not angles:
        return plain, plain
    flat = plain.reshape(*plain.shape[:2], -1, plain.shape[-1])
    return plain, apply_rope(flat, Rotary(*angles)).reshape(plain.shape)


def _features(query: Array, key: Array, phi: Map, angles: tuple[Angles, Angles]) -> _Features:
    (q, q_turned), (k, k_turned) = (_mapped(x, phi, a) for x, a in zip((query, key), angles))
    return _Features(q, k, q_turned, k_turned)


def _kernel_factor(kernel_scale: str, scale: Any, dim: int, count: Array) -> Array:
    """What phi(q) . phi(k) is multiplied by, for rows that see `count` keys."""
    if kernel_scale == "paper":
        return jnp.ones_like(count) * (1.0 if scale is None else scale)
    return (dim**-0.5 if scale is None else scale) / jnp.maximum(count, 1)


def _check_options(kernel_scale: Any, epsilon: Any) -> None:
    check_range("epsilon", epsilon, 0)
    check(
        kernel_scale in ("paper", "released"),
        "kernel_scale",
        f'got {kernel_scale!r}, takes "paper" or "released"',
    )


def _read(
    q: Float[Array, "B T K G H"],
    q_turned: Float[Array, "B T K G H"],
    moment: Float[Array, "B T K G E"],
    past: MalaState,
    factor: Float[Array, "B T K"],
    epsilon: float,
    precision: jax.lax.PrecisionLike,
) -> Float[Array, "B T K G E"]:
    """The output from the moments of the keys and values that each query sees.

    `beta K V - gamma V`, with K V = moment + S_turned mean(v), so that the difference of two
    large sums, most of the paper's formula, is never formed: with C the covariance,

        out = (1 + r) q . C + (r S_turned + S_turned - S) mean(v),   r = 1 / (S + epsilon)

    and S_turned = S without RoPE.
    """

    def total(q: Array, mean: Array) -> Array:
        out = jnp.einsum("btkgh,btkh->btkg", q, mean, precision=precision)
        return out * (factor * past.seen)[..., None]

    plain = total(q, past.key_mean)
    turned = plain if q_turned is q else total(q_turned, past.turned_mean)
    inverse = safe_divide(jnp.ones_like(plain), plain + epsilon)
    offset = inverse * turned + (turned - plain)
    moment = moment * factor[..., None, None]
    return (1 + inverse)[..., None] * moment + offset[..., None] * past.value_mean[:, :, :, None]


def _means(
    state: MalaState,
    k: Float[Array, "B T K H"],
    k_turned: Float[Array, "B T K H"],
    value: Float[Array, "B T K E"],
    present: Float[Array, "B T K"],
) -> tuple[MalaState, MalaState, tuple[Float[Array, "B T K H"], Float[Array, "B T K E"]]]:
    """Means over the state's tokens and those up to i; the last of them; what the moments sum.

    The covariance of the first i tokens is that of the first i - 1 plus
    (k_i - mean_{i-1} k) (v_i - mean_i v)^T (Welford), a prefix sum like that of linear attention.
    It is left as it is in the state.
    """
    count = state.seen[:, None] + jnp.cumsum(present, axis=1)

    def running(start: Array, y: Array) -> Array:
        # Before any token, the first one is the origin of the sums, which keeps them small. The
        # means do not depend on the origin, so neither do their derivatives.
        first = jax.lax.stop_gradient(y[:, 0] * present[:, 0, :, None])
        start = jnp.where(state.seen[..., None] > 0, start, first)
        change = jnp.cumsum((y - start[:, None]) * present[..., None], axis=1)
        return start[:, None] + change / jnp.maximum(count, 1)[..., None]

    key_mean = running(state.key_mean, k)
    turned_mean = key_mean if k_turned is k else running(state.turned_mean, k_turned)
    value_mean = running(state.value_mean, value)
    before = jnp.concatenate([state.turned_mean[:, None], turned_mean[:, :-1]], axis=1)
    past = MalaState(count, key_mean, turned_mean, value_mean, state.covariance)
    last = jax.tree.map(lambda x: x[:, -1], past)._replace(covariance=state.covariance)
    return past, last, ((k_turned - before) * present[..., None], value - value_mean)


def _causal(
    state: MalaState,
    heads: Heads,
    phi: Map,
    angles: tuple[Angles, Angles],
    factor: Callable[[Array], Array],
    epsilon: float,
    config: kernels.Config,
) -> tuple[MalaState, Float[Array, "B T K G E"]]:
    """The next state, and the outputs of queries that see the state's tokens and those up to i."""
    keys = align(heads.query.shape[1], heads.key, heads.value, heads.present, *angles[1])
    arrays = (heads.query, *keys[:3], *angles[0], *keys[3:])
    precision = config.precision

    def step(
        state: Any, query: Array, key: Array, value: Array, present: Array, *turns: Any
    ) -> Any:
        x = _features(query, key, phi, (turns[:2], turns[2:]))
        past, after, factors = _means(state, x.k, x.k_turned, value, present)
        moment, _, covariance = chunk_sums(x.q_turned, *factors, state.covariance, precision)
        after = after._replace(covariance=covariance)
        return after, _read(x.q, x.q_turned, moment, past, factor(past.seen), epsilon, precision)

    if config.implementation == "linear":
        return scan_chunks(step, state, arrays, config.chunk)

    none: Any = None  # in place of the covariance, which is not one a token

    def go_by(state: Any, key: Array, value: Array, present: Array, *turns: Array) -> Any:
        past, after, factors = _means(state, *_mapped(key, phi, turns), value, present)
        return after, (past._replace(covariance=none), factors)

    q, q_turned = _mapped(heads.query, phi, angles[0])
    after, (past, (k, v)) = scan_chunks(go_by, state, keys, config.chunk)
    moment, covariance = kernel_products(q_turned, k, v, state.covariance, config)
    after = after._replace(covariance=covariance)
    return after, _read(q, q_turned, moment, past, factor(past.seen), epsilon, precision)


def _of_all(
    state: MalaState,
    heads: Heads,
    phi: Map,
    angles: tuple[Angles, Angles],
    factor: Callable[[Array], Array],
    epsilon: float,
    config: kernels.Config,
) -> Float[Array, "B T K G E"]:
    """The outputs of queries that see all keys; `state` is that before any."""
    precision = config.precision

    def center(key: Array, value: Array, present: Array, *turns: Array) -> Any:
        """How many tokens there are, their means, and what their covariance sums."""
        count = jnp.sum(present, axis=1)

        def mean(y: Array) -> Array:
            total = jnp.sum(y * present[..., None], axis=1)
            return total / jnp.maximum(count, 1)[..., None]

        k, k_turned = _mapped(key, phi, turns)
        turned, of_values = mean(k_turned), mean(value)
        plain = turned if k_turned is k else mean(k)
        factors = (k_turned - turned[:, None]) * present[..., None], value - of_values[:, None]
        return MalaState(count, plain, turned, of_values, state.covariance), factors

    def add(state: Any, *keys: Array) -> Any:
        """Moments of two sets of tokens together, from those of each (Chan, Golub, LeVeque)."""
        new, factors = center(*keys)
        seen = state.seen + new.seen
        share = new.seen / jnp.maximum(seen, 1)
        inside = jnp.einsum("bskh,bske->bkhe", *factors, precision=precision)
        gaps = new.turned_mean - state.turned_mean, new.value_mean - state.value_mean
        between = jnp.einsum("bkh,bke->bkhe", *gaps, precision=precision)
        between = (state.seen * share)[..., None, None] * between
        means = (a + share[..., None] * (b - a) for a, b in zip(state[1:4], new[1:4]))
        merged = dict(zip(MalaState._fields[1:4], means))
        return MalaState(seen, covariance=state.covariance + inside + between, **merged), None

    def answer(q: Array, q_turned: Array, moment: Array, whole: MalaState) -> Array:
        past = jax.tree.map(lambda x: x[:, None], whole)
        return _read(q, q_turned, moment, past, factor(past.seen), epsilon, precision)

    def answer_chunk(_: None, query: Array, *turns: Array) -> Any:
        q, q_turned = _mapped(query, phi, turns)
        moment = jnp.einsum("btkgh,bkhe->btkge", q_turned, whole.covariance, precision=precision)
        return None, answer(q, q_turned, moment, whole)

    if config.implementation != "linear":
        whole, (k, v) = center(*heads[1:], *angles[1])
        q, q_turned = _mapped(heads.query, phi, angles[0])
        moment, _ = kernel_products(q_turned, k, v, state.covariance, config)
        return answer(q, q_turned, moment, whole)
    whole, _ = scan_chunks(add, state, (*heads[1:], *angles[1]), PIECE)
    return scan_chunks(answer_chunk, None, (heads.query, *angles[0]), PIECE)[1]


def mala(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: None = None,
    mask: Bool[Array, "*#BN1S"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    rope: Rope | None = None,
    epsilon: float = 1e-6,
    feature_map: FeatureMap = "elu",
    kernel_scale: KernelScale = "paper",
    implementation: Implementation = "linear",
    chunk_size: int | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B T N E"]:
    """Magnitude-aware linear attention: weights that sharpen as the query grows, at linear cost.

        A_ij = beta_i K_ij - gamma_i,            K_ij = scale phi(q_i) . phi(k_j)
        beta_i = 1 + 1 / (S_i + epsilon),        S_i = sum_j K_ij
        gamma_i = S_i / N                        (N keys)

    Division by S_i, which cancels the query's magnitude in linear attention, becomes a scale and
    an offset. Rows sum to one (for epsilon = 0 and without RoPE); entries may be negative.
    Multiplying phi(q_i) by c gives `A_linear + c (K - S / N)`: the sums over the keys are those of
    linear attention plus phi(q_i) times the covariance of phi(k) and v, and are computed so. In the
    causal form, N and the sums run over the keys up to i.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      bias: None; a kernel of feature maps has no logits to add it to.
      mask: boolean over the keys, [batch or 1, heads or 1, 1, keys] or fewer leading axes; False
        hides a key. A query with no key yields zeros.
      scale: factor of the kernel; None for 1 ("paper") or dim^(-1/2) ("released").
      is_causal: query i sees the keys 0 to i.
      rope: angles from `rope_1d` or `rope_2d`, one for both or a pair (query, key). They turn
        phi(q) and phi(k) in K but not in S, as in the authors' code, so rows no longer sum to one.
      epsilon: added to S in beta.
      feature_map: phi: "elu" for elu(x) + 1, the paper's; "relu"; or a function of arrays
        [..., dim], of each token by itself.
      kernel_scale: "paper" for K as above; "released" for the authors' code, which also divides K
        by the number of keys, so that the departure from linear attention does not grow with it.
      implementation: as in `linear_attention`: "linear", "pallas_tpu", "pallas_triton",
        "interpret", "interpret_triton" or "quadratic".
      chunk_size: as in `linear_attention`.
      precision: of the matrix products, as in `jax.lax.dot_general`.

    Returns:
      [batch, queries, heads, value_dim] in the inputs' dtype; computed in float32 or better.

    Raises:
      ValueError: for a bias, a mask that differs between queries, or a wrong shape, dtype or
        hyper-parameter.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698; compared with
    qhfan/MALA `classfication_release/model.py` (`AddLinearAttention`): its kernel is
    `dim^(-1/2) phi(q) . phi(k) / N` (`kernel_scale="released"`), the paper's is not scaled; the
    causal form and masks are not in it.

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> mala(x, x, x).shape
    (2, 5, 4, 8)
    >>> bool(jnp.allclose(mala(x, x, jnp.ones_like(x)), 1, atol=1e-5))
    True
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    check_no_bias(bias)
    check_implementation(implementation)
    _check_options(kernel_scale, epsilon)
    if implementation == "quadratic":
        weights = mala_weights(
            *(query, key, mask),
            scale=scale,
            is_causal=is_causal,
            rope=rope,
            epsilon=epsilon,
            feature_map=feature_map,
            kernel_scale=kernel_scale,
            precision=precision,
        )
        return restore(weigh(weights, upcast(value), precision), query, key, value)
    heads, phi = split_heads(query, key, value, mask), feature_map_of(feature_map)
    angles = _angles(rope, phi, heads.query, heads.key)
    factor = functools.partial(_kernel_factor, kernel_scale, scale, query.shape[-1])
    config = configure(implementation, is_causal, chunk_size, precision, query, key, value)
    state = mala_init(phi(heads.key[:, :1]), heads.value[:, :1])
    if is_causal:
        _, out = _causal(state, heads, phi, angles, factor, epsilon, config)
    else:
        out = _of_all(state, heads, phi, angles, factor, epsilon, config)
    return restore(out.reshape(*query.shape[:3], value.shape[-1]), query, key, value)


def mala_init(key: Float[Array, "B S K H"], value: Float[Array, "B S K E"]) -> MalaState:
    """The state of `mala_step` before any token.

    Args:
      key: features of keys like those to come, [batch, any, key_heads, features]; only shape and
        dtype count.
      value: values like those to come [batch, any, key_heads, value_dim].

    Returns:
      Zeros; see `MalaState` for the shapes [batch, key_heads, ...].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698; the recurrent form
    is this library's.

    >>> mala_init(jnp.ones((2, 1, 4, 8)), jnp.ones((2, 1, 4, 8))).covariance.shape
    (2, 4, 8, 8)
    """
    check_attention(key, key, value)
    key, value = upcast(key, value)
    batch, _, heads, dim = key.shape
    shapes = ((), (dim,), (dim,), (value.shape[-1],), (dim, value.shape[-1]))
    return MalaState(*(jnp.zeros((batch, heads, *shape), key.dtype) for shape in shapes))


def mala_step(
    state: MalaState,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K E"],
    mask: Bool[Array, "*#BN1T"] | None = None,
    *,
    scale: float | None = None,
    rope: Rope | None = None,
    epsilon: float = 1e-6,
    feature_map: FeatureMap = "elu",
    kernel_scale: KernelScale = "paper",
    implementation: Implementation = "linear",
    chunk_size: int | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[Float[Array, "B T N E"], MalaState]:
    """Causal MALA of the next tokens, in memory that does not grow with the past.

        n_i = n_{i-1} + 1,   C_i = C_{i-1} + (phi(k_i) - mean_{i-1} phi(k)) (v_i - mean_i v)^T
        out_i = beta_i scale phi(q_i) C_i + S_i / (S_i + epsilon) mean_i v     (without RoPE)

    A prompt may be given at once and then a token at a time: the outputs are those of
    `mala(..., is_causal=True)` on the whole.

    Args:
      state: from `mala_init` or the step before.
      query: the next tokens' queries [batch, tokens, heads, dim].
      key: their keys [batch, tokens, key_heads, dim].
      value: their values [batch, tokens, key_heads, value_dim].
      mask: boolean over these keys [batch or 1, key_heads or 1, 1, tokens]; False for padding.
      scale: as in `mala`.
      rope: as in `mala`, the angles of these tokens' positions.
      epsilon: as in `mala`.
      feature_map: as in `mala`.
      kernel_scale: as in `mala`.
      implementation: as in `mala`, but not "quadratic".
      chunk_size: as in `mala`.
      precision: as in `mala`.

    Returns:
      The outputs [batch, tokens, heads, value_dim] and the next state.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698; the recurrent form
    is this library's.

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> out, state = mala_step(mala_init(x, x), x, x, x)
    >>> out, state = mala_step(state, x[:, :1], x[:, :1], x[:, :1])
    >>> out.shape
    (2, 1, 4, 8)
    """
    check_step(query, key, value, mask, scale=scale)
    check_implementation(implementation, quadratic=False)
    _check_options(kernel_scale, epsilon)
    heads, phi = split_heads(query, key, value, mask), feature_map_of(feature_map)
    angles = _angles(rope, phi, heads.query, heads.key)
    factor = functools.partial(_kernel_factor, kernel_scale, scale, query.shape[-1])
    config = configure(implementation, True, chunk_size, precision, query, key, value)
    state, out = _causal(state, heads, phi, angles, factor, epsilon, config)
    return restore(out.reshape(*query.shape[:3], value.shape[-1]), query, key, value), state


def mala_weights(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    mask: Bool[Array, "*#BNTS"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    rope: Rope | None = None,
    epsilon: float = 1e-6,
    feature_map: FeatureMap = "elu",
    kernel_scale: KernelScale = "paper",
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B N T S"]:
    """The weights A_ij that `mala` implies, written out: quadratic in time and memory.

        A_ij = beta_i K_ij - gamma_i

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].
      mask: boolean, broadcasts to [batch, heads, queries, keys].
      scale: as in `mala`.
      is_causal: as in `mala`.
      rope: as in `mala`.
      epsilon: as in `mala`.
      feature_map: as in `mala`.
      kernel_scale: as in `mala`.
      precision: as in `mala`.

    Returns:
      [batch, heads, queries, keys] in float32 or float64; zero where a key is hidden.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698.

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> bool(jnp.allclose(mala_weights(x, x).sum(-1), 1, atol=1e-5))
    True
    """
    check_attention(query, key, key, scale=scale, is_causal=is_causal)
    _check_options(kernel_scale, epsilon)
    shown = visible(mask, is_causal, query, key)
    heads, phi = split_heads(query, key, key), feature_map_of(feature_map)
    angles = _angles(rope, phi, heads.query, heads.key)
    x = _features(heads.query, heads.key, phi, angles)
    count = jnp.sum(shown, axis=-1, keepdims=True).astype(x.q.dtype)
    factor = _kernel_factor(kernel_scale, scale, query.shape[-1], count)

    def kernel(q: Array, k: Array) -> Array:
        product = jnp.einsum("btkgh,bskh->bkgts", q, k, precision=precision)
        return jnp.where(shown, factor * product, 0)

    plain = kernel(x.q, x.k)
    total = jnp.sum(plain, axis=-1, keepdims=True)
    beta = 1 + safe_divide(jnp.ones_like(total), total + epsilon)
    gamma = total / jnp.maximum(count, 1)
    turned = plain if x.q_turned is x.q else kernel(x.q_turned, x.k_turned)
    weights = jnp.where(shown, beta * turned - gamma, 0)
    return weights.reshape(query.shape[0], query.shape[2], query.shape[1], key.shape[1])
