"""Linear attention in chunks: memory for a few arrays of tokens, and the numbers of the whole."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import attention

# The modules, which the functions of their names hide.
linear, mala = (sys.modules[f"papyrax.attention.{name}"] for name in ("linear", "mala"))

# What is measured does not depend on how well the program is compiled.
FAST = {"xla_backend_optimization_level": 0}
DIM = 64


def hvp_memory(operator, tokens, causal=True):
    """Temporary arrays of the Hessian-vector product, in units of one array [tokens, DIM]."""

    def loss(q, k, v):
        return jnp.sum(jnp.sin(operator(q, k, v, is_causal=causal)))

    def hvp(*x):
        return jax.jvp(jax.grad(loss, (0, 1, 2)), x, x)[1]

    x = (jax.ShapeDtypeStruct((1, tokens, 1, DIM), jnp.float32),) * 3
    compiled = jax.jit(hvp, compiler_options=FAST).lower(*x).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (4 * tokens * DIM)


@pytest.mark.parametrize(
    ("name", "causal", "tokens"),
    [("linear_attention", True, 2048), ("mala", True, 2048), ("mala", False, 16384)],
)
def test_hessian_vector_products_keep_a_state_a_chunk(name, causal, tokens):
    """A state a token would be 64 arrays, all products of 8192 tokens twice as many."""
    operator = getattr(attention, name)
    small, large = (hvp_memory(operator, n, causal) for n in (tokens, 4 * tokens))
    assert large < 1.05 * small, "above linear"
    assert large < 12


@pytest.mark.parametrize("module", [linear, mala])
def test_keys_in_pieces_give_the_whole(module, monkeypatch):
    """Sums, and moments that are merged, of pieces without a key and of a last one filled up."""
    rng = np.random.default_rng(0)
    shapes = ((2, 7, 4, 4), (2, 11, 2, 4), (2, 11, 2, 5))
    mask = np.ones((2, 1, 1, 11), bool)
    mask[0, ..., :4] = mask[1, ..., 3:6] = mask[1, ..., 9] = False
    options = {}
    if module is mala:
        options["rope"] = tuple(attention.rope_1d(jnp.arange(float(n)), 4) for n in (7, 11))
    operator = attention.mala if module is mala else attention.linear_attention

    def run(*x):
        loss = lambda *x: jnp.sum(jnp.sin(operator(*x, mask=mask, **options)))  # noqa: E731
        return operator(*x, mask=mask, **options), jax.jvp(jax.grad(loss, (0, 1, 2)), x, x)

    with jax.enable_x64(True):
        x = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        want = jax.jit(run, compiler_options=FAST)(*x)
        monkeypatch.setattr(module, "PIECE", 3)
        got = jax.jit(lambda *x: run(*x), compiler_options=FAST)(*x)
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-12 * float(jnp.abs(w).max()))
