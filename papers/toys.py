"""What several reproductions share: digits, a small encoder and its training."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from papyrax.losses import key_queue_init, key_queue_push
from papyrax.numerics import safe_normalize

Layers = tuple[dict[str, Array], ...]


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images [1797, 64] with values from 0 to 1, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int32)


def digits_split(seed: int | Sequence[int], examples: int) -> tuple[np.ndarray, ...]:
    """Images and classes of digits drawn to train, so many, and those of the others to test."""
    images, labels = digits()
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:examples], order[examples:]
    return images[train], labels[train], images[test], labels[test]


def digits_halves() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All digits and their classes, and which of them are for training and which for tests."""
    images, labels = digits()
    return images, labels, np.arange(0, len(images), 2), np.arange(1, len(images), 2)


def mlp_init(key: Array, sizes: Sequence[int]) -> Layers:
    """Weights of a multilayer perceptron of the given sizes, He initialization."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(
        {"w": jax.random.normal(k, (a, b)) * jnp.sqrt(2 / a), "b": jnp.zeros(b)}
        for k, a, b in zip(keys, sizes[:-1], sizes[1:])
    )


def mlp(layers: Layers, x: Float[Array, "batch features"]) -> Float[Array, "batch outputs"]:
    """The perceptron with rectified linear units between its layers."""
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ layers[-1]["w"] + layers[-1]["b"]


def fit(
    loss: Callable[[Any, Array, Array], Float[Array, ""]],
    params: Any,
    key: Array,
    *,
    examples: int,
    batch: int,
    steps: int,
    learning_rate: float,
) -> Any:
    """`steps` of Adam on `loss(params, index, key)` with random batches `index` [batch].

    Traceable: `jax.vmap` it over keys and parameters for several seeds.
    """
    tx = optax.adam(learning_rate)

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        draw, noise = jax.random.split(key)
        index = jax.random.choice(draw, examples, (batch,), replace=False)
        updates, state = tx.update(jax.grad(loss)(params, index, noise), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(key, steps)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]


def fit_modules(
    make: Callable[[nnx.Rngs], nnx.Module],
    loss: Callable[..., Float[Array, ""]],
    evaluate: Callable[..., Any],
    seeds: Sequence[int],
    batches: Any,
    held_out: Any,
    *,
    learning_rate: float,
    weight_decay: float = 0.05,
) -> list[Any]:
    """Train a module of flax.nnx for every seed and evaluate it.

    AdamW with a tenth of the steps to warm up, then cosine decay. Statistics of batch normalization
    are carried along, and used in the evaluation. Steps are not scanned over: within a loop, XLA's
    convolutions on a CPU take several times as long.

    Args:
      make: from random keys to the module.
      loss: `loss(module, *batch)`.
      evaluate: `evaluate(module, *held)`, a pytree of arrays.
      seeds: the seeds of the parameters.
      batches: arrays [seeds, steps, ...], what `loss` is given.
      held_out: arrays [seeds, ...], what `evaluate` is given.
      learning_rate: its peak.
      weight_decay: of AdamW.

    Returns:
      What `evaluate` returns for each seed.
    """
    steps = len(batches[0][0])
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 10, steps)
    tx = optax.adamw(schedule, weight_decay=weight_decay)
    # The seeds' modules differ in their arrays alone, so all share two programs.
    graph = nnx.graphdef(make(nnx.Rngs(0)))

    @jax.jit
    def step(params: Any, rest: Any, state: Any, batch: Any) -> Any:
        def value(params: Any) -> tuple[Array, Any]:
            module = nnx.merge(graph, params, rest, copy=True)
            out = loss(module, *batch)
            return out, nnx.state(module, nnx.filterlib.Not(nnx.Param))

        grads, rest = jax.grad(value, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), rest, state

    @jax.jit
    def judge(params: Any, rest: Any, held: Any) -> Any:
        module = nnx.merge(graph, params, rest, copy=True)
        module.eval()
        return evaluate(module, *held)

    found = []
    for i, seed in enumerate(seeds):
        module = make(nnx.Rngs(seed))
        params, rest = nnx.state(module, nnx.Param), nnx.state(module, nnx.filterlib.Not(nnx.Param))
        state = tx.init(params)
        for j in range(steps):
            params, rest, state = step(params, rest, state, tuple(b[i, j] for b in batches))
        found.append(jax.device_get(judge(params, rest, tuple(h[i] for h in held_out))))
    return found


def digit_batches(
    seeds: Sequence[int], epochs: int, batch: int = 50
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Batches of two thirds of the digits for some epochs, and the other third, for every seed.

    Returns:
      (images [seeds, steps, batch, 8, 8], labels [seeds, steps, batch]), and (images
      [seeds, examples, 8, 8], labels [seeds, examples]) that no batch has.
    """
    x, y = digits()
    images = x.reshape(-1, 8, 8)
    train, test = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        seen, unseen = np.split(rng.permutation(len(y)), [2 * len(y) // 3])
        steps = len(seen) // batch
        order = [
            rng.permutation(seen)[: steps * batch].reshape(steps, batch) for _ in range(epochs)
        ]
        train.append(np.concatenate(order))
        test.append(unseen)
    ids, held = np.stack(train), np.stack(test)
    return (images[ids], y[ids]), (images[held], y[held])


def augment(key: Array, x: Float[Array, "batch 64"]) -> Float[Array, "batch 64"]:
    """A view of digits: shifted by up to one pixel, in another contrast, with noise."""
    shift, contrast, noise = jax.random.split(key, 3)
    moves = jax.random.randint(shift, (len(x), 2), 0, 3)
    wide = jnp.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    crop = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, at, (8, 8)))
    x = crop(wide, moves).reshape(-1, 64)
    x = x * jax.random.uniform(contrast, (len(x), 1), minval=0.7, maxval=1.3)
    return x + 0.1 * jax.random.normal(noise, x.shape)


class ContrastStep(NamedTuple):
    """What a loss of `momentum_contrast` is given at a step.

    Attributes:
      view: augmented images [batch, 64], to be embedded by what is trained.
      keys: unit embeddings of another view by the moving average [batch, features].
      queue: unit embeddings of earlier keys [size, features].
      examples: which these are [batch].
      key: a random key of the step.
    """

    view: Array
    keys: Array
    queue: Array
    examples: Array
    key: Array


def momentum_contrast(
    loss: Callable[[Any, Any, ContrastStep], tuple[Float[Array, ""], tuple[Any, Any]]],
    params: Any,
    state: Any,
    key: Array,
    images: Float[Array, "examples 64"],
    *,
    size: int,
    steps: int,
    batch: int = 128,
    learning_rate: float = 2e-3,
    decay: float = 0.99,
) -> tuple[Any, Any, Any]:
    """`steps` of Adam on a loss of views of digits, with keys by a moving average of the encoder.

    `loss(params, state, step) -> (value, (state, extra))`, where `params["encoder"]` is a
    perceptron. Returns the parameters, the state and what was extra at all steps.
    """
    tx = optax.adam(learning_rate)
    start, run = jax.random.split(key)
    features = params["encoder"][-1]["b"].shape[-1]

    def step(carry: Any, key: Array) -> tuple[Any, Any]:
        params, teacher, queue, state, opt = carry
        draw, first, second, rest = jax.random.split(key, 4)
        index = jax.random.choice(draw, len(images), (batch,), replace=False)
        keys = safe_normalize(mlp(teacher, augment(second, images[index])))
        seen = ContrastStep(augment(first, images[index]), keys, queue.keys, index, rest)
        grads, (state, extra) = jax.grad(loss, has_aux=True)(params, state, seen)
        updates, opt = tx.update(grads, opt)
        params = optax.apply_updates(params, updates)
        teacher = optax.incremental_update(params["encoder"], teacher, 1 - decay)
        return (params, teacher, key_queue_push(queue, keys), state, opt), extra

    queue = key_queue_init(start, size=size, features=features)
    carry = (params, params["encoder"], queue, state, tx.init(params))
    (params, _, _, state, _), extra = jax.lax.scan(step, carry, jax.random.split(run, steps))
    return params, state, extra


def nearest_neighbour_accuracy(
    embeddings: Float[np.ndarray, "examples features"],
    labels: Int[np.ndarray, "examples"],
    train: np.ndarray,
    test: np.ndarray,
) -> float:
    """Share of test examples whose most similar training example, by cosine, has their class."""
    z = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    nearest = np.argmax(z[test] @ z[train].T, 1)
    return float(np.mean(labels[train][nearest] == labels[test]))


def probe(
    features: np.ndarray, labels: Int[np.ndarray, "examples"], train: np.ndarray, test: np.ndarray
) -> float:
    """Test accuracy of logistic regression on standardized features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return float(model.fit(features[train], labels[train]).score(features[test], labels[test]))
