"""Hessian-vector products of causal linear attention: memory for a few arrays of tokens."""

import functools

import jax
import jax.numpy as jnp
import pytest

from papyrax import attention

# What is measured does not depend on how well the program is compiled.
FAST = {"xla_backend_optimization_level": 0}
DIM = 64


def hvp_memory(operator, tokens):
    """Temporary arrays of the Hessian-vector product, in units of one array [tokens, DIM]."""

    def loss(q, k, v):
        return jnp.sum(jnp.sin(operator(q, k, v, is_causal=True)))

    def hvp(*x):
        return jax.jvp(jax.grad(loss, (0, 1, 2)), x, x)[1]

    x = (jax.ShapeDtypeStruct((1, tokens, 1, DIM), jnp.float32),) * 3
    compiled = jax.jit(hvp, compiler_options=FAST).lower(*x).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (4 * tokens * DIM)


@pytest.mark.parametrize("name", ["linear_attention", "mala"])
def test_hessian_vector_products_keep_a_state_a_chunk(name):
    """A state a token would be 64 arrays, all products of 4096 tokens as many for each array."""
    operator = functools.partial(getattr(attention, name), chunk_size=128)
    small, large = (hvp_memory(operator, n) for n in (1024, 4096))
    assert large < 1.05 * small, "above linear"
    assert large < 12
