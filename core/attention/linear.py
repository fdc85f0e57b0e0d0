"""Linear attention: a kernel of feature maps, summed over the keys before the queries see it."""

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

Implementation = Literal[
    "linear", "quadratic", "pallas_tpu", "pallas_triton", "interpret", "interpret_triton"
]
Read = Callable[[Array, Array], Array]
"""From sums over the keys of K_ij v_j [..., value_dim] and of K_ij [...] to what queries get."""


class LinearAttentionState(NamedTuple):
    """What linear attention remembers of the tokens so far.

    Attributes:
      key_sum: sum of phi(k_j) [batch, key_heads, dim].
      key_value: sum of phi(k_j) v_j^T [batch, key_heads, dim, value_dim].
    """

    key_sum: Float[Array, "B K H"]
    key_value: Float[Array, "B K H E"]


def check_implementation(implementation: str, *, quadratic: bool = True) -> None:
    """Raise unless `implementation` is one of linear attention's.

    Args:
      implementation: the argument.
      quadratic: whether the form with the weights written out is one.

    Raises:
      ValueError: naming `implementation`.
    """
    names = ("linear", *("quadratic",) * quadratic, *kernels.IMPLEMENTATIONS)
    takes = ", ".join(f'"{n}"' for n in names)
    check(implementation in names, "implementation", f"got {implementation!r}, takes {takes}")


def weigh(weights: Float[Array, "B N T S"], value: Any, precision: Any = None) -> Array:
    """`sum_j A_ij v_j` for weights written out.

    Args:
      weights: [batch, heads, queries, keys].
      value: [batch, keys, key_heads, value_dim].
      precision: of the product.

    Returns:
      [batch, queries, heads, value_dim] in the dtype of the weights.
    """
    batch, heads, queries, keys = weights.shape
    key_heads, value_dim = value.shape[2:]
    grouped = weights.reshape(batch, key_heads, heads // key_heads, queries, keys)
    out = jnp.einsum("bkgts,bske->btkge", grouped, value.astype(weights.dtype), precision=precision)
    return out.reshape(batch, queries, heads, value_dim)


def _divide(normalize: bool, epsilon: float, scale: Any) -> Read:
    """Scale sums over the keys [..., value_dim], and divide them by their total [...]."""
    factor = 1.0 if scale is None else scale

    def read(out: Array, total: Array) -> Array:
        if normalize:
            return safe_divide(factor * out, (factor * total + epsilon)[..., None])
        return factor * out

    return read


def linear_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: None = None,
    mask: Bool[Array, "*#BN1S"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    feature_map: FeatureMap = "elu",
    normalize: bool = True,
    epsilon: float = 1e-6,
    implementation: Implementation = "linear",
    chunk_size: int | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B T N E"]:
    """Linear attention: softmax's exponential replaced by a product of feature maps.

        out_i = sum_j K_ij v_j / (sum_j K_ij + epsilon),   K_ij = scale phi(q_i) . phi(k_j)

    As `K` factors, the sums over j are formed once, `phi(q_i) . sum_j phi(k_j) v_j^T`: time and
    memory grow linearly with the number of tokens. The causal form passes the sums from chunk to
    chunk of tokens. Multiplying phi(q_i) by a number cancels: the weights do not see the query's
    magnitude.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim]; key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      bias: None; a kernel of feature maps has no logits to add it to.
      mask: boolean over the keys, [batch or 1, heads or 1, 1, keys] or fewer leading axes; False
        hides a key. A query with no key yields zeros.
      scale: factor of the kernel; 1 for None. It cancels where the weights are normalized.
      is_causal: query i sees the keys 0 to i.
      feature_map: phi: "elu" for elu(x) + 1, "relu", or a function of arrays [..., dim] with
        values [..., features], of each token by itself.
      normalize: divide by the sum of the weights; False leaves `sum_j K_ij v_j`.
      epsilon: added to the sum of the weights.
      implementation: "linear" for scans in plain XLA, the default on every platform;
        "pallas_tpu" for a kernel that hands the sums from chunk to chunk on the chip;
        "pallas_triton" for one on GPUs that works on all chunks at once, from sums before each
        that XLA makes; "interpret" and "interpret_triton" to run these on any platform;
        "quadratic" for the weights [queries, keys] written out, which takes any mask. One that
        cannot run raises. A kernel's derivatives of every order are the same kernel. XLA cannot
        split it over devices: a sharded program calls it in `jax.shard_map`.
        Neither kernel has run on its chip yet. By the compiler's estimates for a v5e TPU the causal
        form of two heads becomes three to six times as fast, that of 64 heads between a third
        slower (Hessian-vector products) and twice as fast, the other form slower, and it takes up
        to 2.5 times the memory. For NVIDIA's GPUs (sm_80, sm_89, sm_90) it is compiled, and how
        fast it is remains to be measured; for an H100 the causal form takes three quarters of the
        scan's memory (values), 0.6 of it (gradients) and 1.3 times as much (Hessian-vector
        products), and the other form is two products of XLA.
      chunk_size: tokens a chunk of the causal form; None for 128, or what suits the shapes and the
        chip's memory. Kernels take multiples of 16 (on a TPU, of 8 for float32), or all tokens.
      precision: of the matrix products, as in `jax.lax.dot_general`.

    Returns:
      [batch, queries, heads, value_dim] in the inputs' dtype; computed in float32 or better, where
      kernels multiply features and values of bfloat16 inputs in bfloat16.

    Raises:
      ValueError: for a bias, a mask that differs between queries, a wrong shape, dtype or
        hyper-parameter, or an implementation that cannot run.

    Source: Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
    arXiv 2006.16236, (5), (6), (9).

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> linear_attention(x, x, x, is_causal=True).shape
    (2, 5, 4, 8)
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    check_no_bias(bias)
    check_range("epsilon", epsilon, 0)
    check_implementation(implementation)
    if implementation == "quadratic":
        weights = linear_attention_weights(
            *(query, key, mask),
            scale=scale,
            is_causal=is_causal,
            feature_map=feature_map,
            normalize=normalize,
            epsilon=epsilon,
            precision=precision,
        )
        return restore(weigh(weights, upcast(value), precision), query, key, value)
    out = kernel_sums(
        *(query, key, value, mask),
        feature_map=feature_map,
        is_causal=is_causal,
        chunk_size=chunk_size,
        precision=precision,
        implementation=implementation,
        read=_divide(normalize, epsilon, scale),
    )
    return restore(out, query, key, value)


def kernel_sums(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    mask: Bool[Array, "*#BN1S"] | None,
    *,
    feature_map: FeatureMap,
    is_causal: bool,
    chunk_size: int | None,
    precision: jax.lax.PrecisionLike,
    implementation: str,
    read: Read,
) -> Float[Array, "B T N E"]:
    """Sums over the keys of `K_ij v_j` and of `K_ij = phi(q_i) . phi(k_j)`, in linear time.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].
      value: [batch, keys, key_heads, value_dim].
      mask: over the keys, as in `linear_attention`.
      feature_map: as in `linear_attention`.
      is_causal: as in `linear_attention`.
      chunk_size: as in `linear_attention`.
      precision: as in `linear_attention`.
      implementation: as in `linear_attention`, but not "quadratic".
      read: what becomes of the two sums, [batch, queries, key_heads, group, value_dim] and without
        the last axis, in float32 or float64.

    Returns:
      What `read` returns, [batch, queries, heads, value_dim].
    """
    phi = feature_map_of(feature_map)
    heads = split_heads(query, key, value, mask)
    state = linear_attention_init(phi(heads.key[:, :1]), heads.value[:, :1])
    config = configure(implementation, is_causal, chunk_size, precision, query, key, value)
    if is_causal:
        keys = align(query.shape[1], heads.key, heads.value, heads.present)
        _, out = _causal(state, Heads(heads.query, *keys), phi, config, read)
    elif implementation != "linear":
        _, out = _by_kernels(state, heads, phi, config, read)
    else:

        def add(state: Any, key: Array, value: Array, present: Array) -> Any:
            k = phi(key) * present[..., None]
            key_value = jnp.einsum("bskh,bske->bkhe", k, value, precision=precision)
            after = state.key_sum + jnp.sum(k, axis=1), state.key_value + key_value
            return LinearAttentionState(*after), None

        def answer(_: None, query: Array) -> Any:
            q = phi(query)
            sums = jnp.einsum("btkgh,bkhe->btkge", q, state.key_value, precision=precision)
            total = jnp.einsum("btkgh,bkh->btkg", q, state.key_sum, precision=precision)
            return None, read(sums, total)

        state, _ = scan_chunks(add, state, heads[1:], PIECE)
        _, out = scan_chunks(answer, None, heads[:1], PIECE)
    return out.reshape(*query.shape[:3], value.shape[-1])


def _by_kernels(
    state: LinearAttentionState,
    heads: Heads,
    phi: Callable[[Array], Array],
    config: kernels.Config,
    read: Read,
) -> tuple[LinearAttentionState, Float[Array, "B T K G E"]]:
    """The next state, and what is read; the total of the weights is the sum of values that are one.

    Beside up to 127 values this one costs nothing, as the last of a TPU's 128 lanes; on a GPU it
    is the first of 16 columns.
    """
    one = jnp.ones_like(heads.value[..., :1])
    out, after = kernel_products(
        phi(heads.query),
        phi(heads.key) * heads.present[..., None],
        jnp.concatenate([heads.value, one], axis=-1),
        jnp.concatenate([state.key_value, state.key_sum[..., None]], axis=-1),
        config,
    )
    state = LinearAttentionState(after[..., -1], after[..., :-1])
    return state, read(out[..., :-1], out[..., -1])


def _causal(
    state: LinearAttentionState,
    heads: Heads,
    phi: Callable[[Array], Array],
    config: kernels.Config,
    read: Read,
) -> tuple[LinearAttentionState, Float[Array, "B T K G E"]]:
    """The next state, and what is read from the sums over the state's tokens and those up to i."""
    if config.implementation != "linear":
        return _by_kernels(state, heads, phi, config, read)
    precision = config.precision

    def step(state: Any, query: Array, key: Array, value: Array, present: Array) -> Any:
        q, k = phi(query), phi(key) * present[..., None]
        out, scores, key_value = chunk_sums(q, k, value, state.key_value, precision)
        before = jnp.einsum("btkgh,bkh->btkg", q, state.key_sum, precision=precision)
        total = before + jnp.moveaxis(jnp.sum(scores, axis=-1), 3, 1)
        after = LinearAttentionState(state.key_sum + jnp.sum(k, axis=1), key_value)
        return after, read(out, total)

    return scan_chunks(step, state, heads, config.chunk)


def linear_attention_init(
    key: Float[Array, "B S K H"], value: Float[Array, "B S K E"]
) -> LinearAttentionState:
    """The state of `linear_attention_step` before any token.

    Args:
      key: features of keys like those to come, [batch, any, key_heads, features]; only shape and
        dtype count.
      value: values like those to come [batch, any, key_heads, value_dim].

    Returns:
      Zeros of the shapes [batch, key_heads, features] and [batch, key_heads, features, value_dim].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Transformers are RNNs, arXiv 2006.16236, (16), (17).

    >>> linear_attention_init(jnp.ones((2, 1, 4, 8)), jnp.ones((2, 1, 4, 8))).key_value.shape
    (2, 4, 8, 8)
    """
    check_attention(key, key, value)
    key, value = upcast(key, value)
    batch, _, heads, dim = key.shape
    return LinearAttentionState(
        jnp.zeros((batch, heads, dim), key.dtype),
        jnp.zeros((batch, heads, dim, value.shape[-1]), key.dtype),
    )


def linear_attention_step(
    state: LinearAttentionState,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K E"],
    mask: Bool[Array, "*#BN1T"] | None = None,
    *,
    scale: float | None = None,
    feature_map: FeatureMap = "elu",
    normalize: bool = True,
    epsilon: float = 1e-6,
    implementation: Implementation = "linear",
    chunk_size: int | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[Float[Array, "B T N E"], LinearAttentionState]:
    """Causal linear attention of the next tokens, in memory that does not grow with the past.

        s_i = s_{i-1} + phi(k_i),   z_i = z_{i-1} + phi(k_i) v_i^T
        out_i = phi(q_i) z_i / (phi(q_i) . s_i + epsilon)

    A prompt may be given at once and then a token at a time: the outputs are those of
    `linear_attention(..., is_causal=True)` on the whole.

    Args:
      state: from `linear_attention_init` or the step before.
      query: the next tokens' queries [batch, tokens, heads, dim].
      key: their keys [batch, tokens, key_heads, dim].
      value: their values [batch, tokens, key_heads, value_dim].
      mask: boolean over these keys [batch or 1, key_heads or 1, 1, tokens]; False for padding.
      scale: as in `linear_attention`.
      feature_map: as in `linear_attention`.
      normalize: as in `linear_attention`.
      epsilon: as in `linear_attention`.
      implementation: as in `linear_attention`, but not "quadratic".
      chunk_size: as in `linear_attention`.
      precision: as in `linear_attention`.

    Returns:
      The outputs [batch, tokens, heads, value_dim] and the next state.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Transformers are RNNs, arXiv 2006.16236, (16) to (20).

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> state = linear_attention_init(x, x)
    >>> out, state = linear_attention_step(state, x, x, x)
    >>> out, state = linear_attention_step(state, x[:, :1], x[:, :1], x[:, :1])
    >>> out.shape
    (2, 1, 4, 8)
    """
    check_step(query, key, value, mask, scale=scale)
    check_range("epsilon", epsilon, 0)
    check_implementation(implementation, quadratic=False)
    phi = feature_map_of(feature_map)
    heads = split_heads(query, key, value, mask)
    read = _divide(normalize, epsilon, scale)
    config = configure(implementation, True, chunk_size, precision, query, key, value)
    state, out = _causal(state, heads, phi, config, read)
    return restore(out.reshape(*query.shape[:3], value.shape[-1]), query, key, value), state


def check_step(query: Any, key: Any, value: Any, mask: Any, *, scale: Any) -> None:
    """Raise unless a step has one key a query and a mask that its state can hold.

    Args:
      query: [batch, tokens, heads, dim].
      key: [batch, tokens, key_heads, dim].
      value: [batch, tokens, key_heads, value_dim].
      mask: None or an array.
      scale: as in `check_attention`.

    Raises:
      ValueError: naming the argument.
    """
    check_attention(query, key, value, scale=scale)
    tokens, key_heads = key.shape[1:3]
    check(
        tokens == query.shape[1],
        "key",
        f"got {tokens} tokens, takes as many as the query's {query.shape[1]}",
    )
    if mask is not None and jnp.ndim(mask) >= 3:
        check(
            jnp.shape(mask)[-3] in (1, key_heads),
            "mask",
            f"got {jnp.shape(mask)[-3]} heads, takes 1 or {key_heads}, as the state of a step",
        )


def linear_attention_weights(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    mask: Bool[Array, "*#BNTS"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    feature_map: FeatureMap = "elu",
    normalize: bool = True,
    epsilon: float = 1e-6,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "B N T S"]:
    """The weights that `linear_attention` implies, written out: quadratic in time and memory.

        A_ij = K_ij / (sum_m K_im + epsilon),   K_ij = scale phi(q_i) . phi(k_j)

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].
      mask: boolean, broadcasts to [batch, heads, queries, keys].
      scale: as in `linear_attention`.
      is_causal: as in `linear_attention`.
      feature_map: as in `linear_attention`.
      normalize: as in `linear_attention`.
      epsilon: as in `linear_attention`.
      precision: as in `linear_attention`.

    Returns:
      [batch, heads, queries, keys] in float32 or float64; zero where a key is hidden.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Transformers are RNNs, arXiv 2006.16236, (4).

    >>> x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    >>> bool(jnp.allclose(linear_attention_weights(x, x).sum(-1), 1, atol=1e-5))
    True
    """
    check_attention(query, key, key, scale=scale, is_causal=is_causal)
    check_range("epsilon", epsilon, 0)
    phi = feature_map_of(feature_map)
    heads = split_heads(query, key, key)
    kernel = (1.0 if scale is None else scale) * jnp.einsum(
        "btkgh,bskh->bkgts", phi(heads.query), phi(heads.key), precision=precision
    )
    kernel = jnp.where(visible(mask, is_causal, query, key), kernel, 0)
    if normalize:
        total = jnp.sum(kernel, axis=-1, keepdims=True)
        kernel = safe_divide(kernel, total + epsilon)
    return kernel.reshape(query.shape[0], query.shape[2], query.shape[1], key.shape[1])
