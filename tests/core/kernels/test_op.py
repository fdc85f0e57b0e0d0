"""Opaque kernels, through which JAX can neither differentiate nor transpose; calls are counted."""

import collections

import composition
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from composition import USES, relative_error

from papyrax.kernels.op import Op
from papyrax.kernels.second_order import second_order

CALLS = collections.Counter()
SCALE = 0.37


def turn(x):
    return np.swapaxes(x, -1, -2)


def softmax(q, k, lse):
    return np.exp(SCALE * q @ turn(k) - lse[..., None])


def forward(x):
    q, k, v = x
    s = SCALE * q @ turn(k)
    m = s.max(-1, keepdims=True)
    e = np.exp(s - m)
    z = e.sum(-1, keepdims=True)
    return (e / z) @ v, (m + np.log(z))[..., 0]


def tangent(x, y, t):
    (q, k, v), (o, lse), (qt, kt, vt) = x, y, t
    p, st = softmax(q, k, lse), SCALE * (qt @ turn(k) + q @ turn(kt))
    mu = (p * st).sum(-1)
    return (p * st) @ v - mu[..., None] * o + p @ vt, mu


def cotangent(x, y, g):
    (q, k, v), (o, lse), (g, gl) = x, y, g
    p = softmax(q, k, lse)
    ds = p * (g @ turn(v) - ((g * o).sum(-1) - gl)[..., None])
    return SCALE * ds @ k, SCALE * turn(ds) @ q, turn(p) @ g


def hessian(x, y, g, xt, yt, gt):
    (q, k, v), (o, lse), (g, gl) = x, y, g
    (qt, kt, vt), (ot, mu), (gt, glt) = xt, yt, gt
    p, st = softmax(q, k, lse), SCALE * (qt @ turn(k) + q @ turn(kt))
    e = g @ turn(v) - ((g * o).sum(-1) - gl)[..., None]
    et = gt @ turn(v) + g @ turn(vt) - ((gt * o + g * ot).sum(-1) - glt)[..., None]
    pt = p * (st - mu[..., None])
    ds, dst = p * e, pt * e + p * et
    dq = SCALE * (dst @ k + ds @ kt)
    dk = SCALE * (turn(dst) @ q + turn(ds) @ qt)
    return dq, dk, turn(pt) @ g + turn(p) @ gt


def second_tangent(x, y, t, xt, yt, tt):
    (q, k, v), (_, lse), (q1, k1, v1), (q2, k2, v2), (q12, k12, v12) = x, y, t, xt, tt
    p = softmax(q, k, lse)
    s1 = SCALE * (q1 @ turn(k) + q @ turn(k1))
    s2 = SCALE * (q2 @ turn(k) + q @ turn(k2))
    s12 = SCALE * (q1 @ turn(k2) + q2 @ turn(k1) + q12 @ turn(k) + q @ turn(k12))
    c1 = s1 - (p * s1).sum(-1, keepdims=True)
    c2 = s2 - (p * s2).sum(-1, keepdims=True)
    c = c1 * c2 + s12
    kappa = (p * c).sum(-1, keepdims=True)
    out = (p * (c - kappa)) @ v + (p * c1) @ v2 + (p * c2) @ v1 + p @ v12
    return out, kappa[..., 0]


def opaque(name, fun, like):
    """`fun` in NumPy behind a callback; `like` picks the structure of its result."""

    def run(*args):
        *args, aux = args
        assert aux == ()
        leaves, tree = jax.tree.flatten(args)

        def host(*leaves):
            CALLS[name] += 1
            return fun(*jax.tree.unflatten(tree, [np.asarray(a) for a in leaves]))

        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like(*args))
        return jax.pure_callback(host, shapes, *leaves, vmap_method="broadcast_all")

    return run


def dense(x, aux=()):
    q, k, v = x
    s = SCALE * q @ jnp.swapaxes(k, -1, -2)
    lse = jax.nn.logsumexp(s, -1)
    return jnp.exp(s - lse[..., None]) @ v, lse


OP = second_order(
    "opaque",
    forward=opaque(
        "F", forward, lambda x: (jnp.zeros((*x[0].shape[:-1], x[2].shape[-1])), x[0][..., 0])
    ),
    tangent=opaque("J", tangent, lambda x, y, t: y),
    cotangent=opaque("B", cotangent, lambda x, y, g: x),
    hessian=opaque("H", hessian, lambda x, y, g, *_: x),
    second_tangent=opaque("K", second_tangent, lambda x, y, t, *_: y),
    reference=dense,
)
SHAPES = [(5, 3), (7, 3), (7, 4)]


def ours(q, k, v):
    return OP((q, k, v))[0]


def plain(q, k, v):
    return dense((q, k, v))[0]


def test_op_without_rule_says_which():
    op = Op("lonely", lambda at, along, aux: jnp.sin(at))
    np.testing.assert_allclose(op(jnp.ones(3)), np.sin(np.ones(3)), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="lonely"):
        jax.grad(lambda x: op(x).sum())(jnp.ones(3))


def test_aux_is_not_for_floats():
    op = Op("op", lambda at, along, aux: at)
    with pytest.raises(ValueError, match="aux"):
        op(jnp.ones(3), (), jnp.ones(3))


def test_platform_is_that_of_the_lowering():
    """One trace serves every platform; the choice is made when it is lowered."""
    seen = []

    def fun(at, along, aux, *, platform):
        seen.append(platform)
        return jnp.sin(at)

    op = Op("choosy", fun, out=lambda at, along, aux: at, by_platform=True)
    jax.export.export(jax.jit(op), platforms=("cpu", "tpu", "cuda"))(jnp.ones(3))
    assert set(seen) == {"cpu", "tpu", "cuda"}


def test_scan_inside_a_kernel_under_a_checked_shard_map():
    """The body is traced without the mesh axes, so its loops need no casts."""

    def cumulative(at, along, aux):
        return jax.lax.scan(lambda c, x: (c + x, c * x), jnp.zeros(()), at)[1]

    op = Op("loop", cumulative)
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    x = jnp.arange(12.0)
    got = jax.shard_map(op, mesh=mesh, in_specs=spec, out_specs=spec)(x)
    want = jnp.concatenate([cumulative(p, (), ()) for p in x.reshape(4, 3)])
    np.testing.assert_allclose(got, want)


def test_integer_aux_under_every_mode():
    """`aux` has no tangent, may be batched, and reaches the kernels."""
    op = second_order(
        "shift",
        forward=lambda x, n: x**2 * n,
        tangent=lambda x, y, t, n: 2 * x * n * t,
        cotangent=lambda x, y, g, n: 2 * x * n * g,
        hessian=lambda x, y, g, xt, yt, gt, n: 2 * n * (g * xt + x * gt),
        reference=lambda x, n: x**2 * n,
    )

    def loss(x, n):
        return jnp.sum(jnp.sin(op(x, (), n)))

    def plain(x, n):
        return jnp.sum(jnp.sin(x**2 * n))

    x, n = jnp.arange(1.0, 7.0).reshape(2, 3) / 7, jnp.array([2, 3])
    for make in (jax.grad, jax.hessian, lambda f: jax.jacfwd(jax.jacfwd(f)), jax.jacrev):
        got, want = (jax.jit(jax.vmap(make(f)))(x, n) for f in (loss, plain))
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.fixture(scope="module")
def x64():
    """For the whole process: callbacks run on threads that do not see a context manager."""
    jax.config.update("jax_enable_x64", True)
    # Every program is compiled to run once.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def cases(x64):
    x = composition.draw(SHAPES, 0)
    ours_by_name = composition.modes(ours, x) | composition.more_modes(ours, x)
    plain_by_name = composition.modes(plain, x) | composition.more_modes(plain, x)
    return {name: (ours_by_name[name], plain_by_name[name]) for name in ours_by_name}


def test_every_composition_is_in_the_table(cases):
    assert set(cases) == set(USES)
    assert len(cases) == 52


@pytest.mark.parametrize(("name", "kernels"), USES.items())
def test_composition(cases, name, kernels):
    got, want = cases[name]
    CALLS.clear()
    value = jax.block_until_ready(got())
    used = {kernel for kernel, n in CALLS.items() if n}
    assert relative_error(value, want()) < 1e-12
    assert used == set(kernels)
