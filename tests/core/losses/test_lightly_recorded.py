"""Losses of self-supervision against values and gradients of lightly, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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


def lowered_rate(views, weight):
    """They lower the coding rate where the paper raises it."""
    rate = losses.coding_rate_loss(views, precision=0.5, invariance_weight=0.0)
    return losses.coding_rate_loss(views, precision=0.5, invariance_weight=weight) - 2 * rate


def nearest_neighbours(embeddings, predictions, rows):
    """NNCLR, both ways round."""
    near = losses.key_queue_nearest(losses.KeyQueue(rows, jnp.int32(0)), embeddings)
    return losses.symmetric_info_nce_loss(near, predictions, temperature=0.2)


def first_step(loss, **arrays):
    """With assignments in place of the center, which is zero."""
    static = ENTRIES[f"{loss.__name__} balanced"]["static"]
    return loss(losses.dino_init(4), **arrays, **static)[0]


SPECIAL = {
    "dino_loss balanced": functools.partial(first_step, losses.dino_loss),
    "ibot_loss balanced": functools.partial(first_step, losses.ibot_loss),
    "key_queue_nearest": nearest_neighbours,
    "coding_rate_loss 0.0": functools.partial(lowered_rate, weight=0.0),
    "coding_rate_loss 3.0": functools.partial(lowered_rate, weight=3.0),
    "alignment_and_uniformity": alignment_and_uniformity,
    "nt_xent_loss leading_features": leading_features,
    "negative_cosine_loss both_ways": both_ways,
}


START = {
    "dino_loss": losses.dino_init(4),
    "ibot_loss": losses.dino_init(4),
    "tico_loss": losses.tico_init(3),
}


@pytest.mark.parametrize("name", [n for n in ENTRIES if "steps" not in ENTRIES[n]])
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = SPECIAL.get(name) or functools.partial(
        getattr(losses, name.split()[0]), **entry["static"]
    )
    compare(entry, lambda **arrays: jnp.mean(loss(**arrays)))


@pytest.mark.parametrize("name", [n for n in ENTRIES if "steps" in ENTRIES[n]])
def test_several_steps(name):
    """Losses with a state: value, gradient and the state after each step."""
    entry, loss = ENTRIES[name], getattr(losses, name)

    @jax.jit
    def step(state, wrt, rest):
        def run(wrt):
            values, new = loss(state, **wrt, **rest, **entry["static"])
            return jnp.mean(values), new

        return jax.value_and_grad(run, has_aux=True)(wrt)

    with jax.enable_x64(True):
        state = jax.tree.map(lambda x: x.astype(jnp.float64), START[name])
        for want in entry["steps"]:
            rest = {k: jnp.asarray(np.array(v)) for k, v in want["arrays"].items()}
            wrt = {k: rest.pop(k) for k in want["gradient"]}
            (value, state), gradient = step(state, wrt, rest)
            np.testing.assert_allclose(value, want["value"], rtol=1e-10)
            for k, g in want["gradient"].items():
                np.testing.assert_allclose(gradient[k], g, rtol=1e-10, atol=1e-12, err_msg=k)
            np.testing.assert_allclose(np.ravel(state[0]), want["state"], rtol=1e-10, atol=1e-12)
