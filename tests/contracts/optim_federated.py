"""Declarations for federated optimizers."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

CLIENTS, STEPS, BATCH, DIM = 3, 2, 4, 2


def loss(params, batch):
    hidden = batch @ params["w"] + params["b"]
    return jnp.mean(jnp.logaddexp(hidden, -hidden) - hidden / 3)


def two_rounds(fn, w, b, batches, sampled=None, learning_rate=0.3, clients=CLIENTS, **options):
    tx = fn(learning_rate, **options)
    state = tx.init({"w": w, "b": b}, clients)
    for _ in range(2):
        state = tx.update(loss, state, batches, sampled)
    return state.params


def arrays(rng):
    return {
        "w": rng.normal(size=DIM),
        "b": rng.normal(),
        "batches": rng.normal(size=(CLIENTS, STEPS, BATCH, DIM)),
    }


BAD = (
    Bad("learning_rate: got", {"learning_rate": -1.0}),
    Bad("max_norm: got", {"max_norm": 0.0}),
    Bad("clients: got", {"clients": 0}),
    Bad("params: got", {"w": np.ones(DIM, np.int32)}),
    Bad("batches: got", {"batches": np.ones(CLIENTS)}),
    Bad("sampled: got", {"sampled": np.arange(2)}),
)
SERVER = (Bad("server_learning_rate: got", {"server_learning_rate": 0.0}),)
PROX = (Bad("prox_weight: got", {"prox_weight": -1.0}),)
UPHILL = (Bad("rho: got", {"rho": -1.0}),)


def case(name, *bad, **static):
    return Case(
        f"papyrax.optim.{name}",
        arrays=arrays,
        wrt=("w", "b"),
        static=static,
        rows=None,
        call=two_rounds,
        bad=(*BAD, *bad),
    )


CASES = [
    case("fedavg", *SERVER, max_norm=0.5),
    case("fedprox", *SERVER, *PROX),
    case("fedsam", *SERVER, *UPHILL),
    case(
        "fedspeed",
        *PROX,
        *UPHILL,
        Bad("prox_weight: got", {"prox_weight": 0.0}),
        Bad("perturbed_weight: got", {"perturbed_weight": 2.0}),
        Bad("averaged: got", {"averaged": "none"}),
        Bad("batches: got", {"batches": np.ones((2, STEPS, BATCH, DIM))}),
        perturbed_weight=0.7,
    ),
]
