"""Toward Understanding Why Adam Converges Faster Than SGD for Transformers.

The problem. Transformers train far faster with Adam than with SGD, whatever the learning rate, and
worst-case theory does not say why.

The idea. How far a step may go depends on the curvature along it, its directional sharpness, and
not on the largest curvature there is. SGD steps along directions that are much sharper than those
of adaptive methods, and a few coordinates are to blame: clip the largest entries of the gradient
and the direction becomes flat, the step can be longer, and SGD trains almost as fast as Adam.

    f(x - r u) = f(x) - r g'u + r^2/2 u'Hu,   S(u) = u'Hu / u'u
    clip: u_i <- sign(u_i) min(|u_i|, c),   c = |u| sorted downwards [int(n fraction)]

What the authors measured. On translation, language modelling and image tasks the sharpness along
SGD's updates is larger than along those of Adam by factors of up to several hundred; clipping a
tenth of the coordinates (up to half) lowers it and improves SGD, and often Adam as well.

What is measured here. A language model, one causal transformer block of width 32 with one head, on
words and punctuation of Python's own library (512 tokens, contexts of 16), batches of 64. (a)
Directional sharpness along the gradient, the clipped gradient and Adam's update, at one point:
after 50 steps of Adam, on a batch of 512. (b) Held-out loss after 300 steps of SGD and of clipped
SGD.

What to know. Learning rates were chosen on tuning seeds 100 and 101 from 0.1, 0.3, 1, 3 for SGD,
1, 3, 10 for clipped SGD and 0.001, 0.003, 0.01 for Adam; "full" trains with all of them. On those
seeds SGD ended at 3.27 and 3.26 with its best rate, and did not train at 1.5 or above; clipped it
ended at 3.17 and 3.14, with half of the coordinates clipped at about 3.12, and Adam at 3.07 and
3.02 with its best rate.

What did not reproduce. On seeds 0 to 2 clipping a tenth lowers the held-out loss by 0.06, 0.11 and
0.12, which is 0.097 on average and not the 0.1 that was asked for; the sharpness holds.
"""

import functools
import pathlib
import re
import sysconfig
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from papyrax.curvature import directional_sharpness
from papyrax.optim import coordinate_clip
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
)

PAPER = Paper(
    slug="directional_sharpness_clipping",
    title="Toward Understanding Why Adam Converges Faster Than SGD for Transformers",
    authors="Y. Pan, Y. Li",
    year=2023,
    arxiv="2306.00204",
    area="optimization",
    idea=(
        "SGD's steps point where the loss is sharp, because of a few coordinates; clip those and "
        "the step can be as long as Adam's."
    ),
    formula=(
        "S(u) = u'Hu / u'u\nu_i <- sign(u_i) min(|u_i|, c),  c = |u| sorted downwards [int(n q)]"
    ),
    parts=("papyrax.curvature.directional_sharpness", "papyrax.optim.coordinate_clip"),
    claim=Claim(
        text=(
            "The update of SGD is far sharper than Adam's; clipping a small share of its "
            "coordinates lowers the sharpness and trains faster."
        ),
        setup=(
            "Language model of one transformer block, width 32, 512 words of Python's library, "
            "contexts of 16, batches of 64; sharpness after 50 steps of Adam; SGD and SGD with a "
            "tenth of the coordinates clipped, 300 steps at learning rates of tuning seeds."
        ),
        accept=(
            "Sharpness of the gradient on every seed >= 1.8 times that with a tenth clipped, 4 "
            "times that with half clipped and 5 times that of Adam's update; held-out loss of "
            "clipped SGD lower than SGD's on every seed and by 0.1 on average."
        ),
        method="clipped SGD",
        baseline="SGD",
    ),
    venue="arXiv",
    code="panyan7/adam-vs-sgd",
)

WORDS, WIDTH, CONTEXT, BATCH = 512, 32, 16, 64
RATES = {"clipped SGD": (1.0, 3.0, 10.0), "SGD": (0.1, 0.3, 1.0, 3.0), "Adam": (0.001, 0.003, 0.01)}
CHOSEN = {"clipped SGD": 3.0, "SGD": 1.0, "Adam": 0.003}
"""The learning rates of the tuning seeds."""
MODULES = (
    "abc argparse ast bisect calendar cmd code codecs configparser contextlib copy csv "
    "dataclasses datetime difflib enum fractions functools glob hashlib heapq inspect queue random"
)

Params = dict[str, Array]
Tokens = Int[Array, "batch length"]


@functools.cache
def corpus() -> np.ndarray:
    """Words and punctuation of some of Python's modules by their rank, the rarest as 0."""
    folder = pathlib.Path(sysconfig.get_paths()["stdlib"])
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (folder / f"{name}.py" for name in MODULES.split())
        if path.exists()
    )
    words = np.array(re.findall(r"\w+|[^\w\s]|\n", text))
    names, index, counts = np.unique(words, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), np.int32)
    rank[np.lexsort((names, -counts))] = np.arange(1, len(names) + 1)
    return np.where(rank < WORDS, rank, 0)[index]


def make_data(seed: int, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Batches [batches, BATCH, CONTEXT + 1] of the first nine tenths, and 512 of the last."""
    tokens, rng = corpus(), np.random.default_rng(seed)
    border = int(0.9 * len(tokens))
    starts = rng.integers(0, border - CONTEXT, (batches, BATCH))
    held = rng.integers(border, len(tokens) - CONTEXT, 512)
    offsets = np.arange(CONTEXT + 1)
    return tokens[starts[..., None] + offsets], tokens[held[:, None] + offsets]


def init(key: Array) -> Params:
    """Weights of the language model."""
    shapes = {
        "embed": (WORDS, WIDTH),
        "position": (CONTEXT, WIDTH),
        "query": (WIDTH, WIDTH),
        "key": (WIDTH, WIDTH),
        "value": (WIDTH, WIDTH),
        "out": (WIDTH, WIDTH),
        "up": (WIDTH, 4 * WIDTH),
        "down": (4 * WIDTH, WIDTH),
        "head": (WIDTH, WORDS),
    }
    scale = {"embed": 0.1, "position": 0.1}
    return {
        name: jax.random.normal(k, shape) * scale.get(name, shape[0] ** -0.5)
        for k, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items())
    } | {name: jnp.ones(WIDTH) for name in ("gain1", "gain2", "gain3")}


def normalize(x: Float[Array, "*batch width"], gain: Float[Array, "width"]) -> Array:
    """Layer normalization without an offset."""
    x = x - x.mean(-1, keepdims=True)
    return gain * x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)


def loss(p: Params, tokens: Tokens) -> Float[Array, ""]:
    """Cross-entropy of the next word."""
    x = p["embed"][tokens[:, :-1]] + p["position"]
    h = normalize(x, p["gain1"])
    q, k, v = ((h @ p[name])[:, :, None] for name in ("query", "key", "value"))
    x = x + jax.nn.dot_product_attention(q, k, v, is_causal=True)[:, :, 0] @ p["out"]
    x = x + jax.nn.gelu(normalize(x, p["gain2"]) @ p["up"]) @ p["down"]
    logits = normalize(x, p["gain3"]) @ p["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def optimizer(name: str, learning_rate: Any) -> optax.GradientTransformation:
    """One of the optimizers compared."""
    if name == "clipped SGD":
        return optax.chain(coordinate_clip(0.1), optax.sgd(learning_rate))
    return optax.sgd(learning_rate) if name == "SGD" else optax.adam(learning_rate)


@functools.partial(jax.jit, static_argnames=("name",))
def train(
    params: Params,
    batches: Int[Array, "steps batch length"],
    held: Tokens,
    learning_rate: Array,
    *,
    name: str,
) -> tuple[Params, Any, Float[Array, "steps"], Float[Array, ""]]:
    """Weights, the optimizer's state, losses of the batches and the held-out loss."""
    tx = optimizer(name, learning_rate)

    def step(carry: Any, tokens: Tokens) -> tuple[Any, Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, tokens)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, state), values = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params, state, values, loss(params, held)


@jax.jit
def sharpness(params: Params, state: Any, tokens: Tokens) -> dict[str, Float[Array, ""]]:
    """Directional sharpness of each optimizer's step at these weights.

    `state` is that of Adam, whose step has moments of the past; the others have none.
    """
    grads = jax.grad(loss)(params, tokens)
    directions = {"SGD": grads}
    for share in (0.1, 0.5):
        tx = coordinate_clip(share)
        directions[f"clip {share:.0%}"] = tx.update(grads, tx.init(params))[0]
    directions["Adam"] = optimizer("Adam", 1.0).update(grads, state, params)[0]
    along = directional_sharpness(loss)
    return {name: along(params, u, tokens) for name, u in directions.items()}


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains with every learning rate and keeps the best of each."""
    all_seeds = seed_range(seed, seeds)
    sharp: dict[str, list[float]] = {}
    final: dict[str, list[float]] = {name: [] for name in RATES}
    curves: dict[str, list[np.ndarray]] = {name: [] for name in RATES}
    for i, s in enumerate(all_seeds):
        batches, held = make_data(s, 300)
        start = init(jax.random.key(s))
        progress(i / seeds, f"seed {s}: sharpness")
        rate = jnp.asarray(CHOSEN["Adam"])
        params, state, *_ = train(start, batches[:50], held, rate, name="Adam")
        for name, value in sharpness(params, state, held).items():
            sharp.setdefault(name, []).append(float(value))
        for j, (name, rates) in enumerate(RATES.items()):
            progress((i + (j + 1) / 4) / seeds, f"seed {s}: {name}")
            tried = rates if budget == "full" else (CHOSEN[name],)
            runs = [train(start, batches, held, jnp.asarray(r), name=name) for r in tried]
            best = min(runs, key=lambda run: np.nan_to_num(float(run[3]), nan=np.inf))
            final[name].append(float(best[3]))
            curves[name].append(np.asarray(best[2], float))
    progress(1.0, "done")

    measures = [
        Measure(
            name=f"directional sharpness after 50 steps, {name} (against SGD)",
            method=tuple(sharp[name]),
            baseline=tuple(sharp["SGD"]),
            accept=f"SGD >= {factor} times it on every seed",
            # A direction of negative curvature would meet the rule whatever SGD's is.
            holds=all(a > 0 and b >= factor * a for a, b in zip(sharp[name], sharp["SGD"])),
            better="lower",
        )
        for name, factor in (("clip 10%", 1.8), ("clip 50%", 4), ("Adam", 5))
    ]
    measures.append(
        Measure(
            name="held-out loss after 300 steps",
            method=tuple(final["clipped SGD"]),
            baseline=tuple(final["SGD"]),
            accept="lower on every seed and by 0.1 on average",
            holds=all(a < b for a, b in zip(final["clipped SGD"], final["SGD"]))
            and float(np.mean(final["SGD"]) - np.mean(final["clipped SGD"])) >= 0.1,
            better="lower",
        )
    )
    figure = Figure(
        title="Training a small transformer",
        x_label="step",
        y_label="loss of the batch, mean of ten",
        lines=tuple(
            Line(
                name,
                tuple(range(5, 300, 10)),
                tuple(tuple(c.reshape(-1, 10).mean(1).tolist()) for c in curves[name]),
            )
            for name in RATES
        ),
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=all_seeds,
        measures=tuple(measures),
        figure=figure,
        notes=f"Held-out loss of Adam: {', '.join(f'{v:.2f}' for v in final['Adam'])}.",
    )
