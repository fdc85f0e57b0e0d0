"""Declarations for bilevel optimization."""

import jax
import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def upper(x, y, *args):
    return jnp.sum(jnp.logaddexp(y["w"] - 1, 1 - y["w"])) + jnp.sum(jnp.sin(x))


def lower(x, y, *args):
    return jnp.sum((y["w"] - jnp.tanh(x)) ** 2) + 0.1 * jnp.sum(jnp.cos(y["w"]))


def pair(rng):
    return {"x": rng.normal(size=3), "w": rng.normal(size=3)}


def adjoint(fn, x, w, z=None, g=lower):
    z = {"w": 2 * w} if z is None else z
    return fn(upper, g, x, {"w": w}, z)


def implicit(fn, x, w, **options):
    return fn(upper, lower, x, {"w": w}, **options)


def run(fn, x, w, refine=None, **options):
    rates = {"learning_rate": 0.1, "lower_learning_rate": 0.1, **options}
    solver = fn(upper, lower, **rates)
    state = solver.init(x, {"w": w})
    state = solver.refine(state, jax.random.key(0), **(refine or {"epochs": 2, "steps": 2}))
    state = jax.lax.fori_loop(0, 3, lambda i, s: solver.step(s, jax.random.key(i)), state)
    return state.x, state.y, state.adjoint, state.momentum


CASES = [
    Case(
        "papyrax.optim.adjoint_hypergradient",
        arrays=pair,
        wrt=("x",),
        call=adjoint,
        rows=None,
        tolerance=4e-2,
        bad=(
            Bad("adjoint: got", {"z": {"w": np.zeros(2)}}),
            Bad("adjoint: got", {"z": np.zeros(3)}),
        ),
    ),
    Case(
        "papyrax.optim.hypergradient",
        arrays=pair,
        wrt=("x", "w"),
        call=implicit,
        rows=None,
        differentiable=False,  # a constant to derivatives
        tolerance=4e-2,
        bad=(
            Bad("solver: got", {"solver": "lu"}),
            Bad("iterations: got", {"iterations": 0}),
            Bad("step_size: got", {"solver": "neumann", "step_size": 0.0}),
            Bad("damping: got", {"damping": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.hypergradient",
        label="neumann",
        arrays=pair,
        wrt=("x", "w"),
        call=implicit,
        static={"solver": "neumann", "iterations": 4, "damping": 0.1},
        rows=None,
        differentiable=False,
        tolerance=4e-2,
    ),
    Case(
        "papyrax.optim.bo_rep",
        arrays=pair,
        wrt=("x", "w"),
        call=run,
        static={"radius": 0.5},
        rows=None,
        differentiable=False,  # training steps
        tolerance=6e-2,
        bad=(
            Bad("learning_rate: got", {"learning_rate": 0.0}),
            Bad("lower_learning_rate: got", {"lower_learning_rate": -1.0}),
            Bad("adjoint_learning_rate: got", {"adjoint_learning_rate": 0.0}),
            Bad("momentum: got", {"momentum": 1.0}),
            Bad("interval: got", {"interval": 0}),
            Bad("lower_steps: got", {"lower_steps": 0}),
            Bad("radius: got", {"radius": -1.0}),
            Bad("epochs: got", {"refine": {"epochs": 0}}),
        ),
    ),
]
