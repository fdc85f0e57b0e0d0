"""Rotary embedding: against complex rotation, and its dependence on relative position alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.attention import Rotary, apply_rope, rope_1d, rope_2d

from . import brute_linear as brute


def test_1d_turns_pairs_as_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 6, 3, 8)).astype(np.float32)
    theta = np.arange(6)[:, None] * 10000.0 ** (-np.arange(4) / 4)
    got = apply_rope(x, rope_1d(jnp.arange(6), 8))
    np.testing.assert_allclose(got, [brute.turn(row, theta) for row in x], rtol=1e-5, atol=1e-5)


def test_1d_products_depend_on_the_difference_of_positions():
    q, k = np.random.default_rng(1).normal(size=(2, 1, 6, 1, 8)).astype(np.float32)
    q, k = (np.broadcast_to(x[:, :1], x.shape) for x in (q, k))

    def product(shift):
        rotary = rope_1d(jnp.arange(6) + shift, 8)
        return jnp.einsum("bthd,bshd->ts", apply_rope(q, rotary), apply_rope(k, rotary))

    table = np.asarray(product(0))
    np.testing.assert_allclose(product(17), table, atol=1e-4)
    np.testing.assert_allclose(table[1:, 1:], table[:-1, :-1], atol=1e-5)
    assert abs(table[0, 0] - table[0, 3]) > 1e-3


def test_1d_positions_may_differ_between_examples_and_be_traced():
    x = jnp.ones((2, 3, 1, 4))
    positions = jnp.array([[0, 1, 2], [5, 6, 7]])
    got = jax.jit(lambda p: apply_rope(x, rope_1d(p, 4)))(positions)
    for b in range(2):
        want = apply_rope(x[b : b + 1], rope_1d(positions[b], 4))
        np.testing.assert_allclose(got[b], want[0], rtol=1e-6)


def test_2d_is_rows_then_columns_with_frequencies_down_to_one_over_base():
    height, width, dim = 3, 5, 12
    rotary = rope_2d(height, width, dim)
    frequencies = [1.0, 0.01, 0.0001]
    for y, x in np.ndindex(height, width):
        angles = [p * f for p in (y, x) for f in frequencies for _ in range(2)]
        np.testing.assert_allclose(rotary.cos[y * width + x], np.cos(angles), rtol=1e-6)
        np.testing.assert_allclose(rotary.sin[y * width + x], np.sin(angles), rtol=1e-6)
    other = rope_2d(height, width, dim, endpoint=False)
    np.testing.assert_allclose(
        other.sin[1, 6:], np.sin(np.repeat(10000.0 ** (-np.arange(3) / 3), 2)), rtol=1e-6
    )


def test_keeps_norms_and_dtype():
    x = np.random.default_rng(2).normal(size=(1, 15, 2, 12))
    got = apply_rope(x.astype(np.float32), rope_2d(3, 5, 12))
    np.testing.assert_allclose(jnp.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert apply_rope(jnp.asarray(x, jnp.bfloat16), rope_2d(3, 5, 12)).dtype == jnp.bfloat16


def test_angles_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"rotary: got shape \(15, 12\), takes \(6, 12\)"):
        apply_rope(jnp.ones((1, 6, 2, 12)), rope_2d(3, 5, 12))
    with pytest.raises(ValueError, match="rotary: got tuple"):
        apply_rope(jnp.ones((1, 6, 2, 12)), tuple(rope_2d(2, 3, 12)))
    assert isinstance(rope_2d(2, 3, 12), Rotary)


def test_angles_of_whole_positions_have_the_digits_of_float64():
    with jax.enable_x64(True):
        theta = np.arange(6)[:, None] * np.repeat(10000.0 ** (-np.arange(4) / 4), 2)
        for positions in (jnp.arange(6), jnp.arange(6, dtype=jnp.int32)):
            np.testing.assert_allclose(rope_1d(positions, 8).sin, np.sin(theta), rtol=1e-14)
        assert rope_1d(jnp.arange(6, dtype=jnp.float32), 8).sin.dtype == jnp.float32
    assert rope_1d(jnp.arange(6), 8).sin.dtype == jnp.float32
