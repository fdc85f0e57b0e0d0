"""Softmax collapse and alignment with the weights, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.metrics import nlm_alignment, softmax_collapse


def slow_collapse(logits, labels, dtype):
    z = logits.astype(dtype)
    terms = np.exp((z - z[np.arange(len(z)), labels][:, None]).astype(dtype)).astype(dtype)
    # Half precision is summed in float32 and rounded once, as accelerators do.
    total = terms.sum(-1, dtype=np.promote_types(dtype, np.float32)).astype(dtype)
    return np.mean(total == 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_share_in_a_precision(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    gaps = rng.uniform(0, 60, 400)
    logits = gaps[:, None] * np.eye(4)[labels] + rng.normal(size=(400, 4))
    with jax.enable_x64(True):
        got = softmax_collapse(jnp.asarray(logits, dtype), labels)
        wide = softmax_collapse(jnp.asarray(logits), labels, dtype=dtype)
    want = slow_collapse(logits, labels, dtype)
    assert 0.1 < want < 0.95
    assert got == pytest.approx(want, abs=0.003)
    assert wide == pytest.approx(want, abs=0.003)


def test_it_counts_the_examples_whose_float32_cross_entropy_is_zero():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 500)
    logits = jnp.asarray(rng.uniform(0, 40, (500, 1)) * np.eye(10)[labels], jnp.float32)
    zero = jax.nn.log_softmax(logits)[jnp.arange(500), labels] == 0
    assert softmax_collapse(logits, labels) == pytest.approx(float(zero.mean()), abs=0.01)


def test_confident_mistakes_have_not_collapsed():
    logits = jnp.array([[0.0, 100.0], [100.0, 0.0]])
    assert softmax_collapse(logits, jnp.array([0, 0])) == 0.5
    assert softmax_collapse(jnp.array([[0.0, 3e38]]), jnp.array([0])) == 0


def test_bfloat16_collapses_before_float32():
    logits = jnp.array([[8.0, 0.0]])
    assert softmax_collapse(logits, jnp.array([0])) == 0
    assert softmax_collapse(logits, jnp.array([0]), dtype=jnp.bfloat16) == 1


def test_alignment():
    w = {"a": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.zeros(3)}
    along = jax.tree.map(lambda x: -2e20 * x, w)
    got = nlm_alignment(w, along)
    assert got["a"] == pytest.approx(1)
    assert got["b"] == 0
    assert nlm_alignment(w, w)["a"] == pytest.approx(-1)
    g = {"a": jnp.array([[0.5, -1.0], [2.0, 0.0]]), "b": jnp.ones(3)}
    x, y = np.asarray(w["a"]).ravel(), np.asarray(g["a"]).ravel()
    want = -(x @ y) / np.linalg.norm(x) / np.linalg.norm(y)
    assert nlm_alignment(w, g)["a"] == pytest.approx(want)


def test_a_homogeneous_network_that_fits_is_aligned():
    """Scaling up the weights of a fitted ReLU network lowers the loss, and the gradient says so."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(20, 5)), jnp.float32)
    w = {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)}
    labels = jnp.argmax(x @ w["kernel"], -1)

    def loss(w):
        return optax.softmax_cross_entropy_with_integer_labels(x @ w["kernel"], labels).mean()

    assert nlm_alignment(w, jax.grad(loss)(w))["kernel"] > 0.3
