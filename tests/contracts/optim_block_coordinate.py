"""Declarations for block coordinate descent."""

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

DIM = 6


def problem(rng):
    return {
        "gradient": rng.normal(size=DIM),
        "root": rng.normal(size=(DIM, DIM)),
        "block": np.array([4, 1, 2]),
    }


def step(fn, gradient, root, block, hessian=None, **options):
    hessian = root @ root.T + jnp.eye(DIM, dtype=root.dtype) if hessian is None else hessian
    return fn(gradient, hessian, block, **options)


def constrained(rng):
    return {"params": np.abs(rng.normal(size=DIM))} | problem(rng)


def constrained_step(fn, params, gradient, root, block, hessian=None, **options):
    hessian = root @ root.T + jnp.eye(DIM, dtype=root.dtype) if hessian is None else hessian
    return fn(params, gradient, hessian, block, **options)


def partitioned(rng):
    return {
        "gradient": rng.normal(size=DIM),
        "partition": rng.permutation(DIM).reshape(3, 2),
        "hessian": np.diag(rng.uniform(0.5, 2, DIM)) + 0.1,
    }


def tree(rng):
    """Two paths with one node between them that belongs to neither."""
    matrix = np.diag(rng.uniform(2, 3, DIM))
    for i, j in ((0, 3), (3, 1), (5, 4)):
        matrix[i, j] = matrix[j, i] = rng.uniform(0.5, 1)
    return {"matrix": matrix, "target": rng.normal(size=DIM), "where": np.arange(DIM) != 2}


CASES = [
    Case(
        "papyrax.optim.select_block",
        arrays=lambda rng: {
            "gradient": rng.normal(size=DIM),
            "curvature": rng.uniform(0.5, 2, DIM),
        },
        static={"size": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("size: got", {"size": 0}),
            Bad("size: got", {"size": DIM + 1}),
            Bad("gradient", {"gradient": np.ones((2, 3))}),
            Bad("curvature", {"curvature": np.ones(3)}),
            Bad("curvature", {"curvature": np.ones(DIM, np.int32)}),
        ),
    ),
    Case(
        "papyrax.optim.block_step",
        arrays=problem,
        call=step,
        rows=None,
        differentiable=False,  # eigenvalues that meet have no derivative
        tolerance=6e-2,
        bad=(
            Bad("gradient", {"gradient": np.ones(DIM, np.int32)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("block", {"block": np.ones(2)}),
            Bad("rule: got", {"rule": "newton"}),
        ),
    ),
    Case(
        "papyrax.optim.select_block_quadratic",
        arrays=lambda rng: {k: v for k, v in problem(rng).items() if k != "block"},
        call=lambda fn, gradient, root, hessian=None, **options: fn(
            gradient, root @ root.T if hessian is None else hessian, **options
        ),
        static={"size": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("size: got", {"size": DIM + 1}),
            Bad("iterations: got", {"iterations": 0}),
            Bad("gradient", {"gradient": np.ones((2, 3))}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("initial", {"initial": np.ones(3)}),
            Bad("largest_eigenvalue", {"largest_eigenvalue": 0.0}),
        ),
    ),
    Case(
        "papyrax.optim.partition_coordinates",
        arrays=lambda rng: {"curvature": rng.uniform(0.5, 2, DIM)},
        static={"size": 3, "rule": "averaged"},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("size: got", {"size": 4}),
            Bad("rule: got", {"rule": "alphabetical"}),
            Bad("key: got None", {"rule": "random"}),
            Bad("curvature", {"curvature": np.ones((2, 3))}),
        ),
    ),
    Case(
        "papyrax.optim.select_from_partition",
        arrays=partitioned,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("rule: got", {"rule": "best"}),
            Bad("gradient", {"gradient": np.ones((2, 3))}),
            Bad("partition", {"partition": np.ones((3, 2))}),
            Bad("partition", {"partition": np.arange(3)}),
            Bad("hessian: got None", {"hessian": None}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
        ),
    ),
    Case(
        "papyrax.optim.cyclic_block",
        arrays=lambda rng: {
            "partition": rng.permutation(DIM).reshape(3, 2),
            "step": np.array(4),
            "key": jax.random.key(0),
        },
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("partition", {"partition": np.arange(3)}),
            Bad("step", {"step": np.array(1.0)}),
            Bad("step", {"step": np.arange(2)}),
            Bad("key", {"key": 0}),
        ),
    ),
    Case(
        "papyrax.optim.sample_from_partition",
        arrays=lambda rng: {
            "key": jax.random.key(0),
            **{k: v for k, v in partitioned(rng).items() if k != "gradient"},
        },
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("partition", {"partition": np.arange(3)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("hessian", {"hessian": np.ones(DIM)}),
            Bad("key", {"key": 0}),
        ),
    ),
    Case(
        "papyrax.optim.active_set",
        arrays=lambda rng: {k: constrained(rng)[k] for k in ("params", "gradient")},
        static={"nonnegative": True},
        rows=0,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("params", {"params": np.ones(3)}),
            Bad("gradient", {"gradient": np.ones(DIM, np.int32)}),
            Bad("l1", {"l1": -1.0}),
            Bad("tolerance", {"tolerance": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.select_proximal_block",
        arrays=lambda rng: {
            **{k: constrained(rng)[k] for k in ("params", "gradient")},
            "curvature": rng.uniform(0.5, 2, DIM),
        },
        static={"size": 3, "l1": 0.1},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("size: got", {"size": 0}),
            Bad("params", {"params": np.ones(3)}),
            Bad("curvature", {"curvature": np.ones(3)}),
            Bad("l1", {"l1": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.proximal_block_step",
        arrays=constrained,
        call=constrained_step,
        static={"l1": 0.1, "nonnegative": True},
        rows=None,
        differentiable=False,  # eigenvalues that meet have no derivative
        bad=(
            Bad("params", {"params": np.ones(3)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("block", {"block": np.ones(2)}),
            Bad("l1", {"l1": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.two_metric_step",
        arrays=constrained,
        call=constrained_step,
        rows=None,
        differentiable=False,  # eigenvalues that meet have no derivative
        tolerance=6e-2,
        bad=(
            Bad("params", {"params": np.ones(3)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("block", {"block": np.ones(2)}),
            Bad("tolerance", {"tolerance": -1.0}),
            Bad("decrease", {"decrease": 2.0}),
            Bad("halvings", {"halvings": 0}),
        ),
    ),
    Case(
        "papyrax.optim.is_forest",
        arrays=lambda rng: {k: v for k, v in tree(rng).items() if k != "target"},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("matrix", {"matrix": np.ones((DIM, 2))}),
            Bad("where", {"where": np.ones(2, bool)}),
            Bad("where", {"where": np.ones(DIM)}),
        ),
    ),
    Case(
        "papyrax.optim.forest_block",
        arrays=lambda rng: {
            "scores": rng.uniform(size=DIM),
            "hessian": np.eye(DIM) + (np.add.outer(np.arange(DIM), np.arange(DIM)) % 3 == 0),
            "where": np.arange(DIM) != 2,
        },
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("scores", {"scores": np.ones(3)}),
            Bad("hessian", {"hessian": np.ones((DIM, 2))}),
            Bad("where", {"where": np.ones(2, bool)}),
        ),
    ),
    Case(
        "papyrax.optim.gaussian_belief_propagation",
        arrays=tree,
        rows=None,
        differentiable=False,  # the number of sweeps depends on the messages
        bad=(
            Bad("matrix", {"matrix": np.ones((DIM, 2))}),
            Bad("target", {"target": np.ones(3)}),
            Bad("where", {"where": np.ones(2, bool)}),
            Bad("sweeps", {"sweeps": 0}),
        ),
    ),
]
