"""Small runs for the tests of the engine, and parts that are named by their dotted path."""

import multiprocessing
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papyrax.train import config as C
from papyrax.train.data import Spec

BUILD = pathlib.Path(__file__).parents[1] / "build"
# For this process and for those that are started from it.
os.environ.setdefault("PAPYRAX_DATA", str(BUILD / "data"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(BUILD / "jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

MLP = C.Part("mlp", {"widths": [16]})
VIT = C.Part("vit", {"patch": 4, "width": 16, "layers": 2, "heads": 8, "scan": True})


def small(**changes: Any) -> C.Config:
    """A run of seconds on one device."""
    base: dict[str, Any] = {
        "model": MLP,
        "data": C.Data("digits", batch_size=32),
        "mesh": C.Mesh(data=1),
        "eval": C.Eval(every=10, batches=2),
        "checkpoint": C.Checkpoint(every=5),
        "log_every": 1,
        "steps": 20,
    }
    return C.Config(**{**base, **changes})


def digits(split: str = "train") -> Spec:
    """The spec of digits, without opening the set."""
    features = {
        "inputs": jax.ShapeDtypeStruct((8, 8, 1), np.float32),
        "labels": jax.ShapeDtypeStruct((), np.int32),
    }
    return Spec("digits", split, "classification", 1438, features, num_classes=10)


def batch(size: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of noise in the shape of digits."""
    rng = np.random.default_rng(seed)
    return {
        "inputs": rng.normal(size=(size, 8, 8, 1)).astype(np.float32),
        "labels": rng.integers(0, 10, size).astype(np.int32),
    }


class Pair(NamedTuple):
    """A loss with a state."""

    init: Any
    apply: Any


def _init(num_classes: int) -> dict[str, jax.Array]:
    return {"prior": jnp.zeros(num_classes), "count": jnp.zeros((), jnp.int32)}


def _apply(
    state: dict[str, jax.Array],
    logits: jax.Array,
    labels: jax.Array,
    *,
    momentum: float = 0.9,
    strength: float = 0.1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    mean = jax.lax.stop_gradient(jax.nn.softmax(logits).mean(0))
    prior = momentum * state["prior"] + (1 - momentum) * mean
    values = optax.softmax_cross_entropy_with_integer_labels(logits + strength * prior, labels)
    return values, {"prior": prior, "count": state["count"] + 1}


moving_prior = Pair(_init, _apply)
"""Cross-entropy on logits shifted by a moving mean of the predictions."""


def scale_by_root_curvature(eps: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """Gradients over the root of the last diagonal that was given."""

    def update(updates: Any, state: Any, params: Any = None, *, curvature: Any = None, **_: Any):
        if curvature is not None and curvature.valid is not False:
            state = jax.tree.map(jnp.abs, curvature.diag)
        return jax.tree.map(lambda g, h: g / (jnp.sqrt(h) + eps), updates, state), state

    return optax.GradientTransformationExtraArgs(optax.tree.zeros_like, update)


def root_newton(learning_rate: Any, eps: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """An optimizer that reads curvature."""
    return optax.chain(scale_by_root_curvature(eps), optax.scale_by_learning_rate(learning_rate))


def run_config(config: C.Config, stderr: str) -> None:
    """The body of a process that trains; its standard error goes to a file."""
    from papyrax.train import fit

    with open(stderr, "ab") as file:
        os.dup2(file.fileno(), 2)
    fit(config)


def process(config: C.Config, stderr: pathlib.Path) -> Any:
    """A process of its own that trains, forked from a server that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine", "papyrax.train.loop", "tensorflow_datasets", "grain"])
    child = context.Process(target=run_config, args=(config, str(stderr)))
    child.start()
    return child
