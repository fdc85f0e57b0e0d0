"""Self-attention and a transformer block, with positions, any operator, and a cache to decode."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ..attention import apply_rope, rope_1d
from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_positive,
    check_shape,
)
from .attention import Operator, accepted_by, check_heads, operator_of

Positions = Literal["rope", "learned", "none"]


class KeyValueCache(NamedTuple):
    """Keys and values of the tokens so far, for `SelfAttention.decode`.

    Attributes:
      key: [batch, max_length, key_heads, dim_head].
      value: [batch, max_length, key_heads, dim_head].
      length: how many tokens there are [].
    """

    key: Float[Array, "B L K H"]
    value: Float[Array, "B L K H"]
    length: Int[Array, ""]


def _check_operator(operator: Operator, causal: bool) -> None:
    """Raise unless the module can call the operator."""
    takes = accepted_by(operator)
    name = getattr(operator, "__name__", operator)
    parameters = inspect.signature(operator).parameters.items()
    needs = [n for n, p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    check(
        not needs,
        "attention_fn",
        f"got {name}, which needs {', '.join(needs)}, takes one without (functools.partial)",
    )
    check(
        takes("mask") and (takes("is_causal") or not causal),
        "attention_fn",
        f"got {name}, takes a function with arguments mask and is_causal",
    )
    # Decoding calls it with masks in place of causality.
    check(
        not any(n == "is_causal" and p.default is True for n, p in parameters),
        "attention_fn",
        f"got {name} with is_causal=True, takes one without: `causal` says it",
    )


class SelfAttention(nnx.Module):
    """Attention of tokens to each other: projections around an operator.

        y = Linear(attention(q, k, v)),   q, k, v = Linear(x)

    Args:
      dim: features of a token, in and out.
      heads: query heads; divides dim.
      key_heads: key and value heads; divides heads, and is `heads` for None.
      attention_fn: an operator of `papyrax.attention` or its name, or any function
        `f(query, key, value, mask=..., is_causal=...)` of arrays [batch, length, heads, dim_head];
        `functools.partial` sets options of an operator.
      causal: whether a token sees only itself and those before it.
      window: how many tokens back a token sees beside itself, for causal operators that take
        `local_window_size`; None for all.
      positions: "rope" turns queries and keys by their positions (operators that take `rope` do it
        themselves); "learned" adds an embedding of the position to what queries and keys are
        projected from; "none" leaves positions to the model.
      max_length: the number of learned positions.
      rope_base: base of the frequencies of "rope".
      out_scale: factor of the output projection's initial size.
      use_bias: whether the projections have a bias.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.

    Called with x [batch, length, dim], and where there is padding with mask [batch, length], True
    for tokens that may be seen, it returns [batch, length, dim]. `decode` continues a sequence
    without padding token by token, or in pieces of any length, and agrees with the call. Operators
    of linear cost have no mask between queries, so they decode one token at a time.

    Raises:
      ValueError: for sizes that do not fit, an unknown name, what the operator cannot do, or an
        input of another shape or dtype.

    Source: Attention Is All You Need, arXiv 1706.03762, 3.2.2; "rope": RoFormer, arXiv 2104.09864;
    "learned": added to queries and keys in every layer, as in DETR, arXiv 2005.12872, figure 10;
    key_heads: GQA, arXiv 2305.13245. Values and gradients agree with Llama's attention in
    transformers once its features are in the order of `papyrax.attention.rope_1d`.

    >>> layer = SelfAttention(16, 4, attention_fn="dot_product_attention", rngs=nnx.Rngs(0))
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 16))
    >>> first, cache = layer.decode(x[:, :3], layer.init_cache(1, max_length=8))
    >>> rest, cache = layer.decode(x[:, 3:], cache)
    >>> bool(jnp.allclose(layer(x), jnp.concatenate([first, rest], axis=1), atol=1e-5))
    True
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        key_heads: int | None = None,
        attention_fn: str | Operator = "dot_product_attention",
        causal: bool = True,
        window: int | None = None,
        positions: Positions = "rope",
        max_length: int | None = None,
        rope_base: float = 10000.0,
        out_scale: float = 1.0,
        use_bias: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(dim, heads)
        key_heads = heads if key_heads is None else key_heads
        check_count(key_heads=key_heads)
        fits = heads % key_heads == 0
        check(fits, "key_heads", f"got {key_heads}, takes a divisor of {heads} heads")
        kinds = ("rope", "learned", "none")
        takes = ", ".join(map(repr, kinds))
        check(positions in kinds, "positions", f"got {positions!r}, takes one of {takes}")
        self.dim, self.heads, self.key_heads = dim, heads, key_heads
        self.dim_head = dim // heads
        self.operator = operator_of(attention_fn, "attention_fn")
        accepts = inspect.signature(self.operator).parameters
        _check_operator(self.operator, causal)
        whole = isinstance(window, int | np.integer) and window >= 0
        fits = window is None or (causal and whole and "local_window_size" in accepts)
        takes = "takes None, or an integer from 0 with an operator of causal windows"
        check(fits, "window", f"got {window}, {takes}")
        self.causal, self.window, self.positions = causal, window, positions
        self.rope_base, self.takes_rope = rope_base, "rope" in accepts
        check_positive(rope_base=rope_base)
        fits = positions != "rope" or self.dim_head % 2 == 0
        check(
            fits, "heads", f"got {heads} of {self.dim_head} features, 'rope' takes an even number"
        )
        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        if positions == "learned":
            check_count(max_length=max_length)
            small = nnx.initializers.normal(0.02)
            self.table = nnx.Embed(max_length or 0, dim, embedding_init=small, **common)
        common["use_bias"] = use_bias
        self.query = nnx.LinearGeneral(dim, (heads, self.dim_head), **common)
        self.key = nnx.LinearGeneral(dim, (key_heads, self.dim_head), **common)
        self.value = nnx.LinearGeneral(dim, (key_heads, self.dim_head), **common)
        init = nnx.initializers.variance_scaling(out_scale**2, "fan_in", "truncated_normal")
        self.out = nnx.LinearGeneral(
            (heads, self.dim_head), dim, axis=(-2, -1), kernel_init=init, **common
        )

    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Tokens [batch, length, dim] that have seen each other, and none that `mask` hides."""
        places = jnp.arange(jnp.shape(x)[1] if jnp.ndim(x) > 1 else 0)
        query, key, value = self._project(x, places)
        options: dict[str, Any] = {"is_causal": True} if self.causal else {}
        if self.window is not None:
            options["local_window_size"] = (self.window, 0)
        if mask is not None:
            check_boolean(mask=mask)
            check_shape("mask", mask, jnp.shape(x)[:2], "[batch, length], as x")
            options["mask"] = jnp.asarray(mask)[:, None, None]
        if self.positions == "rope" and self.takes_rope:
            options["rope"] = self._angles(places)
        return self.out(self.operator(query, key, value, **options))

    def init_cache(self, batch: int, max_length: int, dtype: Any = None) -> KeyValueCache:
        """A cache without tokens.

        Args:
          batch: sequences at a time.
          max_length: tokens that fit.
          dtype: of the keys and values; that of the computation for None.

        Returns:
          The cache.

        Raises:
          ValueError: unless attention is causal and lengths are positive.
        """
        check(
            self.causal, "causal", "got False, takes True: later tokens would change earlier ones"
        )
        check_count(batch=batch, max_length=max_length)
        dtype = dtype or self.key.dtype or self.key.param_dtype
        shape = (batch, max_length, self.key_heads, self.dim_head)
        return KeyValueCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))

    def decode(
        self, x: Float[Array, "B T D"], cache: KeyValueCache
    ) -> tuple[Float[Array, "B T D"], KeyValueCache]:
        """The next tokens of sequences whose keys and values are in a cache.

        Where they no longer fit, the result is NaN.

        Args:
          x: [batch, length, dim], one token or more.
          cache: of the tokens before them.

        Returns:
          What the call gives for these tokens [batch, length, dim], and the cache with them.

        Raises:
          ValueError: unless x fits the cache, and the cache the module.
        """
        check_floating(x=x)
        fits = isinstance(cache, KeyValueCache)
        check(fits, "cache", f"got {type(cache).__name__}, takes that of init_cache")
        size = self.key_heads, self.dim_head
        check_shape("cache", cache.key, (None, None, *size), "[batch, max_length, ...], as here")
        batch, most = cache.key.shape[:2]
        check_shape("x", x, (batch, None, self.dim), "[batch, length, dim]")
        new = x.shape[1]
        check(0 < new <= most, "x", f"got {new} tokens, takes 1 to {most}, as the cache was made")
        places = cache.length + jnp.arange(new, dtype=jnp.int32)
        query, *found = self._project(x, places)
        key, value = (
            jax.lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), cache.length, axis=1)
            for old, part in zip(cache[:2], found)
        )
        columns = jnp.arange(most, dtype=jnp.int32)
        seen = columns <= places[:, None]
        if self.window is not None:
            seen &= columns >= places[:, None] - self.window
        options: dict[str, Any] = {"mask": seen[None, None]}
        if self.positions == "rope" and self.takes_rope:
            options["rope"] = self._angles(places), self._angles(columns)
        keys, values = key.astype(query.dtype), value.astype(query.dtype)
        y = self.out(self.operator(query, keys, values, **options))
        length = cache.length + jnp.int32(new)
        y = jnp.where(length <= most, y, jnp.nan).astype(y.dtype)
        return y, KeyValueCache(key, value, length)

    def _angles(self, places: Array) -> Any:
        return rope_1d(places, self.dim_head, base=self.rope_base)

    def _project(self, x: Any, places: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values of tokens at these places."""
        check_floating(x=x)
        check_shape("x", x, (None, None, self.dim), "[batch, length, dim]")
        placed = x
        if self.positions == "learned":
            most, length = self.table.num_embeddings, jnp.shape(x)[1]
            check(length <= most, "x", f"got {length} tokens, takes up to max_length, {most}")
            placed = x + self.table(places)
        query, key, value = self.query(placed), self.key(placed), self.value(x)
        if self.positions == "rope" and not self.takes_rope:
            angles = self._angles(places)
            query, key = apply_rope(query, angles), apply_rope(key, angles)
        return query, key, value


class TransformerBlock(nnx.Module):
    """A pre-norm transformer block.

        x <- x + SelfAttention(LayerNorm(x))
        x <- x + Linear(activation(Linear(LayerNorm(x))))

    Args:
      dim: features of a token, in and out.
      heads: query heads; divides dim.
      mlp_ratio: units of the hidden layer as a multiple of dim.
      activation: of the hidden layer.
      out_scale: factor of the initial size of both output projections.
      dtype: dtype of the computation; None for that of input and parameters.
      param_dtype: dtype of the parameters.
      rngs: keys for the parameters.
      **attention: more arguments of `SelfAttention`, such as `attention_fn="mala"`.

    Called with x [batch, length, dim], and a mask or none, it returns [batch, length, dim]; the
    mask, `init_cache` and `decode` are as those of `SelfAttention`.

    Raises:
      ValueError: as `SelfAttention`, and for a ratio that is not positive.

    Source: On Layer Normalization in the Transformer Architecture, arXiv 2002.04745, figure 1 (b);
    values and gradients agree with GPT-2's block in transformers for `positions="none"`,
    `use_bias=True` and an epsilon of 1e-6 there.

    >>> block = TransformerBlock(16, 4, attention_fn="mala", rngs=nnx.Rngs(0))
    >>> block(jnp.ones((2, 5, 16))).shape
    (2, 5, 16)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        activation: Callable[[Array], Array] = nnx.gelu,
        out_scale: float = 1.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **attention: Any,
    ):
        check_positive(mlp_ratio=mlp_ratio)
        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        # In one pass the variance of float32 loses digits where the mean is large.
        self.norm1 = nnx.LayerNorm(dim, use_fast_variance=False, **common)
        self.attention = SelfAttention(dim, heads, out_scale=out_scale, **common, **attention)
        self.norm2 = nnx.LayerNorm(dim, use_fast_variance=False, **common)
        hidden = max(1, round(mlp_ratio * dim))
        init = nnx.initializers.variance_scaling(out_scale**2, "fan_in", "truncated_normal")
        self.up = nnx.Linear(dim, hidden, **common)
        self.down = nnx.Linear(hidden, dim, kernel_init=init, **common)
        self.activation = activation

    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Tokens [batch, length, dim] after the block; `mask` is that of `SelfAttention`."""
        check_floating(x=x)
        check_shape("x", x, (None, None, self.attention.dim), "[batch, length, dim]")
        return self._mix(x + self.attention(self.norm1(x), mask))

    def init_cache(self, batch: int, max_length: int, dtype: Any = None) -> KeyValueCache:
        """A cache without tokens, as `SelfAttention.init_cache`."""
        return self.attention.init_cache(batch, max_length, dtype)

    def decode(
        self, x: Float[Array, "B T D"], cache: KeyValueCache
    ) -> tuple[Float[Array, "B T D"], KeyValueCache]:
        """The next tokens [batch, length, dim], as `SelfAttention.decode`."""
        y, cache = self.attention.decode(self.norm1(x), cache)
        return self._mix(x + y), cache

    def _mix(self, x: Array) -> Array:
        return x + self.down(self.activation(self.up(self.norm2(x))))
