"""Self-tuning networks: the best response is learnt, and its gradient is the hypergradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from papyrax import optim


def test_constrained_hyperparameters_fill_their_ranges():
    h = jnp.linspace(-40, 40, 81)[:, None] * jnp.ones(4)
    low, high = (0.0, 1.0, -np.inf, -np.inf), (2.0, np.inf, 3.0, np.inf)
    r = np.asarray(optim.constrain_hyperparameters(h, low=low, high=high))
    assert (r >= low).all()
    assert (r <= high).all()
    np.testing.assert_allclose(r[[0, -1], 0], [0, 2], atol=1e-6)
    np.testing.assert_allclose(r[[0, -1], 1], [1, 41], atol=1e-6)
    np.testing.assert_allclose(r[[0, -1], 2], [3, -37], atol=1e-6)
    np.testing.assert_array_equal(r[:, 3], np.asarray(h)[:, 3])


def test_perturbations_and_their_entropy():
    deviation = np.array([0.3, 2.0])
    raw = jnp.asarray(np.log(np.expm1(deviation)))
    drawn = optim.perturb_hyperparameters(
        jax.random.key(0), jnp.array([1.0, -5.0]), raw, draws=20_000
    )
    np.testing.assert_allclose(drawn.mean(0), [1, -5], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.02)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.03
    want = stats.norm(scale=deviation).entropy().sum()
    np.testing.assert_allclose(optim.perturbation_entropy(raw), want, rtol=1e-5)
    far = optim.perturb_hyperparameters(
        jax.random.key(0), jnp.ones(2), jnp.full(2, -200.0), draws=5
    )
    np.testing.assert_array_equal(far, 1)
    slope = jax.grad(optim.perturbation_entropy)(jnp.array([-300.0, 0.0, 300.0]))
    np.testing.assert_allclose(slope, [1, 0.5 / np.log(2), 1 / 300], rtol=1e-5)


def quadratic(seed):
    """A lower problem whose best response is affine, w(h) = A h + c, and a target of the upper."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 2)), rng.normal(size=4), rng.normal(size=4)


def test_tuned_hyperparameters_solve_the_bilevel_problem():
    a, c, target = quadratic(0)

    def weights(params, hyper):
        return params["c"] + hyper @ params["a"].T

    def train_loss(params, hyper):
        return jnp.sum((weights(params, hyper) - hyper @ a.T - c) ** 2, -1)

    def valid_loss(params, hyper):
        return jnp.sum((weights(params, hyper) - target) ** 2, -1)

    tuning = optim.self_tuning(
        train_loss, valid_loss, optax.sgd(0.1), optax.sgd(0.02), draws=16, tune_scale=False
    )
    state = tuning.init({"a": jnp.zeros((4, 2)), "c": jnp.zeros(4)}, jnp.zeros(2))

    @jax.jit
    def step(state, key):
        state, _ = tuning.train(state, key)
        return tuning.valid(state, key)[0], None

    keys = jax.random.split(jax.random.key(0), 1500)
    state = jax.lax.scan(step, state, keys)[0]
    want = np.linalg.lstsq(a, target - c, rcond=None)[0]
    np.testing.assert_allclose(state.hyper, want, atol=1e-3)
    np.testing.assert_allclose(state.params["a"], a, atol=1e-3)
    np.testing.assert_allclose(jax.nn.softplus(state.scale), 0.5, rtol=1e-5)


def test_each_step_moves_its_own_half_alone():
    loss = lambda w, h, t: (w * h[:, 0] - t) ** 2  # noqa: E731
    tuning = optim.self_tuning(
        loss, loss, optax.sgd(0.1, momentum=0.9), optax.adam(0.1), draws=8, entropy_weight=0.1
    )
    state = tuning.init(jnp.array(2.0), jnp.array([1.0]))
    train, valid = jax.jit(tuning.train), jax.jit(tuning.valid)
    after, value = train(state, jax.random.key(3), 5.0)
    assert after.params != state.params
    assert after.hyper == state.hyper
    assert after.scale == state.scale
    drawn = optim.perturb_hyperparameters(jax.random.key(3), state.hyper, state.scale, draws=8)
    np.testing.assert_allclose(value, np.mean((2 * np.asarray(drawn) - 5) ** 2), rtol=1e-6)
    slope = np.mean(2 * (2 * np.asarray(drawn) - 5) * np.asarray(drawn))
    np.testing.assert_allclose(after.params, 2 - 0.1 * slope, rtol=1e-5)
    after, _ = valid(state, jax.random.key(3), 5.0)
    assert after.params == state.params
    assert after.hyper > state.hyper
    assert after.scale != state.scale


def test_entropy_widens_perturbations_that_cost_nothing():
    flat = lambda w, h: 0 * h[:, 0] * w  # noqa: E731
    tuning = optim.self_tuning(flat, flat, optax.sgd(0.1), optax.sgd(1.0), draws=2)
    state = tuning.init(jnp.ones(()), jnp.zeros(1))
    assert jax.jit(tuning.valid)(state, jax.random.key(0))[0].scale > state.scale
