"""Kar against the rule in a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import kar, scale_by_kar


@pytest.mark.parametrize("decays", [(0.5, 0.95), (0.95,)])
def test_is_the_rule(decays):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        p = want = rng.normal(size=6)
        tx, averages = kar(0.1, decays, weight_decay=0.2), [np.zeros(6) for _ in decays]
        params = jnp.asarray(p)
        state = tx.init(params)
        for _ in range(8):
            g = rng.normal(size=6)
            step = np.sign(g) + sum(np.sign(e) for e in averages)
            want = want - 0.1 * (step + 0.2 * want)
            averages = [d * e + (1 - d) * g for d, e in zip(decays, averages, strict=True)]
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, want, rtol=1e-12)


def test_steps_are_small_integers():
    rng = np.random.default_rng(1)
    tx = scale_by_kar()
    state, seen = tx.init(jnp.zeros(50)), set()
    for _ in range(6):
        updates, state = tx.update(jnp.asarray(rng.normal(size=50), jnp.float32), state)
        seen |= set(np.abs(np.asarray(updates)).tolist())
    assert seen == {1.0, 3.0}  # three signs; one at the first step
    updates, _ = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
    assert not updates.any()
