"""Declarations for optimizers that write the parameters themselves."""

from contracts.case import Bad, Case
from papyrax.curvature import Curvature


def two_steps(fn, params, grads, diag, learning_rate=0.3, **options):
    tx = fn(learning_rate, **options)
    state = tx.init(params)
    for factor in (1, 2):
        params, state = tx.step(params, state, factor * grads, Curvature(diag))
    return params


CASES = [
    Case(
        "papyrax.optim.fused_adahessian",
        arrays=lambda rng: {n: rng.normal(size=(2, 3, 4)) for n in ("params", "grads", "diag")},
        wrt=("params", "grads"),
        static={"weight_decay": 0.1, "eps": 0.1},
        rows=None,
        call=two_steps,
        bad=(
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("b1: got", {"b1": 1.0}),
            Bad("b2: got", {"b2": -0.1}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
            Bad("average: got", {"average": "rows"}),
            Bad("average_of: got", {"average_of": "square"}),
            Bad("implementation: got", {"implementation": "cuda"}),
            Bad("grads: got", {"grads": lambda a: a["grads"][:1]}),
            Bad("curvature: got", {"diag": lambda a: a["diag"][:1]}),
        ),
    )
]
