"""Transformers for images and text, with the attention operator as an argument."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from papyrax.layers import SelfAttention
from papyrax.numerics import check
from papyrax.train.models.shared import check_image, dropout, split_keys

Attention = Callable[..., Any]


def _scaled(scale: float) -> Any:
    return nnx.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")


class _Block(nnx.Module):
    """A pre-norm transformer block."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        dropout: float,
        out_scale: float,
        dtype: Any,
        rngs: nnx.Rngs,
        **attention: Any,
    ) -> None:
        self.norm1 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.attention = SelfAttention(
            width, heads, out_scale=out_scale, dtype=dtype, rngs=rngs, **attention
        )
        self.norm2 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(
            hidden, width, kernel_init=_scaled(out_scale), dtype=dtype, rngs=rngs
        )
        self.dropout = dropout

    def __call__(self, x: Array, key: Any = None) -> Array:
        first, second = split_keys(key, 2)
        x = x + dropout(self.attention(self.norm1(x)), self.dropout, first)
        h = self.down(nnx.gelu(self.up(self.norm2(x))))
        return x + dropout(h, self.dropout, second)


class Stack(nnx.Module):
    """Blocks one after the other, as a Python loop or as one scanned block.

    Args:
      layers: number of blocks.
      make: from `rngs` to a block, called as `block(x, key)`.
      scan: whether the parameters of all blocks are stacked and the program holds one block, which
        compiles in a time that does not grow with the depth.
      remat: whether activations inside a block are computed again for the gradient.
      rngs: draws the parameters.
    """

    def __init__(
        self,
        layers: int,
        make: Callable[[nnx.Rngs], nnx.Module],
        *,
        scan: bool = False,
        remat: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check(layers > 0, "layers", f"got {layers}, takes 1 or more")
        self.layers, self.scan, self.remat = layers, scan, remat
        if scan:
            create = nnx.vmap(make, in_axes=0, out_axes=0)
            self.blocks: Any = nnx.split_rngs(splits=layers)(create)(rngs)
        else:
            self.blocks = nnx.List(make(rngs) for _ in range(layers))

    def __call__(self, x: Array, key: Any = None) -> Array:
        """`x` after all blocks."""

        def run(graphdef: Any, state: Any, x: Array, key: Any) -> Array:
            return nnx.merge(graphdef, state)(x, key)

        if self.remat:
            run = jax.checkpoint(run, static_argnums=0)
        keys = split_keys(key, self.layers)
        if self.scan:
            graphdef, stacked = nnx.split(self.blocks)
            over = None if key is None else jnp.stack(keys)  # type: ignore[arg-type]
            x, _ = jax.lax.scan(
                lambda x, layer: (run(graphdef, layer[0], x, layer[1]), None), x, (stacked, over)
            )
            return x
        for block, k in zip(self.blocks, keys):
            x = run(*nnx.split(block), x, k)
        return x


class ViT(nnx.Module):
    """A vision transformer: patches, learned positions, pre-norm blocks, mean over the tokens.

    Args:
      shape: [height, width, channels] of one image.
      classes: number of outputs.
      patch: side of a patch; it divides height and width.
      width: features of a token.
      layers: number of blocks.
      heads: query heads.
      key_heads: key heads; as many as `heads` by default.
      hidden: units of each block's perceptron; four times the width by default.
      dropout: share of the residual branches' features that are dropped in training.
      scan: see `Stack`.
      remat: see `Stack`.
      attention: operator with the signature of `jax.nn.dot_product_attention`.
      dtype: dtype of the computation.
      rngs: draws the parameters.

    Source: An Image is Worth 16x16 Words, arXiv 2010.11929; the mean over the tokens and no class
    token as in Better plain ViT baselines for ImageNet-1k, arXiv 2205.01580.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        patch: int = 4,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        key_heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        scan: bool = False,
        remat: bool = False,
        attention: Attention = jax.nn.dot_product_attention,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_image(shape)
        height, columns, channels = shape
        fits = height % patch == 0 and columns % patch == 0
        check(fits, "patch", f"got {patch}, takes a divisor of {height} and {columns}")
        tokens = (height // patch) * (columns // patch)
        self.patches = nnx.Conv(
            channels, width, (patch, patch), patch, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.positions = nnx.Embed(
            tokens, width, embedding_init=nnx.initializers.normal(0.02), dtype=dtype, rngs=rngs
        )
        self.stack = _transformer(
            layers,
            width,
            heads,
            hidden,
            key_heads=key_heads,
            dropout=dropout,
            scan=scan,
            remat=remat,
            attention_fn=attention,
            causal=False,
            positions="none",
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "B H W C"], *, train: bool = False, key: Any = None
    ) -> Float[Array, "B K"]:
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        x = self.patches(inputs)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.positions(jnp.arange(x.shape[1]))
        return self.head(self.norm(self.stack(x, key)).mean(1))


class LM(nnx.Module):
    """A decoder-only language model.

    Args:
      shape: [length] of one sequence of tokens.
      classes: size of the vocabulary.
      width: features of a token.
      layers: number of blocks.
      heads: query heads.
      key_heads: key heads; as many as `heads` by default.
      hidden: units of each block's perceptron; four times the width by default.
      positions: "rope", rotations of queries and keys, or "learned", an embedding.
      dropout: share of the residual branches' features that are dropped in training.
      scan: see `Stack`.
      remat: see `Stack`.
      attention: operator with the signature of `jax.nn.dot_product_attention`, `is_causal` too.
      dtype: dtype of the computation.
      rngs: draws the parameters.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        key_heads: int | None = None,
        hidden: int | None = None,
        positions: Literal["rope", "learned"] = "rope",
        dropout: float = 0.0,
        scan: bool = False,
        remat: bool = False,
        attention: Attention = jax.nn.dot_product_attention,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check(len(shape) == 1, "shape", f"got {shape}, takes [length]")
        takes = "takes 'rope' or 'learned'"
        check(positions in ("rope", "learned"), "positions", f"got {positions!r}, {takes}")
        small = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(classes, width, embedding_init=small, dtype=dtype, rngs=rngs)
        self.positions = (
            nnx.Embed(shape[0], width, embedding_init=small, dtype=dtype, rngs=rngs)
            if positions == "learned"
            else None
        )
        self.stack = _transformer(
            layers,
            width,
            heads,
            hidden,
            key_heads=key_heads,
            dropout=dropout,
            scan=scan,
            remat=remat,
            attention_fn=attention,
            causal=True,
            positions="rope" if positions == "rope" else "none",
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, classes, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Int[Array, "B T"], *, train: bool = False, key: Any = None
    ) -> Float[Array, "B T V"]:
        """Logits [batch, length, classes] of the token after each of [batch, length]."""
        x = self.tokens(inputs)
        if self.positions is not None:
            x = x + self.positions(jnp.arange(x.shape[1]))
        return self.head(self.norm(self.stack(x, key)))


def _transformer(
    layers: int,
    width: int,
    heads: int,
    hidden: int | None,
    *,
    scan: bool,
    remat: bool,
    rngs: nnx.Rngs,
    **block: Any,
) -> Stack:
    """A stack of blocks; the residual branches start smaller the more of them there are."""

    def make(rngs: nnx.Rngs) -> _Block:
        units = 4 * width if hidden is None else hidden
        return _Block(width, heads, units, out_scale=(2 * layers) ** -0.5, rngs=rngs, **block)

    return Stack(layers, make, scan=scan, remat=remat, rngs=rngs)
