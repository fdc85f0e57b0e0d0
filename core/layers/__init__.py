"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""
