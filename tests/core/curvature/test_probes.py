"""The signs are signs, fair, independent and cheap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from papyrax import curvature

TREE = {
    "scalar": jnp.zeros(()),
    "bias": jnp.zeros(33, jnp.bfloat16),
    "conv": jnp.zeros((3, 3, 5, 70)),
    "empty": jnp.zeros((0, 4)),
    "count": jnp.zeros(3, jnp.int32),
}
draw = jax.jit(jax.vmap(lambda key: curvature.rademacher_like(key, TREE)))
KEYS = jax.random.split(jax.random.key(0), 4096)


def test_values_are_signs_in_the_dtype_of_each_leaf():
    z = curvature.rademacher_like(jax.random.key(3), TREE)
    for name, like in TREE.items():
        assert z[name].dtype == like.dtype
        assert z[name].shape == like.shape
        wanted = {0} if name == "count" else {-1, 1}
        assert set(np.unique(np.asarray(z[name], np.float32)).tolist()) <= wanted


def test_signs_are_fair_and_pairwise_independent():
    """Every entry's mean and every pair's product over 4096 draws, within five sigma."""
    z = draw(KEYS)
    n = len(KEYS)
    flat = np.concatenate(
        [np.asarray(z[k], np.float64).reshape(n, -1) for k in ("scalar", "bias")]
        + [np.asarray(z["conv"], np.float64)[:, 0, 1, 2]],
        axis=1,
    )
    assert np.abs(flat.mean(0)).max() * np.sqrt(n) < 5
    products = flat.T @ flat / n - np.eye(flat.shape[1])
    assert np.abs(products).max() * np.sqrt(n) < 5.5
    # Shifted copies of one random word would give equal probes for neighbouring keys.
    assert np.abs((flat[:-1] * flat[1:]).mean()) * np.sqrt(flat[1:].size) < 5


def test_sharding_does_not_change_the_probe():
    mesh = jax.make_mesh((8,), ("x",))
    like = {"a": jnp.zeros((64, 24)), "b": jnp.zeros((8, 3, 3))}
    want = curvature.rademacher_like(jax.random.key(1), like)
    for spec in (("x",), (None, "x")):
        shardings = {
            "a": NamedSharding(mesh, PartitionSpec(*spec)),
            "b": NamedSharding(mesh, PartitionSpec("x")),
        }
        sample = jax.jit(curvature.rademacher_like, out_shardings=shardings)
        got = sample(jax.random.key(1), jax.device_put(like, shardings))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
            np.testing.assert_array_equal(a, b)


def test_one_random_word_gives_32_signs():
    """The random bits that are asked for, against one word for each sign."""

    def words(shape):
        text = str(jax.make_jaxpr(curvature.rademacher_like)(jax.random.key(0), jnp.zeros(shape)))
        shapes = [
            line.split("shape=(")[1].split(")")[0]
            for line in text.split("\n")
            if "random_bits" in line
        ]
        return sum(int(np.prod([int(n) for n in s.split(",") if n.strip()])) for s in shapes)

    assert words((1024, 10)) == 320
    assert words((3, 3, 64, 128)) == 9 * 64 * 4
    assert words(()) == 1


def test_normal_probes():
    z = curvature.normal_like(jax.random.key(0), {"a": jnp.zeros((100, 100)), "n": jnp.arange(3)})
    assert abs(float(z["a"].mean())) < 0.05
    assert abs(float(z["a"].var()) - 1) < 0.05
    assert z["n"].tolist() == [0, 0, 0]


def test_raw_and_typed_keys_agree_and_others_are_named():
    raw = curvature.rademacher_like(jax.random.PRNGKey(4), TREE)
    typed = curvature.rademacher_like(jax.random.key(4), TREE)
    for a, b in zip(jax.tree.leaves(raw), jax.tree.leaves(typed)):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for key in (0, KEYS, jnp.zeros(3)):
        with pytest.raises(ValueError, match="key: got"):
            curvature.rademacher_like(key, TREE)
