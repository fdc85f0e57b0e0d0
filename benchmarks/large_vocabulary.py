"""Value and gradient of losses over a linear layer, in chunks and with the logits in memory.

    python benchmarks/large_vocabulary.py [--batch N] [--features N] [--classes N] [--chunk N]
        [--repeats N]

Cross-entropy (also tokamax's, where it is installed), the Z-loss and LDR-KL, and a step of SGD
under the Z-loss, dense and in factors. All in one process, in turn, medians of processor time. The
memory is what XLA allocates beside inputs and results, as its compiler reports it.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papyrax import losses

try:
    import tokamax
except ImportError:
    tokamax = None

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def of_logits(loss: Callable[..., jax.Array]) -> Loss:
    """The mean of a loss with the logits in memory."""
    return lambda x, w, y: jnp.mean(loss(x @ w, y))


def in_chunks(loss: Callable[..., jax.Array], chunk: int) -> Loss:
    """The mean of a loss in chunks of the vocabulary."""
    return lambda x, w, y: jnp.mean(loss(x, w, y, chunk_size=chunk))


def of_tokamax(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy by tokamax; its kernel is for TPUs, elsewhere it makes the logits."""
    return tokamax.linear_softmax_cross_entropy_loss(x, y, w, reduction="mean")


def value_and_grad(loss: Loss) -> Callable[..., Any]:
    """Value, and gradients by inputs and weights."""
    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def dense_step(x: jax.Array, w: jax.Array, y: jax.Array) -> Any:
    """Plain SGD under the Z-loss."""
    value, (by_x, by_w) = jax.value_and_grad(of_logits(losses.z_loss), (0, 1))(x, w, y)
    return value, by_x, w - 0.1 * by_w


def factored_step(x: jax.Array, state: losses.FactoredLayer, y: jax.Array) -> Any:
    """The same in factors."""
    values, by_x, state = losses.factored_spherical_step(state, x, y, learning_rate=0.1)
    return jnp.mean(values), by_x, state


def seconds(fn: Callable[..., Any], x: jax.Array, w: Any, y: jax.Array, steps: bool) -> Any:
    """Processor time of one call, and the weights for the next."""
    start = time.process_time()
    out = jax.block_until_ready(fn(x, w, y))
    return time.process_time() - start, out[2] if steps else w


def compare(title: str, fns: dict[str, Any], x: jax.Array, w: Any, y: jax.Array, n: int) -> None:
    """Print the time and memory of functions of (x, w, y), the first of which is the baseline.

    Functions that are given with weights of their own are steps: they return the next weights, and
    may reuse the memory of the old ones.
    """
    weights = {name: fn[1] if isinstance(fn, tuple) else w for name, fn in fns.items()}
    steps = {name: isinstance(fn, tuple) for name, fn in fns.items()}
    compiled = {
        name: (fn[0] if steps[name] else fn).lower(x, weights[name], y).compile()
        for name, fn in fns.items()
    }
    times: dict[str, list[float]] = {name: [] for name in fns}
    for run in range(n + 1):
        for name, fn in compiled.items():
            took, weights[name] = seconds(fn, x, weights[name], y, steps[name])
            if run:  # the first one warms up
                times[name].append(took)
    first = next(iter(fns))
    print(title)
    for name, fn in compiled.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times[first]))
        memory = fn.memory_analysis().temp_size_in_bytes / 2**20
        took = statistics.median(times[name])
        print(f"  {name:9} {took:8.4f} s  {memory:8.1f} MiB  {ratio:6.2f} times {first}")


def main() -> None:
    """Compile all, take them in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--classes", type=int, default=50_000)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    a = parser.parse_args()
    del sys.argv[1:]  # tokamax would read them as its own
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(a.batch, a.features)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(a.features, a.classes)) / a.features**0.5, jnp.float32)
    y = jnp.asarray(rng.integers(a.classes, size=a.batch), jnp.int32)
    print(f"batch {a.batch}, features {a.features}, classes {a.classes}, chunk {a.chunk}, float32")

    pairs = {
        "cross-entropy": (
            optax.softmax_cross_entropy_with_integer_labels,
            losses.linear_softmax_cross_entropy,
        ),
        "Z-loss": (losses.z_loss, losses.linear_spherical_loss),
        "LDR-KL": (losses.ldr_kl, losses.linear_ldr_kl),
    }
    for title, (full, linear) in pairs.items():
        fns = {"dense": of_logits(full), "chunked": in_chunks(linear, a.chunk)}
        if title == "cross-entropy" and tokamax is not None:
            fns["tokamax"] = of_tokamax
        compare(title, {k: value_and_grad(f) for k, f in fns.items()}, x, w, y, a.repeats)
    donating = functools.partial(jax.jit, donate_argnums=1)
    fns = {
        "dense": (donating(dense_step), jnp.copy(w)),
        "factored": (donating(factored_step), losses.factored_layer_init(w)),
    }
    compare("Z-loss, a step of SGD", fns, x, w, y, a.repeats)


if __name__ == "__main__":
    main()
