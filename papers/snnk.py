"""Scalable Neural Network Kernels.

The problem. A layer f(W x + b) mixes inputs and parameters inside f, and has as many parameters as
inputs times outputs.

The idea. Write it as a dot product Phi(x) . Psi(w, b) of m random features, in which inputs and
parameters meet only there. For an f with a Fourier transform F,

    f(w.x + b) = E_xi [A cos(2 pi xi (w.x + b) + theta)],   A exp(i theta) = F(xi) / p(xi)
    exp(2 pi i xi w.x) = E_g [phi(x) phi(w)]
    phi(z) = exp(a g.z - a^2 |z|^2 / 2),   a^2 = 2 pi i xi,   g ~ N(0, 1)

(universal random features), and for rectified linear units phi(z) = max(G z, 0) / sqrt(m). Training
Psi itself, from Psi(W_0), leaves m parameters an output, whatever the number of inputs, and an
output that is linear in its parameters.

What the authors measured. Approximation errors of layers, and adapters and pooler layers of BERT
and of vision transformers with up to five times fewer trainable parameters at competitive
accuracy.

What is measured here.

- The estimate of cos(w.x) for random unit vectors in 8 dimensions with 1e3 to 1e5 features. Its
  error must fall as one over the root of their number. The baseline draws g from the uniform
  distribution, as the test in the authors' repository does: that estimates something else, and the
  error stays.
- On digits, through 256 frozen random features: a layer of 64 units between them and a linear
  head, dense with rectified linear units or as 64 trained random features an output, which is a
  quarter of the parameters.

What does not carry over. Universal random features are an estimate whose variance grows
exponentially with |x| and |w|; the ReLU features are those one trains. As in the authors' code no
nonlinearity follows the dot product, so at the start the layer is an arc-cosine kernel, not the
dense layer. With independent instead of orthogonal projections it is 1 to 2 points less accurate on
tuning seeds, about 0.04 below the dense layer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from papyrax.attention import random_projections, snnk_features, snnk_relu_features, snnk_weights
from papyrax.papers import (
    Budget,
    Claim,
    Figure,
    Line,
    Measure,
    Paper,
    Progress,
    Result,
    seed_range,
    silent,
    toys,
)

PAPER = Paper(
    slug="snnk",
    title="Scalable Neural Network Kernels",
    authors="A. Sehanobish, K. Choromanski, Y. Zhao, A. Dubey, V. Likhosherstov",
    year=2023,
    arxiv="2310.13225",
    area="layers",
    idea=(
        "A feed-forward layer becomes a dot product of random features of its input and of its "
        "weights; the latter are trained, and their number does not depend on the inputs'."
    ),
    formula=(
        "f(w.x + b) = E Phi(x) . Psi(w, b)\n"
        "phi(z) = exp(a g.z - a^2 |z|^2 / 2) / sqrt(m),  a^2 = 2 pi i xi;  "
        "ReLU: max(G z, 0) / sqrt(m)"
    ),
    parts=(
        "papyrax.attention.snnk_features",
        "papyrax.attention.snnk_weights",
        "papyrax.attention.snnk_relu_features",
        "papyrax.attention.random_projections",
        "papyrax.layers.SNNKLinear",
    ),
    claim=Claim(
        text=(
            "Random features estimate a layer without bias, and a layer trained in them needs "
            "several times fewer parameters at competitive accuracy."
        ),
        setup=(
            "cos(w.x) for 60 pairs of unit vectors in 8 dimensions, new features for each. "
            "Digits: 256 frozen tanh features, a layer of 64 units (orthogonal projections), a "
            "linear head; 1200 images in training, 480 steps of Adam with 100 of them, 0.003 "
            "(SNNK) and 0.001 (dense, 4 times the parameters)."
        ),
        accept=(
            "Mean error of the cosine <= 0.02 at 1e5 features, 2.5 to 4 times smaller a decade on "
            "every seed, and >= 0.1 with uniform g. Accuracy on digits >= dense - 0.04 on every "
            "seed with a quarter of the layer's parameters."
        ),
        method="SNNK",
        baseline="dense layer",
    ),
    venue="ICLR 2024",
    code="arijitthegame/neural-network-kernels",
)

DIM, COUNTS = 8, (1_000, 10_000, 100_000)
FROZEN, UNITS, FEATURES, STEPS = 256, 64, 64, 480


@jax.jit
def cosine_errors(keys: Array) -> Float[Array, "pairs kinds counts"]:
    """|estimate - cos(w.x)| of one pair a key, with normal and with uniform projections."""

    def one(key: Array) -> Array:
        at, draw = jax.random.split(key)
        x, w = jax.random.normal(at, (2, 1, DIM))
        x, w = (v / jnp.linalg.norm(v) for v in (x, w))
        shape = (max(COUNTS), DIM)
        ones = jnp.ones(max(COUNTS))
        errors = []
        for g in (jax.random.normal(draw, shape), jax.random.uniform(draw, shape)):
            phi = snnk_features(x, g, ones / (2 * jnp.pi))
            psi = snnk_weights(w, g, ones / (2 * jnp.pi), ones, 0 * ones)
            # The mean over the first m features, for every m from one draw.
            terms = jnp.sum((phi * psi).reshape(2, -1), axis=0) * max(COUNTS)
            means = jnp.stack([jnp.mean(terms[:m]) for m in COUNTS])
            errors.append(jnp.abs(means - jnp.cos(jnp.sum(x * w))))
        return jnp.stack(errors)

    return jax.lax.map(one, keys)


def train(key: Array, order: Array, dense: bool, steps: int) -> Float[Array, ""]:
    """Test accuracy on digits of a dense layer or of one in random features."""
    images, labels = (jnp.asarray(x) for x in toys.digits())
    frozen, first, head, project, fitting = jax.random.split(key, 5)
    x = jnp.tanh((2 * images - 1) @ jax.random.normal(frozen, (64, FROZEN)) / 8)
    train_x, train_y = x[order[:1200]], labels[order[:1200]]
    start = jax.random.normal(first, (UNITS, FROZEN)) * jnp.sqrt(2 / FROZEN)
    g = random_projections(project, FEATURES, FROZEN, orthogonal=True)
    layer = start if dense else snnk_relu_features(start, g)
    inputs = train_x if dense else snnk_relu_features(train_x, g)
    params = {
        "layer": layer,
        "head": jax.random.normal(head, (UNITS, 10)) / jnp.sqrt(UNITS),
        "bias": jnp.zeros(10),
    }
    if dense:
        params["shift"] = jnp.zeros(UNITS)

    def logits(params: Any, x: Array) -> Array:
        hidden = x @ params["layer"].T
        hidden = jax.nn.relu(hidden + params["shift"]) if dense else hidden
        return hidden @ params["head"] + params["bias"]

    def loss(params: Any, index: Array, _: Array) -> Array:
        out = logits(params, inputs[index])
        return optax.softmax_cross_entropy_with_integer_labels(out, train_y[index]).mean()

    rate = 1e-3 if dense else 3e-3
    params = toys.fit(
        loss, params, fitting, examples=1200, batch=100, steps=steps, learning_rate=rate
    )
    test = x[order[1200:]] if dense else snnk_relu_features(x[order[1200:]], g)
    return jnp.mean(logits(params, test).argmax(-1) == labels[order[1200:]])


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" trains and estimates four times as much."""
    all_seeds, times = seed_range(seed, seeds), 4 if budget == "full" else 1
    errors = []
    for i, s in enumerate(all_seeds):
        progress(0.5 * i / seeds, f"estimates of the cosine, seed {s}")
        got = cosine_errors(jax.random.split(jax.random.key(s), 60 * times))
        errors.append(np.asarray(got, np.float64).mean(0))
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])
    orders = jnp.stack([np.random.default_rng(s).permutation(1797) for s in all_seeds])
    accuracy = {}
    for i, name in enumerate(("SNNK", "dense")):
        progress(0.5 + i / 4, f"digits, {name}, all seeds")
        run = jax.jit(jax.vmap(lambda k, o, n=name: train(k, o, n == "dense", STEPS * times)))
        accuracy[name] = np.asarray(run(keys, orders), np.float64)
    progress(1.0, "done")
    return _result(budget, all_seeds, np.stack(errors), accuracy)


def _result(
    budget: Budget,
    seeds: tuple[int, ...],
    errors: Float[np.ndarray, "seeds kinds counts"],
    accuracy: dict[str, np.ndarray],
) -> Result:
    ours, uniform = errors[:, 0], errors[:, 1]
    decade = np.sqrt(ours[:, 0] / ours[:, -1])
    parameters = UNITS * FEATURES / (UNITS * (FROZEN + 1))
    measures = (
        Measure(
            name="mean error of cos(w.x) with 1e5 features (baseline: uniform g)",
            method=tuple(ours[:, -1]),
            baseline=tuple(uniform[:, -1]),
            accept="normal g <= 0.02 and uniform g >= 0.1 on every seed",
            holds=bool(np.all(ours[:, -1] <= 0.02) and np.all(uniform[:, -1] >= 0.1)),
            better="lower",
        ),
        Measure(
            name="by how much the error falls for ten times the features",
            method=tuple(decade),
            accept="2.5 to 4 on every seed; the root of ten is 3.16",
            holds=bool(np.all((decade >= 2.5) & (decade <= 4))),
            better="equal",
        ),
        Measure(
            name="test accuracy on digits with a quarter of the layer's parameters",
            method=tuple(accuracy["SNNK"]),
            baseline=tuple(accuracy["dense"]),
            accept="SNNK >= dense - 0.04 on every seed",
            holds=bool(parameters <= 0.25 and np.all(accuracy["SNNK"] >= accuracy["dense"] - 0.04)),
        ),
    )
    lines = tuple(
        Line(name, COUNTS, tuple(map(tuple, each)))
        for name, each in (("normal g", ours), ("uniform g", uniform))
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure(
            title="Random features estimate cos(w.x)",
            x_label="features",
            y_label="mean absolute error",
            lines=lines,
            x_log=True,
            y_log=True,
        ),
        notes=f"Parameters of the layer: {100 * parameters:.1f} % of the dense one's.",
    )
