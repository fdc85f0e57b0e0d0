"""Declarations for the products, forms and diagonals of curvature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from papyrax import curvature

BATCH, INPUTS, OUTPUTS = 6, 3, 4
KEY = np.array([0, 1], np.uint32)


def outputs(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"] + p["b"]


def nll(f, x):
    """A mean negative log-likelihood of labels that depend on the inputs alone."""
    return jnp.mean(jax.nn.logsumexp(f, -1) - f[:, 0])


def losses(p, x):
    return jax.nn.logsumexp(outputs(p, x), -1)


def loss(p, x):
    return nll(outputs(p, x), x)


def arrays(rng):
    shapes = {"w": (INPUTS, 5), "v": (5, OUTPUTS), "b": (OUTPUTS,)}
    params = {k: rng.normal(size=s) for k, s in shapes.items()}
    vector = {k: rng.normal(size=s) for k, s in shapes.items()}
    return {"params": params, "vector": vector, "x": rng.normal(size=(BATCH, INPUTS))}


def keyed(rng):
    made = arrays(rng)
    del made["vector"]
    return made


def matrix(rng, dim=5):
    root = rng.normal(size=(dim, dim))
    return {"matrix": root @ root.T, "like": rng.normal(size=dim)}


def product(fn, params, vector, x, **options):
    return fn(**options)(params, vector, x)


def diagonal(fn, params, x, fun=loss, key=KEY, make=None, **options):
    """A `value_grad_and_diag`, or an estimator inside one."""
    if make is not None:
        estimator = fn(**options)
        f = curvature.value_grad_and_diag(fun, estimator=estimator)
    else:
        f = fn(fun, **options)
    return f(params, x, key=jnp.asarray(key))


def trace(fn, matrix, like, key=KEY, **options):
    return fn(lambda v: matrix @ v, like, key=jnp.asarray(key), **options)


def hessian_trace(fn, params, x, key=KEY, **options):
    return fn(loss, **options)(params, x, key=jnp.asarray(key))


SHORT = Bad("vector", {"vector": lambda a: {**a["vector"], "b": a["vector"]["b"][:2]}})
OTHER = Bad("vector", {"vector": lambda a: {"w": a["vector"]["w"]}})
BAD_KEY = Bad("key", {"key": np.zeros(3, np.int32)})
make_product = functools.partial(
    Case, arrays=arrays, wrt=("params", "vector"), rows=None, call=product, tolerance=4e-2
)
make_diagonal = functools.partial(
    Case, arrays=keyed, wrt=("params",), rows=None, call=diagonal, tolerance=5e-2
)
make_trace = functools.partial(
    Case,
    arrays=matrix,
    wrt=("matrix",),
    rows=None,
    call=trace,
    keeps_dtype=False,
    tolerance=4e-2,
)
room = "papyrax.curvature."

CASES = [
    make_product(room + "value_grad_and_hvp", static={"fun": loss}, bad=(SHORT, OTHER)),
    make_product(room + "hvp", static={"fun": loss}, bad=(SHORT,)),
    make_product(room + "quadratic_form", static={"fun": loss}, bad=(SHORT,)),
    make_product(room + "ggn_vp", static={"fun": outputs, "loss": nll}, bad=(SHORT,)),
    make_product(
        room + "fisher_vp",
        static={"fun": outputs},
        bad=(SHORT, Bad("likelihood", {"likelihood": "poisson"})),
    ),
    make_product(room + "empirical_fisher_vp", static={"fun": losses}, bad=(SHORT,)),
    make_diagonal(
        room + "value_grad_and_diag",
        bad=(
            BAD_KEY,
            Bad("fraction", {"fraction": 0}),
            Bad("microbatches", {"microbatches": 4}),
            Bad("microbatches", {"microbatches": 0}),
            Bad("batch_argnums", {"batch_argnums": 2, "microbatches": 2}),
            Bad("estimator", {"estimator": "hutchinson"}),
        ),
    ),
    make_diagonal(
        room + "hutchinson",
        static={"make": True, "n_samples": 2, "distribution": "normal"},
        bad=(Bad("n_samples", {"n_samples": 0}), Bad("distribution", {"distribution": "cauchy"})),
    ),
    make_diagonal(
        room + "gnb",
        static={"make": True, "fun": outputs, "loss": nll, "n_samples": 2},
        bad=(
            Bad("n_samples", {"n_samples": 0}),
            Bad("likelihood", {"likelihood": "poisson"}),
            Bad("clip_norm", {"clip_norm": -1.0}),
            Bad("loss", {"loss": "cross-entropy"}),
            Bad("fun", {"fun": lambda arrays: lambda p, x: p["b"][0]}),
        ),
    ),
    make_diagonal(
        room + "exact_diagonal",
        static={"make": True},
        bad=(Bad("batch_size", {"batch_size": 0}),),
    ),
    Case(
        room + "rademacher_like",
        arrays=lambda rng: {"tree": {"a": rng.normal(size=(3, 40)), "n": np.arange(3)}},
        call=lambda fn, tree, key=KEY: fn(jnp.asarray(key), tree),
        differentiable=False,
        rows=None,
        bad=(BAD_KEY,),
    ),
    Case(
        room + "normal_like",
        arrays=lambda rng: {"tree": {"a": rng.normal(size=(3, 40)), "n": np.arange(3)}},
        call=lambda fn, tree, key=KEY: fn(jnp.asarray(key), tree),
        differentiable=False,
        rows=None,
        bad=(BAD_KEY,),
    ),
    make_trace(
        room + "hutchinson_trace",
        bad=(
            BAD_KEY,
            Bad("n_samples", {"n_samples": 1}),
            Bad("distribution", {"distribution": "cauchy"}),
        ),
    ),
    make_trace(
        room + "hutch_plus_plus_trace",
        static={"n_samples": 3},
        # QR of a matrix without full rank has no derivative.
        skip_extremes=dict.fromkeys(("+1e4", "-1e4", "alternating +-1e4", "zeros"), "rank"),
        bad=(BAD_KEY, Bad("n_samples", {"n_samples": 1})),
    ),
    *(
        make_trace(
            room + name,
            arrays=functools.partial(matrix, dim=12),  # of fewer, two of three probes may be alike
            static={"n_samples": 3},
            skip_extremes=dict.fromkeys(("+1e4", "-1e4", "alternating +-1e4", "zeros"), "rank"),
            bad=(BAD_KEY, Bad("n_samples", {"n_samples": 1}), Bad("n_samples", {"n_samples": 2.5})),
        )
        for name in ("xtrace", "xdiag")
    ),
    Case(
        room + "hessian_trace",
        arrays=keyed,
        wrt=("params",),
        rows=None,
        call=hessian_trace,
        keeps_dtype=False,
        tolerance=5e-2,
        bad=(
            BAD_KEY,
            Bad("n_samples", {"n_samples": 1}),
            Bad("distribution", {"distribution": "cauchy"}),
        ),
    ),
    Case(
        room + "directional_sharpness",
        arrays=arrays,
        wrt=("params", "vector"),
        rows=None,
        call=lambda fn, params, vector, x: fn(loss)(params, vector, x),
        tolerance=4e-2,
        # Divided by a zero direction, of which there is no derivative.
        second_order=False,
        skip_extremes={"zeros": "a zero direction has no curvature"},
        bad=(Bad("direction", SHORT.change),),
    ),
    Case(
        room + "spectral_density",
        arrays=matrix,
        call=lambda fn, **kw: jnp.sum(trace(fn, **kw).nodes, axis=1),
        static={"order": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        tolerance=4e-2,
        bad=(BAD_KEY, Bad("order", {"order": 0}), Bad("n_samples", {"n_samples": 0})),
    ),
    Case(
        room + "extreme_eigenpairs",
        arrays=matrix,
        call=lambda fn, **kw: trace(fn, **kw)[0],
        static={"order": 5, "k": 2},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        tolerance=4e-2,
        bad=(
            BAD_KEY,
            Bad("k", {"k": 9}),
            Bad("k", {"method": "lobpcg"}),
            Bad("which", {"which": "both"}),
            Bad("method", {"method": "power"}),
        ),
    ),
]
