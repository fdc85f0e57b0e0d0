"""The gradient of the reproduction, and verdicts that can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import attention_svm as paper


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def loss(weights, problem):
    p = jax.nn.softmax(paper.scores(weights, problem))
    out = jnp.sum(p * (problem.tokens @ problem.head), axis=-1)
    return jnp.mean(jnp.log1p(jnp.exp(-problem.labels * out)))


def test_gradient_points_as_that_of_the_loss():
    rng = np.random.default_rng(0)
    problem = paper.draw(rng, 3, 5, 8)
    for weights in (np.zeros((8, 8)), rng.normal(size=(8, 8))):
        got, want = (paper.unit(f(weights, problem)) for f in (paper.gradient, jax.grad(loss)))
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_gradient_survives_a_hard_softmax():
    rng = np.random.default_rng(1)
    problem = paper.draw(rng, 3, 5, 8)
    weights = 1e4 * rng.normal(size=(8, 8))
    assert np.all(np.asarray(jax.grad(loss)(weights, problem)) == 0)
    np.testing.assert_allclose(np.linalg.norm(paper.unit(paper.gradient(weights, problem))), 1)


def test_verdicts_follow_the_numbers():
    curve = np.full((3, 2, 40), 0.999)
    got = {
        "plain": curve,
        "first": np.full((3, 2), 0.6),
        "kq nuclear": curve,
        "kq frobenius": curve - 0.1,
        "best": np.ones((3, 2)),
    }
    assert paper._result("quick", (0, 1, 2), got).holds
    for name, value in (
        ("plain", 0.98),
        ("first", 0.9),
        ("kq nuclear", 0.94),
        ("kq frobenius", 0.9999),
        ("best", 0.8),
    ):
        wrong = {**got, name: np.full_like(got[name], value)}
        assert not paper._result("quick", (0, 1, 2), wrong).holds, name
