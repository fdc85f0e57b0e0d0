"""Solvers against points that the authors' code went through, in float64.

Of BO-REP's code the lower learning rate was zero, for its lower gradients add up within a loop, and
the 1e-10 beside the momentum's norm is left out.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import recorded

from papyrax import optim
from papyrax.curvature import hvp

ENTRIES = recorded("solvers", "optim")
OPTIMIZERS = recorded("optimizers", "optim")
close = functools.partial(np.testing.assert_allclose, rtol=1e-10)


def arrays(entry, *names):
    return (jnp.asarray(np.asarray(entry[name])) for name in names)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("hessian", ["exact", "weighted"])
def test_gradient_normalized_newton(hessian):
    """A soft maximum, with its Hessian or without the part of rank one."""
    entry = ENTRIES["gns_newton"]
    a, b, start = arrays(entry, "rows", "offsets", "start")
    mu = entry["temperature"]

    def loss(x):
        return mu * jax.nn.logsumexp((a @ x - b) / mu)

    def weighted(x, v):
        return a.T @ (jax.nn.softmax((a @ x - b) / mu) * (a @ v)) / mu

    tx = optim.gns_newton(gamma=entry["gamma_0"])

    @jax.jit
    def step(x, state):
        product = hvp(loss) if hessian == "exact" else weighted
        oracle = optim.local_oracle(loss, x, product=product)
        updates, state = tx.update(jax.grad(loss)(x), state, x, oracle=oracle)
        return optax.apply_updates(x, updates), state

    x, state, points = start, tx.init(start), []
    for gamma in entry[hessian]["gamma"][1:]:
        x, state = step(x, state)
        close(state[0].gamma, gamma)
        points.append(x)
    for at, want in zip((0, 1, 7), entry[hessian]["points"]):
        close(points[at], want, rtol=1e-9)


CURVATURES = {
    "GS": lambda h: None,
    "GSD": jnp.diag,
    "GSDHb": lambda h: jnp.sum(jnp.abs(h), axis=1),
}


@pytest.mark.parametrize("run", ENTRIES["block"]["variable"], ids=lambda run: run["rule"])
def test_greedy_blocks(run):
    entry = ENTRIES["block"]
    a, b = arrays(entry, "matrix", "target")
    h = a.T @ a
    step_rule = {"Lb": "lipschitz", "Hb": "hessian"}[run["update"]]

    @jax.jit
    def step(x):
        g = a.T @ (a @ x - b)
        block = optim.select_block(g, CURVATURES[run["rule"]](h), size=entry["size"])
        return x + optim.block_step(g, h, block, rule=step_rule), jnp.sort(block)

    x = jnp.zeros(len(h))
    for want in run["blocks"]:
        x, block = step(x)
        assert block.tolist() == want
    close(x, run["end"])


def test_blocks_of_a_partition():
    entry = ENTRIES["block"]
    a, b = arrays(entry, "matrix", "target")
    h = a.T @ a
    rules = {"Sort": "sorted", "Avg": "averaged", "Order": "ordered"}
    sums = jnp.sum(jnp.abs(h), axis=1)
    partitions = {}
    for name, want in entry["partitions"].items():
        of = sums if name.startswith("H") else jnp.diag(h)
        rule = rules[name.replace("Hsort", "Sort").replace("Havg", "Avg")]
        partitions[name] = optim.partition_coordinates(of, size=entry["size"], rule=rule)
        assert partitions[name].tolist() == want

    @jax.jit
    def step(x, partition):
        g = a.T @ (a @ x - b)
        block = optim.select_from_partition(g, partition, h)
        return x + optim.block_step(g, h, block), block

    for run in entry["fixed"]:
        x = jnp.zeros(len(h))
        for want in run["blocks"]:
            x, block = step(x, partitions[run["partition"]])
            assert block.tolist() == want
        close(x, run["end"], rtol=1e-9)


def test_nonnegative_blocks():
    entry = ENTRIES["block"]
    a, b = arrays(entry, "matrix", "target")
    h, run = a.T @ a, entry["nonnegative"]
    options = {"l1": run["l1"], "nonnegative": True}

    @jax.jit
    def step(x):
        g = a.T @ (a @ x - b)
        block = optim.select_proximal_block(x, g, jnp.diag(h), size=run["size"], **options)
        return x + optim.proximal_block_step(x, g, h, block, **options), jnp.sort(block)

    start = x = jnp.asarray(run["start"])
    for want in run["blocks"]:
        x, block = step(x)
        assert block.tolist() == want
    close(x, run["end"], atol=1e-14)

    @jax.jit
    def project(x):
        g = a.T @ (a @ x - b) + run["l1"]
        return x + optim.two_metric_step(x, g, h, np.asarray(entry["two_metric"]["block"]))

    x = start
    for want in entry["two_metric"]["points"]:
        x = project(x)
        close(x, want, atol=1e-14)


def test_forests():
    entry = ENTRIES["block"]["forest"]
    h, target, x = arrays(entry, "hessian", "target", "start")
    grow = jax.jit(optim.forest_block)
    everywhere = np.ones(len(x), bool)

    @jax.jit
    def step(x):
        g = h @ x - target
        block = grow(jnp.abs(g), h, everywhere)
        return x + optim.gaussian_belief_propagation(h, -g, block), block

    end, block = step(x)
    assert np.flatnonzero(block).tolist() == entry["block"]
    close(end, entry["end"])
    left = everywhere
    for want in entry["partition"]:
        forest = np.asarray(grow(jnp.diag(h), h, left))
        assert np.flatnonzero(forest).tolist() == want
        left = left & ~forest
    assert not left.any()


@pytest.mark.parametrize("option", ["filter", "feature"])
def test_supervised_dictionary_learning(option):
    """Ten steps of projected descent; the coefficients of auxiliary variables are not projected."""
    entry, run = ENTRIES["sdl"], ENTRIES["sdl"][option]
    data, labels, auxiliary = arrays(entry, "data", "labels", "auxiliary")
    z = jnp.concatenate([jnp.ones((1, len(labels))), auxiliary])
    a, b, gamma = arrays(run, "a", "b", "gamma")
    axis = 1 if option == "filter" else 0
    stack = functools.partial(jnp.concatenate, axis=axis)

    def loss(params):
        a, b = jnp.split(params["both"], [1], axis)
        u = (a.T @ data if option == "filter" else a)[0] + params["gamma"] @ z
        square = lambda v: jnp.sum(jnp.square(v))  # noqa: E731
        logistic = jnp.sum(jax.nn.softplus(u) - labels * u)
        decay = entry["decay"] / 2 * (square(a) + square(params["gamma"]))
        return logistic + entry["weight"] * square(data - b) + decay

    tx = optim.lpgd(entry["learning_rate"], entry["rank"])

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = {"both": stack([a, b]), "gamma": gamma[0]}
    state = tx.init(params)
    for _ in range(10):
        params, state = step(params, state)
    close(params["both"], stack(list(arrays(run, "end_a", "end_b"))), atol=1e-12)
    close(params["gamma"], run["end_gamma"][0])


@pytest.mark.parametrize("name", ["iss_p plain", "iss_p hard"])
def test_soft_shrinkage(name):
    """Adam on the network of `authors_optimizers.json`; biases do not shrink."""
    entry, network = ENTRIES[name], OPTIMIZERS["network"]
    x, y = arrays(network, "inputs", "labels")
    params = {k: jnp.asarray(np.asarray(v)) for k, v in network["start"].items()}
    tx = optax.chain(optax.adam(0.05), optim.iterative_soft_shrinkage(**entry["options"]))

    def loss(p, x, y):
        hidden = jnp.tanh(jnp.einsum("nhwi,hwio->no", x, p["kernel"]) + p["bias"])
        z = hidden @ p["out"] + p["shift"]
        return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

    @jax.jit
    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for t in range(len(x)):
        params, state = step(params, state, x[t], y[t])
        for k, want in entry["params"].get(str(t + 1), {}).items():
            close(params[k], want, err_msg=f"{k} {t + 1}", atol=1e-14)


def test_masks_of_small_weights():
    entry = ENTRIES["masks"]
    (weights,) = arrays(entry, "weights")
    for mode, want in entry["masks"].items():
        pattern = tuple(map(int, mode[4:].split(":"))) if ":" in mode else None
        got = jax.jit(functools.partial(optim.magnitude_masks, pattern=pattern))(weights, 0.37)
        np.testing.assert_array_equal(got, np.asarray(want, bool))


def test_bilevel():
    """Weights of examples; the upper loss has batches of its own, the lower always the first."""
    entry = ENTRIES["bo_rep"]
    inputs, labels, index = arrays(entry, "inputs", "labels", "index")

    def losses(y, t):
        z = inputs[t] @ y["weight"] + y["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(z, labels[t])

    def lower(x, y, key):
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(v)) for v in y.values()))
        return jnp.mean(jax.nn.sigmoid(x[index[0]]) * losses(y, 0)) + 1e-4 * norm

    def solver(t):
        return optim.bo_rep(
            lambda x, y, key: jnp.mean(losses(y, t)),
            lower,
            learning_rate=0.1,
            lower_learning_rate=1e-30,
            adjoint_learning_rate=0.3,
            momentum=0.8,
        )

    tree = lambda d: {k: jnp.asarray(np.asarray(v)) for k, v in d.items()}  # noqa: E731
    y = {k: jnp.asarray(np.asarray(entry[k])) for k in ("weight", "bias")}
    state = solver(0).init(jnp.asarray(entry["x"]), y)._replace(adjoint=tree(entry["adjoint"]))
    step = jax.jit(lambda state, t: solver(t).step(state, jax.random.key(0)))
    for t in range(len(inputs)):
        state = step(state, t)
    close(state.x, entry["end_x"])
    for k, want in entry["end_adjoint"].items():
        close(state.adjoint[k], want)


def test_self_tuning(monkeypatch):
    """Two steps on training data, regularized, for one on validation data; the noise is given."""
    entry = ENTRIES["self_tuning"]
    module = importlib.import_module("papyrax.optim.self_tuning")

    def perturb(noise, hyper, scale, *, draws):
        return hyper + jax.nn.softplus(scale) * noise

    monkeypatch.setattr(module, "perturb_hyperparameters", perturb)
    inputs, labels, noise, hyper, scale = arrays(
        entry, "inputs", "labels", "noise", "hyper", "scale"
    )

    def respond(p, h, x):
        base, response = jnp.split(x @ p["kernel"], 2, -1)
        (b, d), (a, c) = jnp.split(p["bias"], 2), jnp.split(h @ p["gates"], 2, -1)
        return p["scale"] * (base + b) + a * response + c * d

    def train_loss(p, h, x, y):
        drawn = optim.constrain_hyperparameters(h, [0.0, 0.0], [0.9, np.inf])
        z = respond(p, h, x * (1 - drawn[:, :1])) / (1 + drawn[:, 1:])
        return optax.softmax_cross_entropy_with_integer_labels(z, y)

    def valid_loss(p, h, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(respond(p, h, x), y)

    rates = optax.multi_transform({"h": optax.adam(0.05), "s": optax.adam(0.02)}, ("h", "s"))
    weight = entry["entropy_weight"]
    tune = optim.self_tuning(
        train_loss, valid_loss, optax.sgd(0.1, 0.9), rates, draws=4, entropy_weight=weight
    )
    params = {k: jnp.asarray(np.asarray(v)) for k, v in entry["start"].items()}
    raw = jax.nn.softplus(scale)
    state = tune.init(params, hyper, raw)
    train, valid = jax.jit(tune.train), jax.jit(tune.valid)
    for t, want in enumerate(entry["losses"]):
        step = valid if t % 3 == 2 else train
        state, loss = step(state, noise[t], inputs[t], labels[t])
        close(loss, want)
    close(state.hyper, entry["end_hyper"])
    close(state.scale, entry["end_scale"])
    for k, want in entry["end"].items():
        close(state.params[k], want)


def test_what_hyperparameters_become():
    entry = ENTRIES["self_tuning"]
    free, scales = arrays(entry, "unconstrained", "scales")
    low, high = [0.0, 1.0, -np.inf, -np.inf], [0.9, np.inf, 2.0, np.inf]
    constrain = functools.partial(optim.constrain_hyperparameters, low=low, high=high)
    close(jax.jit(constrain)(free), entry["constrained"])
    close(jax.jit(optim.perturbation_entropy)(scales), entry["entropy"])


def test_envelope_of_entries_is_the_k_support_norm():
    """ModOpt's proximal step of half the squared norm of McDonald and others."""
    entry = ENTRIES["k_support"]
    (x,) = arrays(entry, "x")
    prox = jax.jit(optim.group_envelope_prox, static_argnums=1)
    for case in entry["cases"]:
        close(prox(x, case["k"], case["strength"]), case["prox"], atol=1e-14)
