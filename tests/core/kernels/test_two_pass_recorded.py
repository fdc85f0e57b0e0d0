"""Two-pass softmax against XNNPACK's two kernels, compiled for AVX2, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import recorded

from papyrax import kernels

ENTRIES = recorded("two_pass", "kernels")


@pytest.mark.parametrize("name", ENTRIES)
def test_pairs_and_softmax(name):
    entry = ENTRIES[name]
    x = jnp.asarray(entry["logits"], jnp.float32)
    m, n = kernels.extended_exp(x)
    mantissas, exponents = np.asarray(entry["pairs"]).T
    np.testing.assert_array_equal(n, exponents)
    np.testing.assert_allclose(m, mantissas, rtol=5e-7)
    total = (m[0], n[0])
    for pair in zip(m[1:], n[1:]):
        total = kernels.extended_add(total, pair)
    np.testing.assert_allclose(total, entry["sum"], rtol=5e-7)
    y = jax.jit(kernels.two_pass_softmax)(x)
    np.testing.assert_allclose(y, entry["value"], rtol=2e-6, atol=1e-37)
