"""Losses of pairs against values and gradients of pytorch-metric-learning and authors, in float64.

An entry's `anchors` is what the sum of the losses is divided by there: the number of anchors that
have a positive, of pairs that cost something, or one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("pairs")
# That library's log-sum-exp of the circle loss is less precise than the rest, and its unit proxies
# of P2SGrad are shorter by 1e-7.
LOOSER = {"circle_loss": 1e-9, "p2s_grad_loss": 1e-6}
APART = {"margin_loss", "dynamic_soft_margin_loss"}


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in APART])
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = getattr(losses, name.split()[0])

    def reduced(**arrays):
        value = loss(**arrays, **entry["static"])
        return jnp.sum(value) / entry.get("anchors", value.size)

    compare(entry, reduced, rtol=LOOSER.get(name, 1e-10))


def test_margin_loss():
    """A boundary a class, and each pair of the triplets once."""
    entry = ENTRIES["margin_loss"]
    a, p, n = map(np.array, entry["triplets"])
    near, far = np.zeros((2, 10, 10), bool)
    near[a, p], far[a, n] = True, True

    def reduced(embeddings, labels, beta):
        masks = losses.PairMasks(jnp.asarray(near), jnp.asarray(far))
        loss = losses.margin_loss(embeddings, masks, boundary=beta[labels], **entry["static"])
        return jnp.sum(loss) / entry["anchors"]

    compare(entry, reduced)


def test_dynamic_soft_margin_loss():
    """The state of a first step, then value, gradients and state of a second one."""
    entry = ENTRIES["dynamic_soft_margin_loss"]
    nothing, state, after = (np.array(entry[k]) for k in ("histogram", "histogram", "after"))
    nothing = 0 * nothing

    def step(histogram, first, second, momentum=0.3):
        margin = losses.DynamicMargin(jnp.asarray(histogram))
        loss, new = losses.dynamic_soft_margin_loss(margin, first, second, momentum=momentum)
        return jnp.mean(loss), new.histogram

    compare(entry, lambda **views: step(state, **views)[0])
    with jax.enable_x64(True):
        first = np.split(np.array(entry["before"]), 2)
        np.testing.assert_allclose(step(nothing, *first)[1], state, rtol=1e-12)
        second = (np.array(entry["arrays"][k]) for k in ("first", "second"))
        np.testing.assert_allclose(step(state, *second)[1], after, rtol=1e-12)
