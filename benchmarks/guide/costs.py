"""Costs of losses: value and gradient, in turn with cross-entropy."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .entries import CLASSIFICATION, Choice, Regression
from .properties import UNKNOWN


def timed(entry: Choice | Regression) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Compiled value and gradient, and its arguments: 4096 rows of 1000."""
    batch, classes = 4096, 1000
    rng = np.random.default_rng(0)
    z, other = (jnp.asarray(rng.normal(size=(batch, classes)), jnp.float32) for _ in range(2))
    y = jnp.asarray(rng.integers(classes, size=batch), jnp.int32)
    if isinstance(entry, Regression):
        target = z[:, 0] if entry.bags else other
        fn, args = (lambda z, t: entry.call(z, t).sum()), (z, target)
        return jax.jit(jax.value_and_grad(fn)), args
    if not entry.cost:
        return None
    if callable(entry.cost):
        z, other = (-jnp.abs(x) for x in (z, other))  # log-probabilities
        return jax.jit(jax.value_and_grad(lambda w, l: entry.cost(w, l).sum(), (0, 1))), (z, other)
    if entry.scores == 1:
        z, y = z.reshape(-1, 1), jnp.asarray(rng.integers(2, size=batch * classes), jnp.int32)
    elif np.isfinite(entry.high):
        z = jnp.tanh(z)
    if entry.state is not None:
        fn = jax.value_and_grad(lambda z, y, state: entry.call(state, z, y).sum())
        return jax.jit(fn), (z, y, entry.state(z, y))
    return jax.jit(jax.value_and_grad(lambda z, y: entry.call(z, y).sum())), (z, y)


def seconds(fn: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """Processor time of one call, which other programs disturb less than wall time."""
    start = time.process_time()
    jax.block_until_ready(fn(*args))
    return time.process_time() - start


def costs(entries: tuple[Any, ...], repeats: int) -> dict[str, str]:
    """Time of each loss over that of optax's cross-entropy, the two in turn."""
    base = timed(CLASSIFICATION[0])
    assert base is not None
    seconds(*base)
    answer = {}
    for entry in entries:
        one = timed(entry)
        if one is None:
            answer[entry.name] = UNKNOWN
            continue
        seconds(*one)  # compiles
        ratios = []
        for _ in range(repeats):
            before, took, after = seconds(*base), seconds(*one), seconds(*base)
            ratios.append(2 * took / (before + after))
        ratio = statistics.median(ratios)
        answer[entry.name] = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return answer
