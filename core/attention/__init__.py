"""Attention operators with the signature of `jax.nn.dot_product_attention`."""
