"""The engine: global batches over devices, and distances against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax import losses

DEVICES, LOCAL, D = 8, 2, 4
LABELLED = (
    "contrastive_loss",
    "triplet_loss",
    "n_pair_loss",
    "lifted_structure_loss",
    "multi_similarity_loss",
    "circle_loss",
    "threshold_consistent_margin_loss",
    "supervised_contrastive_loss",
)
VIEWS = (
    "nt_xent_loss",
    "decoupled_contrastive_loss",
    "symmetric_info_nce_loss",
    "siglip_loss",
)
GATHERED = ("vicreg_loss", "barlow_twins_loss", "swav_loss")


def run_all(x, y, labels, axis_name=None, ring=False):
    """Every in-batch loss, by name."""
    more = {} if axis_name is None else {"axis_name": axis_name, "ring": ring}
    out = {name: getattr(losses, name)(x, labels, **more) for name in LABELLED}
    out |= {name: getattr(losses, name)(x, y, **more) for name in VIEWS}
    out["decoupled_softmax_loss"] = losses.decoupled_softmax_loss(x, y, labels, labels, **more)
    out["dclw"] = losses.decoupled_contrastive_loss(x, y, weight_scale=0.5, **more)
    more.pop("ring", None)
    if not ring:
        out |= {name: getattr(losses, name)(x, y, **more) for name in GATHERED}
        p = jnp.cos(jnp.arange(5 * D, dtype=x.dtype)).reshape(5, D)
        out["unpg"] = losses.unified_negative_pair_loss(x, labels, p, scale=4.0, **more)
        out["triplet all"] = losses.triplet_loss(x, labels, mining="all", **more)
    return out


def mesh_of(devices):
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((devices,), ("data",), auto, devices=jax.devices()[:devices])


def batch():
    rng = np.random.default_rng(0)
    n = DEVICES * LOCAL
    x = rng.normal(size=(n, D))
    y = x + 0.7 * rng.normal(size=(n, D))
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.integers(0, 5, n), jnp.int32)


@pytest.mark.parametrize("ring", [False, True], ids=["gathered", "ring"])
def test_global_batch_on_eight_devices(ring):
    """Values, gradients and second derivatives of the loss on the concatenated batch."""
    with jax.enable_x64(True):
        x, y, labels = batch()
        mesh = mesh_of(DEVICES)
        spread = jax.shard_map(
            lambda x, y, labels: run_all(x, y, labels, axis_name="data", ring=ring),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )

        def all_orders(h):
            """The losses, and gradient and second derivative of a weighted sum, in one program."""

            def total(x, y):
                values = h(x, y)
                size = {n: jax.lax.stop_gradient(jnp.max(v)) for n, v in values.items()}
                weighted = sum(
                    (1 + i) * jnp.cos(i + jnp.arange(len(v))) @ v / size[n]
                    for i, (n, v) in enumerate(sorted(values.items()))
                )
                return weighted, values

            grad = jax.grad(total, argnums=(0, 1), has_aux=True)
            t = (jnp.sin(3 * x), jnp.cos(2 * y))
            return jax.jit(lambda: jax.jvp(grad, (x, y), t, has_aux=True))()

        got, hvp, values = all_orders(lambda x, y: spread(x, y, labels))
        want, true_hvp, true_values = all_orders(lambda x, y: run_all(x, y, labels, ring=ring))
        for name, value in true_values.items():
            np.testing.assert_allclose(values[name], value, rtol=1e-11, atol=1e-12, err_msg=name)
        for a, b in zip(jax.tree.leaves((got, hvp)), jax.tree.leaves((want, true_hvp))):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))))


def test_ring_gradient_of_gradient():
    """Reverse over reverse, too."""
    with jax.enable_x64(True):
        x, y, _ = batch()
        mesh = mesh_of(DEVICES)
        spread = jax.shard_map(
            lambda x, y, t: losses.siglip_loss(x, y, scale=t, axis_name="data", ring=True),
            mesh=mesh,
            in_specs=(P("data"), P("data"), P()),
            out_specs=P("data"),
        )

        def penalty(loss):
            def f(x, t):
                slope = jax.grad(lambda x: jnp.sum(loss(x, y, t)))(x)
                return jnp.sum(slope**2)

            return jax.jit(jax.grad(f, argnums=(0, 1)))(x, jnp.asarray(3.0))

        got = penalty(spread)
        want = penalty(lambda x, y, t: losses.siglip_loss(x, y, scale=t))
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["nt_xent_loss", "multi_similarity_loss"])
def test_chunks_take_memory_in_proportion_to_the_batch(loss):
    """Compiled temporaries of value and gradient, doubling the batch."""

    def memory(n, chunk):
        x = jax.ShapeDtypeStruct((n, 16), jnp.float32)
        other = x if loss == "nt_xent_loss" else jax.ShapeDtypeStruct((n,), jnp.int32)
        f = functools.partial(getattr(losses, loss), chunk_size=chunk)
        g = jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(f(x, y))))
        return g.lower(x, other).compile().memory_analysis().temp_size_in_bytes

    whole, small, large = memory(1024, None), memory(1024, 32), memory(2048, 32)
    assert large < 2.3 * small
    assert small < whole / 6


def test_ring_memory_does_not_grow_with_the_devices():
    """Temporaries of a device at a fixed local batch, on 2 and on 8 devices."""

    def memory(devices, ring):
        mesh = mesh_of(devices)
        spread = jax.shard_map(
            lambda x, y: losses.symmetric_info_nce_loss(x, y, axis_name="data", ring=ring),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )
        x = jax.ShapeDtypeStruct((64 * devices, 256), jnp.float32)
        f = jax.jit(jax.grad(lambda x, y: jnp.sum(spread(x, y)), argnums=(0, 1)))
        return f.lower(x, x).compile().memory_analysis().temp_size_in_bytes

    assert memory(8, True) < 1.1 * memory(2, True)
    assert memory(8, False) > 1.3 * memory(8, True)


def test_distances():
    rng = np.random.default_rng(1)
    x, y = 0.3 * rng.normal(size=(4, 3)), 0.3 * rng.normal(size=(5, 3))
    y[2] = x[1]

    def minkowski(a, b, c):
        time = [np.sqrt(1 / c + z @ z) for z in (a, b)]
        return np.arccosh(max(c * (time[0] * time[1] - a @ b), 1)) / np.sqrt(c)

    def ball(a, b, c):
        ratio = 2 * c * ((a - b) ** 2).sum() / ((1 - c * a @ a) * (1 - c * b @ b))
        return np.arccosh(1 + ratio) / np.sqrt(c)

    with jax.enable_x64(True):
        for f, slow, kw in (
            (losses.pairwise_euclidean, lambda a, b: np.linalg.norm(a - b), {}),
            (losses.pairwise_squared_euclidean, lambda a, b: ((a - b) ** 2).sum(), {}),
            (losses.pairwise_dot, lambda a, b: a @ b, {}),
            (losses.pairwise_poincare, lambda a, b: ball(a, b, 0.7), {"curvature": 0.7}),
            (losses.pairwise_lorentz, lambda a, b: minkowski(a, b, 0.7), {"curvature": 0.7}),
        ):
            got = f(jnp.asarray(x), jnp.asarray(y), **kw)
            want = np.array([[slow(a, b) for b in y] for a in x])
            if f is losses.pairwise_lorentz:
                want[1, 2] = 0  # the textbook formula cancels for equal points, ours does not
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)

        # The same geometry in two models: the ball's point of a hyperboloid point.
        def to_ball(z):
            return z / (1 + np.sqrt(1 + (z**2).sum(1, keepdims=True)))

        a = losses.pairwise_lorentz(jnp.asarray(x), jnp.asarray(y))
        b = losses.pairwise_poincare(jnp.asarray(to_ball(x)), jnp.asarray(to_ball(y)))
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
