"""Federated rounds against loops in NumPy, and where they come to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax.optim import fedavg, fedprox, fedsam, fedspeed

CLIENTS, STEPS, DIM, RATE = 4, 3, 3, 0.05
RNG = np.random.default_rng(0)
ROOTS = RNG.normal(size=(CLIENTS, DIM, DIM)) / np.sqrt(DIM)
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.3 * np.eye(DIM)
TARGETS = RNG.normal(size=(CLIENTS, DIM))
START = RNG.normal(size=DIM)


def loss(params, batch):
    hessian, target = batch
    away = jnp.concatenate([params["a"], params["b"]]) - target
    return away @ hessian @ away / 2


def tree(x):
    return {"a": jnp.asarray(x[:2]), "b": jnp.asarray(x[2:])}


def flat(params):
    return np.concatenate([params["a"], params["b"]])


def batches(clients=range(CLIENTS), steps=STEPS):
    rows = np.repeat(list(clients), steps).reshape(-1, steps)
    return jnp.asarray(HESSIANS)[rows], jnp.asarray(TARGETS)[rows]


def run(tx, rounds, steps=STEPS, sampled=None, start=START):
    """Rounds of the same clients in one program."""
    chosen = range(CLIENTS) if sampled is None else sampled
    data = batches(chosen, steps)
    which = None if sampled is None else jnp.asarray(sampled)

    @jax.jit
    def all_rounds(state):
        return jax.lax.fori_loop(0, rounds, lambda _, s: tx.update(loss, s, data, which), state)

    return all_rounds(tx.init(tree(start), CLIENTS))


def loops(sampled, rounds, *, prox=0.0, rho=0.0, alpha=1.0, normalize=True, h=None, averaged="all"):
    """The authors' form: models and h = -c / prox, as vectors; h None keeps none."""
    x = START.copy()
    for _ in range(rounds):
        ends = {}
        for i in sampled:
            w = x.copy()
            for _ in range(STEPS):
                g = HESSIANS[i] @ (w - TARGETS[i])
                e = rho * (g / np.linalg.norm(g) if normalize else g)
                g = (1 - alpha) * g + alpha * HESSIANS[i] @ (w + e - TARGETS[i])
                g = g + prox * w + prox * ((0 if h is None else h[i]) - x)
                w = w - RATE * g
            ends[i] = w
        if h is not None:
            for i in sampled:
                h[i] += ends[i] - x
        x = np.mean(list(ends.values()), 0)
        if h is not None:
            x = x + np.mean(h if averaged == "all" else h[list(sampled)], 0)
    return x, h


@pytest.mark.parametrize(
    ("tx", "rules"),
    [
        (fedavg(RATE), {}),
        (fedprox(RATE, prox_weight=0.7), {"prox": 0.7}),
        (fedsam(RATE, rho=0.2), {"rho": 0.2}),
    ],
    ids=["fedavg", "fedprox", "fedsam"],
)
def test_baselines(tx, rules):
    with jax.enable_x64(True):
        got = flat(run(tx, 2).params)
    np.testing.assert_allclose(got, loops(range(CLIENTS), 2, **rules)[0], rtol=1e-12)


@pytest.mark.parametrize("averaged", ["all", "sampled"])
def test_fedspeed(averaged):
    """Some clients take part, with both gradients mixed, as the paper and the code write it."""
    rules = {"rho": 0.2, "normalize": averaged == "all", "averaged": averaged}
    tx = fedspeed(RATE, prox_weight=0.7, perturbed_weight=0.6, **rules)
    with jax.enable_x64(True):
        state = run(tx, 3, sampled=(2, 0))
        got, corrections = flat(state.params), np.asarray(state.corrections["a"])
    h = np.zeros((CLIENTS, DIM))
    want, h = loops((2, 0), 3, prox=0.7, alpha=0.6, h=h, **rules)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(corrections, -0.7 * h[:, :2], atol=1e-14)
    assert int(state.round) == 3


def test_where_they_rest():
    """With 20 local steps FedSpeed rests at the optimum, FedAvg and FedProx do not."""
    best = np.linalg.solve(HESSIANS.sum(0), np.einsum("kij,kj->i", HESSIANS, TARGETS))
    with jax.enable_x64(True):
        state = run(fedspeed(0.1, prox_weight=1.0, rho=0.0), 300, steps=20)
        corrections = np.concatenate([state.corrections["a"], state.corrections["b"]], 1)
        np.testing.assert_allclose(flat(state.params), best, atol=1e-10)
        for tx in (fedavg(0.1), fedprox(0.1, prox_weight=1.0)):
            assert np.linalg.norm(flat(run(tx, 300, steps=20).params) - best) > 1e-2
    gradients = np.einsum("kij,kj->ki", HESSIANS, best - TARGETS)
    np.testing.assert_allclose(corrections, gradients, atol=1e-9)
    assert np.linalg.norm(gradients, axis=1).min() > 0.1


def test_first_round():
    """x_1 = mean(2 x_i - x_0), whatever lam; without alpha or rho there is no perturbation."""
    with jax.enable_x64(True):
        prox = flat(run(fedprox(RATE, prox_weight=0.7), 1).params)
        for off in ({"rho": 0.0}, {"perturbed_weight": 0.0}):
            got = flat(run(fedspeed(RATE, prox_weight=0.7, **off), 1).params)
            np.testing.assert_allclose(got, 2 * prox - START, rtol=1e-12)


def test_server_rate_schedule_and_clipping():
    with jax.enable_x64(True):
        g = HESSIANS[1] @ (START - TARGETS[1])
        slow = fedavg(lambda t: jnp.where(t == 0, RATE, 0.0), server_learning_rate=0.5)
        moved = flat(run(slow, 3, steps=1, sampled=(1,)).params) - START
        np.testing.assert_allclose(moved, -RATE / 2 * g, rtol=1e-12)
        for most in (0.1, 1e9):
            clipped = run(fedavg(1.0, max_norm=most), 1, steps=1, sampled=(1,))
            norm = np.linalg.norm(g)
            np.testing.assert_allclose(flat(clipped.params) - START, -g * min(1, most / norm))


def test_clients_over_devices():
    """Half of the clients on each of two devices, of which one a device takes part."""
    mesh = jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    split = P("clients")
    tx = fedspeed(RATE, axis_name="clients")
    state = tx.init(tree(START.astype(np.float32)), CLIENTS)
    data = jax.tree.map(lambda x: x.astype(jnp.float32), batches((1, 2)))
    parts = jax.tree.map(lambda _: P(), state)._replace(
        corrections=jax.tree.map(lambda _: split, state.corrections)
    )

    def rounds(state, data, sampled):
        for _ in range(2):
            state = tx.update(loss, state, data, sampled)
        return state

    over = jax.shard_map(rounds, mesh=mesh, in_specs=(parts, split, split), out_specs=parts)
    got = jax.jit(over)(state, data, jnp.array([1, 0]))  # numbers within a device
    want = run(fedspeed(RATE), 2, sampled=(1, 2), start=START.astype(np.float32))
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_random_keys_in_batches():
    """Keys of the local steps, such as those of dropout, lie beside the examples."""
    keys = jax.random.split(jax.random.key(0), (2, STEPS))

    def noisy(params, key):
        return jnp.sum(jnp.square(params - jax.random.normal(key, (3,))))

    tx = fedavg(0.1)
    state = jax.jit(lambda s: tx.update(noisy, s, keys))(tx.init(jnp.zeros(3), 2))
    noise = np.asarray(jax.vmap(jax.vmap(lambda k: jax.random.normal(k, (3,))))(keys))
    x = np.zeros((2, 3))
    for step in range(STEPS):
        x = x - 0.2 * (x - noise[:, step])
    np.testing.assert_allclose(state.params, x.mean(0), rtol=1e-5)
