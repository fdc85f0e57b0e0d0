"""Losses of self-supervision against values and gradients of lightly, in float64."""

import functools

import jax.numpy as jnp
import pytest
from authors_code import compare, recorded

from papyrax import losses, metrics

ENTRIES = recorded("lightly")


def alignment_and_uniformity(view1, view2):
    uniform = (metrics.uniformity(v, scale=1.5) for v in (view1, view2))
    return metrics.alignment(view1, view2).mean() + 0.7 * sum(uniform) / 2


def leading_features(view1, view2):
    """DirectCLR is the loss of the first few features."""
    return losses.nt_xent_loss(view1[:, :3], view2[:, :3])


def both_ways(z0, p0, z1, p1):
    return (losses.negative_cosine_loss(p0, z1) + losses.negative_cosine_loss(p1, z0)) / 2


SPECIAL = {
    "alignment_and_uniformity": alignment_and_uniformity,
    "nt_xent_loss leading_features": leading_features,
    "negative_cosine_loss both_ways": both_ways,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = SPECIAL.get(name) or functools.partial(
        getattr(losses, name.split()[0]), **entry["static"]
    )
    compare(entry, lambda **arrays: jnp.mean(loss(**arrays)))
