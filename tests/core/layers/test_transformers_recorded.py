"""Self-attention and the block with the weights of two models in transformers, in float64."""

import jax.numpy as jnp
from authors_code import compare, recorded
from flax import nnx

from papyrax import layers

ENTRIES = recorded("transformers", "layers")
KINDS = {"param_dtype": jnp.float64}


def self_attention(x, **w):
    layer = layers.SelfAttention(8, 2, key_heads=1, **KINDS, rngs=nnx.Rngs(0))
    for mine, name in ((layer.query, "q"), (layer.key, "k"), (layer.value, "v")):
        weight = w[f"{name}_proj.weight"].T.reshape(8, -1, 4)
        if name != "v":  # features 0 and 2 are a pair there, 0 and 1 here
            weight = jnp.swapaxes(weight.reshape(8, -1, 2, 2), -1, -2).reshape(weight.shape)
        mine.kernel[...] = weight
    layer.out.kernel[...] = w["o_proj.weight"].T.reshape(2, 4, 8)
    return layer(x)


def transformer_block(x, **w):
    options = {"mlp_ratio": 2, "positions": "none", "use_bias": True}
    block = layers.TransformerBlock(8, 2, **options, **KINDS, rngs=nnx.Rngs(0))
    for norm, name in ((block.norm1, "ln_1"), (block.norm2, "ln_2")):
        norm.scale[...], norm.bias[...] = w[f"{name}.weight"], w[f"{name}.bias"]
    heads = (jnp.split(w[f"attn.c_attn.{name}"], 3, axis=-1) for name in ("weight", "bias"))
    mine = block.attention.query, block.attention.key, block.attention.value
    for layer, weight, bias in zip(mine, *heads):
        layer.kernel[...] = weight.reshape(8, 2, 4)
        layer.bias[...] = bias.reshape(2, 4)
    block.attention.out.kernel[...] = w["attn.c_proj.weight"].reshape(2, 4, 8)
    block.attention.out.bias[...] = w["attn.c_proj.bias"]
    for layer, name in ((block.up, "mlp.c_fc"), (block.down, "mlp.c_proj")):
        layer.kernel[...], layer.bias[...] = w[f"{name}.weight"], w[f"{name}.bias"]
    return block(x)


def test_llamas_attention():
    """Two query heads for one key head."""
    compare(ENTRIES["SelfAttention"], self_attention)


def test_gpt_2s_block():
    """Its linear layers have their matrices as [in, out]."""
    compare(ENTRIES["TransformerBlock"], transformer_block)
