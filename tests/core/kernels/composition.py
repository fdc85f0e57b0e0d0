"""Every way in which JAX transformations are stacked on an operator `f(*x) -> y`, by name.

`modes(f, x)` gives thunks; a test runs them for an implementation and for plain `jnp` and compares.
All use one set of inputs and weights, so the two runs agree up to rounding.
"""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def draw(shapes, seed, *, batch=()):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal((*batch, *s))) for s in shapes)


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(a, b))


def modes(f, x):
    """34 compositions of `f` at `x`, whose first output axis is like that of `x[0]`."""
    shapes = [a.shape for a in x]
    t, u = draw(shapes, 1), draw(shapes, 2)
    many, many_t = draw(shapes, 3, batch=(3,)), draw(shapes, 4, batch=(3,))
    q, *rest = x
    y = jax.eval_shape(f, *x)
    (weights,) = draw([y.shape], 5)
    back = draw([(y.size, q.size)], 6)[0] * 0.05

    def loss(*x):
        return jnp.sum(jnp.sin(f(*x)) * weights)

    def loss_many(*x):
        return jnp.sum(jnp.sin(jax.vmap(f)(*x)))

    def loss_shared(q, *rest):
        return jnp.sum(jnp.sin(jax.vmap(f, in_axes=(0, *(None,) * len(rest)))(q, *rest)))

    every = tuple(range(len(x)))
    grad = jax.grad(loss, every)

    def hvp(x, t):
        return jax.jvp(grad, x, t)[1]

    def net(x):
        def layer(c, _):
            q, *rest = c
            return (q + (f(*c).reshape(-1) @ back).reshape(q.shape), *rest), None

        return jnp.sum(jnp.sin(jax.lax.scan(jax.checkpoint(layer), x, None, length=3)[0][0]))

    def net_hvp(x, t):
        return jax.jvp(jax.grad(net), (x,), (t,))[1]

    eager = {
        "f": lambda: f(*x),
        "jit(f)": lambda: jax.jit(f)(*x),
        "grad": lambda: grad(*x),
        "jit(grad)": lambda: jax.jit(grad)(*x),
        "grad of the first": lambda: jax.grad(loss)(*x),
        "jvp": lambda: jax.jvp(f, x, t),
        "jvp of the first": lambda: jax.jvp(lambda q: f(q, *rest), (q,), (t[0],)),
        "jit(jvp)": lambda: jax.jit(lambda x, t: jax.jvp(f, x, t))(x, t),
        "linearize": lambda: jax.linearize(f, *x)[1](*t),
        "linear_transpose(jvp)": lambda: jax.linear_transpose(lambda *t: jax.jvp(f, x, t)[1], *x)(
            weights
        ),
        "vmap(f)": lambda: jax.vmap(f)(*many),
        "vmap(f) of the first": lambda: jax.vmap(f, in_axes=(0, *(None,) * len(rest)))(
            many[0], *rest
        ),
        "vmap(grad)": lambda: jax.vmap(grad)(*many),
        "grad(vmap)": lambda: jax.grad(loss_many, every)(*many),
        "grad(vmap of the first)": lambda: jax.grad(loss_shared, every)(many[0], *rest),
        "hvp": lambda: hvp(x, t),
        "jit(hvp)": lambda: jax.jit(hvp)(x, t),
        "hvp of the first": lambda: jax.jvp(lambda q: jax.grad(loss)(q, *rest), (q,), (t[0],)),
        "vmap(hvp) over tangents": lambda: jax.vmap(lambda t: hvp(x, t))(many_t),
        "hvp(vmap)": lambda: jax.jvp(jax.grad(loss_many, every), many, many_t)[1],
        "hessian of the first": lambda: jax.hessian(loss)(*x),
        "hessian of the rest": lambda: jax.hessian(lambda r: loss(q, *r))(tuple(rest)),
        "jit(hessian)": lambda: jax.jit(jax.hessian(loss))(*x),
        "jacfwd": lambda: jax.jacfwd(f)(*x),
        "jacrev": lambda: jax.jacrev(f)(*x),
        "reverse over reverse": lambda: jax.grad(lambda x: dot(grad(*x), u))(x),
        "reverse over forward": lambda: jax.grad(lambda x: jax.jvp(loss, x, t)[1])(x),
        "forward over forward": lambda: jax.jvp(lambda *x: jax.jvp(f, x, t)[1], x, u)[1],
        "Gauss-Newton": lambda: jax.vjp(f, *x)[1](jnp.cos(weights) * jax.jvp(f, x, t)[1]),
        "linearize(grad)": lambda: jax.linearize(grad, *x)[1](*t),
        "grad(scan(checkpoint))": lambda: jax.grad(net)(x),
        "hvp(scan(checkpoint))": lambda: net_hvp(x, t),
        "jit(hvp(scan(checkpoint)))": lambda: jax.jit(net_hvp)(x, t),
        "third order": lambda: jax.jvp(lambda *x: hvp(x, t), x, u)[1],
    }
    return _compiled(eager, but=EAGER)


def more_modes(f, x):
    """18 more: meshes, checkpoint policies, control flow, lowering ahead of time, third orders."""
    shapes = [a.shape for a in x]
    xs, ts = draw(shapes, 11, batch=(4,)), draw(shapes, 12, batch=(4,))
    t, u = draw(shapes, 13), draw(shapes, 14)
    q, *rest = xs
    one = tuple(a[0] for a in xs)
    shared = (0, *(None,) * len(rest))
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    split, whole = PartitionSpec("d"), PartitionSpec()
    mapped = jax.vmap(f)

    def total(g):
        return lambda x: jnp.sum(jnp.sin(g(*x)))

    def sharded(check):
        specs = {"in_specs": (split,) * len(x), "out_specs": split}
        return jax.shard_map(mapped, mesh=mesh, check_vma=check, **specs)

    def replicated(q, k):
        """The second argument is the same on every device; its cotangent is summed over them."""
        fun = jax.shard_map(
            jax.vmap(f, in_axes=(0, None, *(0,) * (len(x) - 2))),
            mesh=mesh,
            in_specs=(split, whole, *(split,) * (len(x) - 2)),
            out_specs=split,
        )
        return fun(q, k, *rest[1:])

    def hvp(loss, x=xs, t=ts):
        return jax.jvp(jax.grad(loss), (x,), (t,))[1]

    def loss_k(k):
        return jnp.sum(jnp.sin(replicated(q, k)))

    def loss_shared(k):
        return jnp.sum(jnp.sin(jax.vmap(f, in_axes=shared)(q, k, *(r[0] for r in rest[1:]))))

    def branch(x):
        return jax.lax.cond(
            x[0].ravel()[0] > -9e9, total(mapped), lambda x: 0.0 * total(mapped)(x), x
        )

    def loop(x):
        def add(i, q):
            return q + jnp.sum(mapped(q, *x[1:])) * jnp.ones_like(q) * 0.01

        return jax.lax.fori_loop(0, 2, add, x[0])

    run = jax.jit(lambda x, t: hvp(total(mapped), x, t))
    policy = functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
    loss = total(f)
    second = lambda x: hvp(loss, x, t)  # noqa: E731
    eager = {
        "shard_map": lambda: sharded(True)(*xs),
        "grad(shard_map)": lambda: jax.grad(total(sharded(True)))(xs),
        "hvp(shard_map)": lambda: hvp(total(sharded(True))),
        "hvp(shard_map) unchecked": lambda: hvp(total(sharded(False))),
        "grad(shard_map) replicated": lambda: jax.grad(loss_k)(rest[0][0]),
        "hvp(shard_map) replicated": lambda: hvp(loss_k, rest[0][0], ts[1][0]),
        "jit(hvp(shard_map))": lambda: jax.jit(lambda x, t: hvp(total(sharded(True)), x, t))(
            xs, ts
        ),
        "hvp(checkpoint policy)": lambda: hvp(total(policy(mapped))),
        "hvp(cond)": lambda: hvp(branch),
        "jvp(fori_loop)": lambda: jax.jvp(loop, (xs,), (ts,)),
        "make_jaxpr(hvp)": lambda: jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(run)(xs, ts))(
            *xs, *ts
        ),
        "vmap(hvp) over a scale": lambda: jax.vmap(lambda s: hvp(lambda x: s * total(mapped)(x)))(
            jnp.arange(2.0)
        ),
        "jvp(vmap) of a shared one": lambda: jax.jvp(loss_shared, (rest[0][0],), (ts[1][0],)),
        "hvp(vmap) of a shared one": lambda: hvp(loss_shared, rest[0][0], ts[1][0]),
        "jit(vmap(hessian))": lambda: jax.jit(jax.vmap(jax.hessian(lambda *x: total(f)(x))))(*xs),
        "lower(hvp).compile": lambda: run.lower(xs, ts).compile()(xs, ts),
        "grad(reverse over reverse)": lambda: jax.grad(lambda x: dot(second(x), u))(one),
        "grad(forward over forward)": lambda: jax.grad(
            lambda x: jnp.sum(
                jax.jvp(lambda x: jax.jvp(lambda x: f(*x), (x,), (t,))[1], (x,), (u,))[1]
            )
        )(one),
    }
    return _compiled(eager, but=EAGER)


# The kernels that each composition runs, no more and no fewer: under jit, what only served the
# primal gradient is removed. "K" is the tangent of the tangent. Where the kernels end, the
# reference is differentiated.
_NAMES = {
    "F": ["f", "jit(f)", "vmap(f)", "vmap(f) of the first", "shard_map"],
    "FB": [
        "grad", "jit(grad)", "grad of the first", "linear_transpose(jvp)", "vmap(grad)",
        "grad(vmap)", "grad(vmap of the first)", "jacrev", "grad(scan(checkpoint))",
        "grad(shard_map)", "grad(shard_map) replicated",
    ],
    "FJ": [
        "jvp", "jvp of the first", "jit(jvp)", "linearize", "jacfwd", "jvp(fori_loop)",
        "jvp(vmap) of a shared one",
    ],
    "FJH": [
        "jit(hvp)", "vmap(hvp) over tangents", "hvp(vmap)", "hessian of the first",
        "hessian of the rest", "jit(hessian)", "linearize(grad)", "hvp(shard_map)",
        "hvp(shard_map) unchecked", "hvp(shard_map) replicated", "jit(hvp(shard_map))",
        "hvp(checkpoint policy)", "hvp(cond)", "make_jaxpr(hvp)", "vmap(hvp) over a scale",
        "hvp(vmap) of a shared one", "jit(vmap(hessian))", "lower(hvp).compile",
    ],
    "FJBH": [
        "hvp", "hvp of the first", "reverse over reverse", "reverse over forward",
        "hvp(scan(checkpoint))", "jit(hvp(scan(checkpoint)))", "grad(reverse over reverse)",
    ],
    "FJB": ["Gauss-Newton"],
    "FJK": ["forward over forward", "third order"],
    "": ["grad(forward over forward)"],
}  # fmt: skip
USES = {name: kernels for kernels, names in _NAMES.items() for name in names}

# Run operation by operation; all other compositions are compiled as a whole, which is faster.
EAGER = {
    "f",
    "grad",
    "grad of the first",
    "jvp",
    "vmap(f)",
    "hvp",
    "hvp of the first",
    "linearize",
    "linear_transpose(jvp)",
    "shard_map",
    "lower(hvp).compile",
}


def _compiled(thunks, but):
    return {name: thunk if name in but else jax.jit(thunk) for name, thunk in thunks.items()}


def relative_error(got, want, floor=1e-30):
    """The largest rms error of a leaf relative to the rms of that leaf."""
    worst = 0.0
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want):
        assert g.shape == w.shape
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        error = np.linalg.norm(g - w) / max(np.linalg.norm(w), floor, 1e-30)
        worst = np.maximum(worst, error)  # unlike max, keeps NaN
    return float(worst)
