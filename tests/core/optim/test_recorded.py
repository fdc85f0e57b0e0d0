"""Optimizers against trajectories of the authors' code, in float64, on one small network.

An entry of `authors_optimizers.json` has the parameters after 2 and after 10 steps. Both sides were
given the same start, batches, random signs and sampled labels; gradients and products with the
Hessian are each side's own. Of TRAM's code one line is changed: its step uphill is multiplied by
the gradient, as in the paper, and of the federated ones the 1e-7 beside a norm is left out. SAF has
its values and gradients over six epochs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import recorded

from papyrax import curvature, optim

RECORDED = recorded("optimizers", "optim")
NETWORK, ENTRIES = RECORDED["network"], RECORDED["entries"]
NAMES = ("kernel", "bias", "out", "shift")


def network():
    """The recorded inputs as arrays."""
    return {
        k: {n: jnp.asarray(np.asarray(x)) for n, x in v.items()}
        if isinstance(v, dict)
        else jnp.asarray(np.asarray(v))
        for k, v in NETWORK.items()
    }


def agree(got, wanted, what):
    for name, want in wanted.items():
        np.testing.assert_allclose(got[name], want, rtol=1e-10, err_msg=f"{name} {what}")


def forward(params, inputs):
    """A convolution whose window is the whole image [rows, 2, 2, 1], and a layer."""
    hidden = jnp.tanh(jnp.einsum("nhwi,hwio->no", inputs, params["kernel"]) + params["bias"])
    return hidden @ params["out"] + params["shift"]


def cross_entropy(params, inputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(forward(params, inputs), labels).mean()


def signs(t, loss, params, data, **_):
    """Hutchinson's estimate with the recorded signs."""
    z = {name: data["probes"][name][t] for name in params}
    diag = jax.tree.map(jnp.multiply, z, curvature.hvp(loss)(params, z))
    return {"curvature": curvature.Curvature(diag)}


def sampled(t, params, data, **_):
    """The authors square a gradient of labels that are drawn, after every second step."""
    x, y = data["inputs"][t - 1], data["sampled_labels"][t - 1]
    slope = jax.grad(cross_entropy)(params, x, y)
    diag = jax.tree.map(lambda g: len(y) * g**2, slope)
    return {"curvature": curvature.Curvature(diag, valid=t % 2 == 1)}


def oracle(loss, params, **_):
    return {"oracle": optim.local_oracle(loss, params)}


def distance(kind, t, loss, params, before, data):
    """How far the last step has moved the outputs."""
    x = data["inputs"][t]
    radius = optim.tram_distance(forward(params, x), forward(before, x), kind=kind).mean()
    return oracle(loss, params) | {"radius": radius}


def nothing(**_):
    return {}


# Options that JSON cannot hold: ASAM's authors leave biases unscaled, and the AdaHessian that they
# recommend averages over rows and windows.
GIVEN = {
    "asam": {"adaptive": {name: name in ("kernel", "out") for name in NAMES}},
    "adahessian rows": {"average": lambda shape: {2: (1,), 4: (0, 1)}.get(len(shape), ())},
}


def udim(learning_rate, momentum, rho, step_size, weight):
    """The direction of UDIM, and gradient descent with momentum."""
    sgd = optax.sgd(learning_rate, momentum)
    ascend = optim.scale_by_sam(rho)

    def hidden(p, x):
        return jnp.tanh(jnp.einsum("nhwi,hwio->no", x, p["kernel"]) + p["bias"])

    def inconsistency(p, x, perturbed, labels):
        h, far = hidden(p, x), hidden(p, perturbed)
        return optim.udim_inconsistency(h, forward(p, x), far, forward(p, perturbed), labels)

    def update(grads, state, p, x, y, oracle):
        perturbed = optim.udim_perturb(
            cross_entropy, p, x, y, rho=rho, step_size=step_size, over="batch"
        )
        flat, _ = ascend.update(grads, optax.EmptyState(), p, oracle=oracle)
        inner = jax.grad(inconsistency)(p, x, perturbed, y)
        total = jax.tree.map(lambda a, b: a + weight * b, flat, inner)
        return sgd.update(total, state, p)

    return optax.GradientTransformationExtraArgs(sgd.init, update)


def batch(t, loss, params, data, **_):
    return {"x": data["inputs"][t], "y": data["labels"][t]} | oracle(loss, params)


# What `update` takes beside the gradients.
EXTRA = {
    "adahessian": signs,
    "sophia_h": signs,
    "sophia_g": sampled,
    "sam": oracle,
    "asam": oracle,
    "udim": batch,
    "tram": functools.partial(distance, "forward"),
    "tram adaptive": functools.partial(distance, "symmetric"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_trajectory(name):
    """Names of optimizers, with what tells two entries of one apart after a space."""
    entry, short = ENTRIES[name], name.split()[0]
    options = entry["options"] | GIVEN.get(name, {})
    factory = udim if name == "udim" else getattr(optim, "sam" if short == "asam" else short)
    tx = factory(**options)
    extra = EXTRA.get(name, EXTRA.get(short, nothing))
    # The code for transformers has no rule for convolutions, so that the kernel stays as it is.
    moving = entry["params"]["2"].keys()

    with jax.enable_x64(True):
        data = network()
        held = {n: x for n, x in data["start"].items() if n not in moving}
        params = {n: x for n, x in data["start"].items() if n in moving}

        def step(carry, t):
            params, before, state = carry
            x, y = data["inputs"][t], data["labels"][t]
            loss = lambda p: cross_entropy(p | held, x, y)  # noqa: E731
            more = extra(t=t, loss=loss, params=params, before=before, data=data)
            updates, state = tx.update(jax.grad(loss)(params), state, params, **more)
            new = optax.apply_updates(params, updates)
            return (new, params, state), new

        run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(10))[1])
        got = run((params, params, tx.init(params)))
        for t, wanted in entry["params"].items():
            agree({n: x[int(t) - 1] for n, x in got.items()}, wanted, f"after {t} steps")


@pytest.mark.parametrize("name", RECORDED["federated"])
def test_federated(name):
    """Four clients of two batches each, of which two take part in a round."""
    entry = RECORDED["federated"][name]
    options = dict(entry["options"])
    rate, decay = options.pop("learning_rate"), options.pop("decay")
    tx = getattr(optim, name)(lambda t: rate * decay**t, **options)

    with jax.enable_x64(True):
        data = network()
        x, y = (data[k][:8].reshape(4, 2, 4, *data[k].shape[2:]) for k in ("inputs", "labels"))

        @jax.jit
        def play(state, sampled):
            batches = (x[sampled], y[sampled])
            return tx.update(lambda p, b: cross_entropy(p, *b), state, batches, sampled)

        state = tx.init(data["start"], clients=4)
        for t, sampled in enumerate(entry["sampled"], 1):
            state = play(state, jnp.asarray(sampled))
            agree(state.params, entry["params"].get(str(t), {}), f"after {t} rounds")


def test_saf():
    """Values and gradients of batches in shuffled order, against outputs of two epochs before."""
    entry = RECORDED["saf"]
    with jax.enable_x64(True):
        logits = np.asarray(entry["logits"])
        state = optim.saf_init(6, 3, lag=entry["lag"], dtype=jnp.float64)

        @jax.jit
        def both(state, x, index, epoch):
            def mean(x):
                values, new = optim.saf_loss(state, x, index, epoch, **entry["options"])
                return values.mean(), new

            return jax.value_and_grad(mean, has_aux=True)(x)

        for call in entry["calls"]:
            index = np.asarray(call["index"])
            (value, state), gradient = both(
                state, jnp.asarray(logits[call["epoch"], index]), index, call["epoch"]
            )
            if "value" in call:
                np.testing.assert_allclose(value, call["value"], rtol=1e-10)
                np.testing.assert_allclose(gradient, call["gradient"], rtol=1e-10, atol=1e-14)
