"""Value and gradient of a linear layer's cross-entropy, in chunks and with the logits in memory.

    python benchmarks/large_vocabulary.py [--batch N] [--features N] [--classes N] [--chunk N]
        [--repeats N]

Both in one process, alternated, medians of wall time. The memory is what XLA allocates beside
inputs and results, as its compiler reports it.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papyrax.losses import linear_softmax_cross_entropy


def dense(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy with the logits in memory."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x @ w, y))


def chunked(x: jax.Array, w: jax.Array, y: jax.Array, chunk: int) -> jax.Array:
    """The same in chunks of the vocabulary."""
    return jnp.mean(linear_softmax_cross_entropy(x, w, y, chunk_size=chunk))


def seconds(fn: Callable[..., Any], *args: Any) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(fn(*args))
    return time.perf_counter() - start


def main() -> None:
    """Compile both, alternate them and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--classes", type=int, default=50_000)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(a.batch, a.features)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(a.features, a.classes)) / a.features**0.5, jnp.float32)
    y = jnp.asarray(rng.integers(a.classes, size=a.batch))
    losses = {"dense": dense, "chunked": functools.partial(chunked, chunk=a.chunk)}
    compiled = {
        name: jax.jit(jax.value_and_grad(loss, (0, 1))).lower(x, w, y).compile()
        for name, loss in losses.items()
    }
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for run in range(a.repeats + 1):
        for name, fn in compiled.items():
            took = seconds(fn, x, w, y)
            if run:  # the first one warms up
                times[name].append(took)
    print(f"batch {a.batch}, features {a.features}, classes {a.classes}, chunk {a.chunk}, float32")
    medians = {name: statistics.median(t) for name, t in times.items()}
    memory = {name: fn.memory_analysis().temp_size_in_bytes for name, fn in compiled.items()}
    for name in compiled:
        print(f"{name:8} {medians[name]:7.3f} s  {memory[name] / 2**20:8.1f} MiB")
    print(
        f"chunked takes {medians['chunked'] / medians['dense']:.2f} times the time of dense "
        f"and {memory['dense'] / memory['chunked']:.1f} times less memory"
    )


if __name__ == "__main__":
    main()
