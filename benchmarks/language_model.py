"""A transformer trained by AdaHessian through attention's kernels, and on dense attention.

    python benchmarks/language_model.py [--steps N] [--length N] [--layers N] [--x64]

The layers are scanned and rematerialized, so that each step takes Hessian-vector products through
the kernels inside `lax.scan` and `jax.checkpoint`: memory grows with the length of the sequences,
not with its square. Printed are both loss curves, which agree up to rounding (`--x64` shows how
far), the time of a step and its memory for temporary arrays.
"""

import argparse
import functools
import time
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from papyrax.attention import dot_product_attention
from papyrax.curvature import value_grad_and_diag
from papyrax.optim import adahessian
from papyrax.train.data import load
from papyrax.train.models import LM

BYTES = 256


def training_step(attention: Any, *, layers: int, width: int, heads: int, axis_name: Any = None):
    """A small language model's parameters and optimizer, and `step(params, state, tokens, key)`.

    Args:
      attention: an operator with the signature of `jax.nn.dot_product_attention`.
      layers: number of blocks.
      width: features of a token.
      heads: query heads.
      axis_name: the mesh axis to average over, inside `jax.shard_map`.

    Returns:
      `init() -> (params, state)` and the step, which returns both anew and the loss [].
    """

    def make() -> LM:
        options: dict[str, Any] = {"width": width, "layers": layers, "heads": heads}
        options |= {"hidden": 2 * width, "scan": True, "remat": True}
        dtype = jnp.result_type(float)
        return LM((1,), BYTES, attention=attention, dtype=dtype, rngs=nnx.Rngs(0), **options)

    graph, _ = nnx.split(nnx.eval_shape(make))
    # Many bytes are absent from a batch: what measures no curvature is not to divide by it.
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), adahessian(0.15, b2=0.99, min_curvature=1e-2)
    )

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, params)(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    measure = value_grad_and_diag(loss, axis_name=axis_name)

    @jax.jit
    def init() -> tuple[Any, Any]:
        dtype = jnp.result_type(float)
        params = jax.tree.map(lambda p: p.astype(dtype), nnx.split(make())[1])
        return params, optimizer.init(params)

    def step(params: Any, state: Any, tokens: jax.Array, key: jax.Array) -> tuple[Any, Any, Any]:
        value, grads, curvature = measure(params, tokens, key=key)
        updates, state = optimizer.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state, value

    return init, step


def dense(query: Any, key: Any, value: Any, mask: Any = True, *, is_causal: bool = False) -> Any:
    """Causal attention as in textbooks: all weights are in memory, in the arrays' own precision."""
    logits = jnp.einsum("btnh,bsnh->bnts", query, key) / query.shape[-1] ** 0.5
    shown = jnp.tri(query.shape[1], key.shape[1], dtype=bool) | (not is_causal)
    weights = jax.nn.softmax(jnp.where(shown & mask, logits, -jnp.inf))
    return jnp.einsum("bnts,bsnh->btnh", weights, value)


def train(attention: Any, batches: Iterable[Any], **model: int) -> tuple[list[float], float, float]:
    """Train on batches of tokens [batch, length + 1].

    Returns:
      The losses, seconds a step and MiB for temporary arrays.
    """
    init, step = training_step(attention, **model)
    params, state = init()
    losses, program, start = [], None, 0.0
    for n, tokens in enumerate(batches):
        args = params, state, tokens, jax.random.key(n)
        if program is None:
            program = jax.jit(step).lower(*args).compile()
            start = time.perf_counter()
        params, state, loss = program(*args)
        losses.append(float(loss))
    assert program is not None
    seconds = (time.perf_counter() - start) / len(losses)
    memory: Any = program.memory_analysis()
    return losses, seconds, memory.temp_size_in_bytes / 2**20


def batches(steps: int, batch: int, length: int) -> list[jax.Array]:
    """Tokens [batch, length + 1] of Python's standard library."""
    found = []
    for _, b in zip(range(steps), load("python_source", batch_size=batch, sequence_length=length)):
        found.append(jnp.concatenate([b["inputs"], b["targets"][:, -1:]], axis=1).astype(jnp.int32))
    return found


def main() -> None:
    """Train twice and print both curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--implementation", help="of papyrax's attention")
    parser.add_argument("--x64", action="store_true", help="train in double precision")
    args = parser.parse_args()
    model = {"layers": args.layers, "width": args.width, "heads": args.heads}
    with jax.enable_x64(args.x64):
        data = batches(args.steps, args.batch, args.length)
        kernels = functools.partial(dot_product_attention, implementation=args.implementation)
        plain, *costs = train(dense, data, **model)
        tiled, *others = train(kernels, data, **model)
    print(f"{'step':>5}{'dense':>12}{'papyrax':>12}{'difference':>13}")
    for n, (a, b) in enumerate(zip(plain, tiled)):
        if n % max(1, args.steps // 10) == 0 or n == args.steps - 1:
            print(f"{n:5}{a:12.6f}{b:12.6f}{b - a:13.1e}")
    for name, (seconds, memory) in (("dense", costs), ("papyrax", others)):
        print(f"{name:8} {1e3 * seconds:8.0f} ms a step {memory:8.1f} MiB")


if __name__ == "__main__":
    main()
