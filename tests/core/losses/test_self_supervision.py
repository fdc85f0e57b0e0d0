"""Losses of self-supervision over several devices, and what their values must be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses

BATCH, FEATURES, PROTOTYPES = 6, 3, 4
DEVICES = 2


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=s) for s in shapes]


def gathered(x, axis):
    """The batch axis split over devices, in front."""
    parts = np.reshape(x, (*x.shape[:axis], DEVICES, -1, *x.shape[axis + 1 :]))
    return np.moveaxis(parts, axis, 0)


ROWS, VIEWS = (BATCH, FEATURES), (3, BATCH, FEATURES)
OUTPUTS = (3, BATCH, PROTOTYPES)
PATCHES = (BATCH, 2, PROTOTYPES)
MASK = np.arange(2 * BATCH).reshape(BATCH, 2) % 3 == 0
DIRECTIONS, CENTERS = arrays((5, FEATURES), (PROTOTYPES, FEATURES))


def dino(x, y, **more):
    state = losses.dino_init(PROTOTYPES)
    return losses.dino_loss(state, x, y, teacher_temperature=0.5, **more)


def ibot(x, y, mask, **more):
    return losses.ibot_loss(losses.dino_init(PROTOTYPES), x, y, mask, **more)


def tico(x, y, **more):
    return losses.tico_loss(losses.tico_init(FEATURES), x, y, **more)


def plain(name, *fixed, **static):
    return lambda *x, **more: (
        getattr(losses, name)(*x, *map(jnp.asarray, fixed), **static, **more),
        0.0,
    )


MASKS = np.arange(4 * BATCH).reshape(2, BATCH, 2) % 3
REGIONS = (BATCH, 2, FEATURES)


def detcon(x, y, p, q, **more):
    return losses.detcon_loss(x, y, x, y, p, q, **more), 0.0


# The loss, its arrays, and the axis of the batch in each.
SPREAD = {
    "alignment_uniformity_loss": (plain("alignment_uniformity_loss"), arrays(ROWS, ROWS), 0),
    "koleo_loss": (plain("koleo_loss"), arrays(ROWS), 0),
    "tico_loss": (tico, arrays(ROWS, ROWS), 0),
    "mmcr_loss": (plain("mmcr_loss", compression_weight=0.3), arrays(VIEWS), 1),
    "coding_rate_loss": (plain("coding_rate_loss"), arrays(VIEWS), 1),
    "frossl_loss": (plain("frossl_loss"), arrays(VIEWS), 1),
    "wmse_loss": (plain("wmse_loss"), arrays(VIEWS), 1),
    "sigreg_loss": (plain("sigreg_loss", DIRECTIONS), arrays(ROWS), 0),
    "detcon_loss": (detcon, [*arrays(REGIONS, REGIONS), *MASKS], 0),
    "dino_loss balanced": (
        functools.partial(dino, sinkhorn_iterations=3),
        arrays(OUTPUTS, OUTPUTS),
        1,
    ),
    "ibot_loss balanced": (
        functools.partial(ibot, sinkhorn_iterations=3),
        [*arrays(PATCHES, PATCHES), MASK],
        0,
    ),
    "dino_loss": (dino, arrays(OUTPUTS, OUTPUTS), 1),
    "ibot_loss": (ibot, [*arrays(PATCHES, PATCHES), MASK], 0),
    "msn_loss": (plain("msn_loss", CENTERS), arrays(VIEWS, ROWS), (1, 0)),
}


@pytest.mark.parametrize("name", SPREAD)
def test_devices_share_the_batch(name):
    """Losses, gradients and state of parts of the batch are those of the whole."""
    loss, inputs, axis = SPREAD[name]
    axes = axis if isinstance(axis, tuple) else [axis] * len(inputs)

    def both(*x, **more):
        def total(first, *rest):
            values, state = loss(first, *rest, **more)
            return jnp.sum(values), (values, state)

        grad, (values, state) = jax.grad(total, has_aux=True)(*x)
        return grad, values, state

    with jax.enable_x64(True):
        parts = [gathered(x, a) for x, a in zip(inputs, axes)]
        want_grad, want, want_state = jax.jit(both)(*map(jnp.asarray, inputs))
        split = jax.jit(jax.vmap(lambda *x: both(*x, axis_name="d"), axis_name="d"))
        grad, values, state = split(*map(jnp.asarray, parts))
    np.testing.assert_allclose(values.reshape(-1), want, rtol=1e-7)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(want_state)):
        np.testing.assert_allclose(one[0], other, rtol=1e-7)
    np.testing.assert_allclose(grad, gathered(want_grad, axes[0]), rtol=1e-6, atol=1e-9)


def test_no_masked_patch_leaves_the_center():
    x, y = map(jnp.asarray, arrays(PATCHES, PATCHES))
    state = losses.DinoState(jnp.arange(4.0))
    loss, new = jax.jit(losses.ibot_loss)(state, x, y, jnp.zeros((BATCH, 2), bool))
    np.testing.assert_array_equal(loss, np.zeros(BATCH))
    np.testing.assert_array_equal(new.center, state.center)


def test_a_prior_that_is_met_costs_nothing():
    """The divergence is zero where the mean prediction is the prior, and above it elsewhere."""
    with jax.enable_x64(True):
        a, z = map(jnp.asarray, arrays(VIEWS, ROWS))
        c = jnp.asarray(CENTERS)
        u, w = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, c))
        p = np.exp(u @ w.T / 0.2)
        met = (p / p.sum(-1, keepdims=True)).mean((0, 1))

        @jax.jit
        def run(prior, weight):
            return losses.msn_loss(a, z, c, prior, temperature=0.2, prior_weight=weight)

        np.testing.assert_allclose(run(jnp.asarray(met), 1.0), run(None, 0.0), rtol=1e-12)
        other = np.array([0.4, 0.3, 0.2, 0.1])
        want = np.sum(met * np.log(met / other))
        got = run(jnp.asarray(other), 1.0) - run(None, 0.0)
        np.testing.assert_allclose(got, np.full(BATCH, want), rtol=1e-10)


def test_the_coding_rate_is_that_of_the_eigenvalues():
    (z,) = arrays(VIEWS)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    values = np.linalg.eigvalsh(np.swapaxes(z, 1, 2) @ z)
    rate = np.log1p(FEATURES / (BATCH * 0.2) * values).sum(-1).mean() / 2
    with jax.enable_x64(True):
        run = jax.jit(functools.partial(losses.coding_rate_loss, invariance_weight=0.0))
        got = run(jnp.asarray(z))
    np.testing.assert_allclose(got, np.full(BATCH, -rate), rtol=1e-10)
