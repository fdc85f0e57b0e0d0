"""Standard losses against torch's own and against their authors' code, in float64."""

import jax.numpy as jnp
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("standard")
OF_PAIRS = ("triplet_loss", "contrastive_loss")


@pytest.mark.parametrize("name", [n for n in ENTRIES if not n.startswith(OF_PAIRS)])
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = getattr(losses, name.split()[0])
    # The pinball at the median is half of the absolute error, with and without a smooth middle.
    factor = 2 if name.startswith("pinball") else 1
    compare(entry, lambda **arrays: factor * jnp.mean(loss(**arrays, **entry["static"])))


def test_triplets():
    """One positive and one negative an anchor, out of all references."""
    entry = ENTRIES["triplet_loss"]

    def mean_loss(anchor, positive, negative):
        rows = jnp.eye(len(anchor), dtype=bool)
        none = jnp.zeros_like(rows)
        masks = losses.PairMasks(jnp.hstack([rows, none]), jnp.hstack([none, rows]))
        references = jnp.concatenate([positive, negative])
        return losses.triplet_loss(anchor, masks, references, **entry["static"]).mean()

    compare(entry, mean_loss)


@pytest.mark.parametrize("name", ["contrastive_loss", "contrastive_loss cosine"])
def test_pairs(name):
    """One pair an anchor; by cosines the distance is one less the cosine."""
    entry = ENTRIES[name]
    distance = "euclidean"
    if "cosine" in name:
        distance = lambda x, y: 1 - losses.pairwise_cosine(x, y)  # noqa: E731

    def mean_loss(anchor, other, same):
        rows, same = jnp.eye(len(anchor), dtype=bool), (same > 0)[:, None]
        masks = losses.PairMasks(rows & same, rows & ~same)
        static = {"power": 1, "distance": distance, **entry["static"]}
        return losses.contrastive_loss(anchor, masks, other, **static).mean()

    compare(entry, mean_loss)
