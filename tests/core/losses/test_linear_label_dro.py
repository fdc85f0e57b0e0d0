"""Label-robust losses over a linear layer in chunks against the losses of all scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_layers import assert_derivatives, assert_equal, assert_sharded, example, with_bias

from papyrax.losses import AldrKlState, aldr_kl, ldr_kl, linear_aldr_kl, linear_ldr_kl


def dense(scores, labels, t=0.7, margin=0.2):
    lead = jnp.take_along_axis(scores, labels[..., None], -1)
    other = jnp.arange(scores.shape[-1]) != labels[..., None]
    exponent = (scores - lead + margin * other) / t
    return t * jnp.log(jnp.mean(jnp.exp(exponent), -1))


def dense_l1(scores, labels):
    return dense(scores / jnp.abs(scores).mean(-1, keepdims=True), labels)


HYPER = {"temperature": 0.7, "margin": 0.2}


@pytest.mark.parametrize(("normalization", "full"), [(None, dense), ("l1", dense_l1)])
def test_all_derivatives_are_those_of_the_scores(normalization, full):
    with jax.enable_x64(True):
        ours = with_bias(linear_ldr_kl, normalization=normalization, **HYPER)
        assert_derivatives(ours, full, rtol=1e-11)


def test_a_vocabulary_on_eight_devices():
    with jax.enable_x64(True):
        ours = with_bias(linear_ldr_kl, normalization="l1", **HYPER)
        assert_sharded(ours, dense_l1, rtol=1e-11)


@pytest.mark.parametrize("normalization", [None, "l1"])
def test_temperatures_that_adapt(normalization):
    with jax.enable_x64(True):
        (x, w, b), *_, labels = example()
        x, labels = x.reshape(-1, 4), labels.ravel()
        state = AldrKlState(jnp.linspace(0.5, 2, 9))
        indices = jnp.array([1, 4, 0, 8, 2, 3])
        settings = {"temperature": 1.3, "margin": 0.2, "normalization": normalization}

        def run(loss):
            values = lambda x, w, b: loss(x, w, b)  # noqa: E731
            total = lambda p: (lambda v, s: (jnp.sum(jnp.sin(v)), (v, s)))(*values(*p))  # noqa: E731
            return jax.jit(jax.grad(total, has_aux=True))((x, w, b))

        ours = run(
            lambda x, w, b: linear_aldr_kl(
                state, x, w, labels, indices, bias=b, chunk_size=7, **settings
            )
        )
        theirs = run(lambda x, w, b: aldr_kl(state, x @ w + b, labels, indices, **settings))
        assert_equal(ours, theirs, rtol=1e-11)
        assert np.ptp(ours[1][1].temperatures) > 0.1


def test_confident_examples_keep_their_small_loss():
    """The other classes' share is below the rounding of the label's in float32."""
    scores = np.zeros((1, 50), np.float32)
    scores[0, 3] = 25
    run = jax.jit(functools.partial(linear_ldr_kl, chunk_size=16, margin=0.0))
    got = run(jnp.ones((1, 1)), jnp.asarray(scores), jnp.array([3])) + np.log(50)
    want = ldr_kl(jnp.asarray(scores), jnp.array([3]), margin=0.0) + np.log(50)
    np.testing.assert_allclose(got, want, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda w: run(jnp.ones((1, 1)), w, jnp.array([3]))[0]))
    slope = gradient(jnp.asarray(scores))[0]
    np.testing.assert_allclose(slope[:3], np.exp(-25.0), rtol=1e-4)
    np.testing.assert_allclose(slope[3], -49 * np.exp(-25.0), rtol=1e-4)
    # One class alone has nothing to be told from.
    one = run(jnp.ones((1, 1)), jnp.full((1, 1), 5.0), jnp.array([0]))
    assert float(one[0]) == 0
