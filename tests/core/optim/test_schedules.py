"""Cosine power annealing against numbers of the authors' code, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import cosine_power_annealing

# Of ahundt/sharpDARTS cnn/cosine_power_annealing.py, by epoch.
RECORDED = {
    (300, 0.1, 7.5e-4, 10): {
        1: 0.1,
        2: 0.09997911837581776,
        60: 0.0782385054189519,
        150: 0.024596790093926593,
        240: 0.003462183904246652,
        299: 0.0007506962114152505,
        300: 0.00075,
    },
    (100, 0.025, 1e-4, 2): {
        1: 0.025,
        25: 0.02019982942692394,
        50: 0.010417446239241016,
        75: 0.002761224640264472,
        100: 0.0001,
    },
}


@pytest.mark.parametrize("setting", RECORDED)
def test_against_the_authors_code(setting):
    """Theirs is stretched so that the first epoch, not the zeroth, has the largest value."""
    steps, high, low, power = setting
    epochs = np.array(list(RECORDED[setting]))
    with jax.enable_x64(True):
        schedule = jax.jit(cosine_power_annealing(1.0, steps, power=power))
        values = np.asarray(schedule(jnp.asarray([1, *epochs], jnp.float64)))
    shares = values[1:] / values[0]
    np.testing.assert_allclose(
        low + (high - low) * shares, list(RECORDED[setting].values()), rtol=1e-10
    )


def test_against_the_authors_code_after_a_warmup():
    """34 epochs, 4 of them to warm up; then theirs is not stretched."""
    want = {6: 0.10654244847446846, 7: 0.10127436063183087, 20: 0.01674926594818107}
    want |= {33: 0.0066229527648615375, 34: 0.0066}
    with jax.enable_x64(True):
        schedule = cosine_power_annealing(0.111, 34, end_value=0.0066, power=50.0, warmup_steps=4)
        values = jax.jit(schedule)(jnp.asarray(list(want), jnp.float64))
    np.testing.assert_allclose(values, list(want.values()), rtol=1e-10)


def test_limits_and_order():
    t = jnp.arange(0, 130)
    values = jax.jit(jax.vmap(lambda p: cosine_power_annealing(0.3, 100, power=p)(t)))
    rows = np.asarray(values(jnp.array([1.0, 1.0001, 2.0, 10.0, 1e3])))
    cosine = optax.cosine_decay_schedule(0.3, 100)(t)
    np.testing.assert_allclose(rows[0], cosine, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows[1], cosine, rtol=1e-4, atol=1e-7)
    assert (np.diff(rows[:, :101], axis=1) < 0).all()
    assert (np.diff(rows[1:, 1:100], axis=0) < 0).all()
    np.testing.assert_array_equal(rows[:, 100:], 0)


def test_warmup():
    warm = cosine_power_annealing(0.4, 24, end_value=0.1, power=3.0, warmup_steps=4)
    cold = cosine_power_annealing(0.4, 20, end_value=0.1, power=3.0)
    with_warmup, without = jax.jit(lambda t: (warm(t), cold(t - 4)))(jnp.arange(30))
    np.testing.assert_allclose(with_warmup[:5], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(with_warmup[4:], without[4:], rtol=1e-6)
