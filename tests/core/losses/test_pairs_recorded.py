"""Losses of pairs against values and gradients of pytorch-metric-learning, in float64."""

import jax.numpy as jnp
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("pairs")
# That library's log-sum-exp of the circle loss is less precise than the rest.
LOOSER = {"circle_loss": 1e-9}


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = getattr(losses, name.split()[0])
    compare(
        entry,
        lambda **arrays: jnp.mean(loss(**arrays, **entry["static"])),
        rtol=LOOSER.get(name, 1e-10),
    )
