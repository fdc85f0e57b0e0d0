"""Further losses over pairs on eight devices, against the whole batch on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax import losses

DEVICES, LOCAL, D = 8, 2, 4
N = DEVICES * LOCAL
GATHERED = {
    "angular_loss": {},
    "lifted_structure_loss": {"is_pairwise": True, "negative_margin": 2.0},
    "smooth_ap_loss": {"temperature": 0.1},
    "pnp_loss": {"temperature": 0.1, "variant": "Ib"},
}
EITHER = {
    "ranked_list_loss": {"positive_scale": 2.0, "negative_scale": 3.0},
    "tuplet_margin_loss": {"scale": 8.0},
    "intra_pair_variance_loss": {},
    "nca_loss": {},
    "fast_ap_loss": {"bins": 5},
    "histogram_loss": {"bins": 5},
}


def run_all(x, labels, boundary, ring=False, **more):
    names = EITHER if ring else EITHER | GATHERED
    more |= {"ring": True} if ring and more else {}
    out = {k: getattr(losses, k)(x, labels, **kw, **more) for k, kw in names.items()}
    if not ring:
        start = losses.dynamic_soft_margin_init(bins=8)
        views = x, jnp.sin(2 * x)
        out["dynamic"] = losses.dynamic_soft_margin_loss(start, *views, **more)[0]
    out["margin_loss"] = losses.margin_loss(x, labels, boundary=boundary, **more)
    return out


@pytest.mark.parametrize("ring", [False, True], ids=["gathered", "ring"])
def test_on_eight_devices(ring):
    rng = np.random.default_rng(0)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((DEVICES,), ("data",), auto, devices=jax.devices()[:DEVICES])
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(N, D)))
        labels = jnp.asarray(rng.integers(0, 4, N), jnp.int32)
        boundary = jnp.asarray(rng.uniform(0.8, 1.3, N))
        alone = functools.partial(run_all, ring=ring)
        spread = jax.shard_map(
            functools.partial(run_all, ring=ring, axis_name="data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )

        def slopes(f):
            def total(x, boundary):
                values = f(x, labels, boundary)
                names = enumerate(sorted(values))
                weighted = (jnp.cos(i + jnp.arange(N)) @ values[k] for i, k in names)
                return sum(weighted), values

            return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(x, boundary)

        (_, values), got = slopes(spread)
        (_, true_values), want = slopes(alone)
        for name, value in true_values.items():
            np.testing.assert_allclose(values[name], value, rtol=1e-11, atol=1e-12, err_msg=name)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))))
