"""What the tests of losses over linear layers share: an example and all of its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def example(classes=24):
    """Hidden, kernel and bias, two directions of their kind, and labels."""
    rng = np.random.default_rng(0)

    def draw():
        shapes = ((2, 3, 4), (4, classes), (classes,))
        return tuple(jnp.asarray(rng.normal(size=s)) for s in shapes)

    return draw(), draw(), draw(), jnp.asarray(rng.integers(classes, size=(2, 3)))


def derivatives(values):
    """Value, gradient, and the second derivative in all four orders of the two modes."""

    def loss(params):
        return jnp.sum(jnp.sin(values(params)))

    def everything(params, v, u):
        jvp = lambda p: jax.jvp(loss, (p,), (v,))[1]  # noqa: E731
        inner = lambda p: sum(map(jnp.vdot, jax.grad(loss)(p), v))  # noqa: E731
        return {
            "value": values(params),
            "gradient, its tangent": jax.jvp(jax.grad(loss), (params,), (v,)),
            "gradient of a gradient": jax.grad(inner)(params),
            "gradient of a tangent": jax.grad(jvp)(params),
            "tangent of a tangent": jax.jvp(jvp, (params,), (u,)),
        }

    return everything


def assert_equal(ours, theirs, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), ours, theirs)


def assert_derivatives(loss, dense, rtol=1e-12):
    """All derivatives of `loss(hidden, kernel, bias, labels)` are those of `dense(logits, labels)`.

    The first is given chunks of 7 out of 24 classes: the last overlaps the one before.
    """
    params, v, u, labels = example()
    ours = derivatives(lambda p: loss(*p, labels, chunk_size=7))
    theirs = derivatives(lambda p: dense(p[0] @ p[1] + p[2], labels))
    assert_equal(jax.jit(ours)(params, v, u), jax.jit(theirs)(params, v, u), rtol)


def assert_sharded(loss, dense, rtol=1e-12):
    """Value, gradient and a product with the Hessian, with the classes on eight devices."""
    params, v, _, labels = example(32)
    mesh = Mesh(np.array(jax.devices()[:8]), ("vocabulary",))
    P = PartitionSpec
    ours = jax.shard_map(
        lambda p: loss(*p, labels, chunk_size=2, axis_name="vocabulary"),
        mesh=mesh,
        in_specs=((P(), P(None, "vocabulary"), P("vocabulary")),),
        out_specs=P(),
    )

    def run(f):
        total = lambda p: jnp.sum(jnp.sin(f(p)))  # noqa: E731
        return jax.jit(lambda p, v: (f(p), jax.jvp(jax.grad(total), (p,), (v,))))

    theirs = run(lambda p: dense(p[0] @ p[1] + p[2], labels))
    assert_equal(run(ours)(params, v), theirs(params, v), rtol)


def with_bias(fn, **settings):
    """`fn` as the checks above call it."""
    return lambda x, w, b, y, **chunks: fn(x, w, y, bias=b, **settings, **chunks)
