"""What curvature costs: steps of second-order optimizers in gradients of the same model.

    python benchmarks/optimizers.py [--models mlp convnet transformer transformer_rows]
        [--repeats N] [--no-torch] [--traffic]

All programs of a model take turns in one process; printed are medians of CPU time, of the ratio of
each turn's to the gradient's of that turn, and what XLA allocates for temporary arrays. "k = 10" is
the mean over ten steps of which one has an estimate of curvature. Where PyTorch is installed, the
same model is trained there by AdaHessian, with PyTorch's own gradient beside it. Last comes M-FAC's
update beside three products of its buffer with a vector.

With `--traffic`, AdaHessian's update alone is compiled for a TPU v5e (which takes libtpu, but no
TPU) by XLA and as a Pallas kernel; printed are the bytes that are read and written, over the least.
"""

import argparse
import functools
import importlib.util
import itertools
import math
import os
import re
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

# Threads of PyTorch and of LAPACK would spin while they wait, which counts as CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papyrax import curvature, optim
from papyrax.train.benchmarks.turns import keep_memory, take_turns

Run = Callable[[], Any]


class Model(NamedTuple):
    """A model, as JAX and PyTorch are given it.

    Attributes:
      params: arrays by name, in JAX's layouts.
      batch: inputs and classes.
      logits: `logits(params, x) -> [..., classes]`.
    """

    params: dict[str, np.ndarray]
    batch: tuple[np.ndarray, np.ndarray]
    logits: Callable[[Any, Any], Any]


def matrix(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights of variance 1 / inputs."""
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


def mlp() -> Model:
    """784-1024-1024-10, batch 512."""
    rng, sizes = np.random.default_rng(0), (784, 1024, 1024, 10)
    params = {f"w{i}": matrix(rng, a, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))}
    params |= {f"b{i}": np.zeros(b, np.float32) for i, b in enumerate(sizes[1:])}

    def logits(p: Any, x: Any) -> Any:
        for i in range(3):
            x = x @ p[f"w{i}"] + p[f"b{i}"]
            x = jax.nn.gelu(x) if i < 2 else x
        return x

    x = rng.normal(size=(512, 784)).astype(np.float32)
    return Model(params, (x, rng.integers(10, size=512)), logits)


def convnet() -> Model:
    """3x3 convolutions 3-32-64-128, two of them of stride 2, images of 32 x 32, batch 64."""
    rng, sizes = np.random.default_rng(0), (3, 32, 64, 128)
    params = {
        f"w{i}": matrix(rng, 3, 3, a, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))
    }
    params |= {"w3": matrix(rng, 128, 10)}

    def logits(p: Any, x: Any) -> Any:
        for i, stride in enumerate((1, 2, 2)):
            layout = ("NHWC", "HWIO", "NHWC")
            strides = (stride, stride)
            x = jax.lax.conv_general_dilated(
                x, p[f"w{i}"], strides, ((1, 1), (1, 1)), dimension_numbers=layout
            )
            x = jax.nn.gelu(x)
        return jnp.mean(x, axis=(1, 2)) @ p["w3"]

    x = rng.normal(size=(64, 32, 32, 3)).astype(np.float32)
    return Model(params, (x, rng.integers(10, size=64)), logits)


LAYERS, WIDTH, HEADS, TOKENS, VOCABULARY = 4, 256, 4, 128, 512


def transformer(rows: bool = False) -> Model:
    """Four layers of width 256 with four heads, 8 texts of 128 tokens out of 512."""
    rng = np.random.default_rng(0)
    params = {"embed": matrix(rng, VOCABULARY, WIDTH), "place": matrix(rng, TOKENS, WIDTH)}
    for i in range(LAYERS):
        params |= {
            f"qkv{i}": matrix(rng, WIDTH, 3 * WIDTH),
            f"out{i}": matrix(rng, WIDTH, WIDTH),
            f"up{i}": matrix(rng, WIDTH, 4 * WIDTH),
            f"down{i}": matrix(rng, 4 * WIDTH, WIDTH),
        }
    params |= {"head": matrix(rng, WIDTH, VOCABULARY)}

    def normalize(x: Any) -> Any:
        x = x - jnp.mean(x, -1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-5)

    def logits(p: Any, tokens: Any) -> Any:
        x = p["embed"][tokens] * WIDTH**0.5 + p["place"]
        x = x.reshape(-1, WIDTH) if rows else x
        for i in range(LAYERS):
            qkv = (normalize(x) @ p[f"qkv{i}"]).reshape(*tokens.shape, 3, HEADS, -1)
            # Written out, as in PyTorch: attention is what `papyrax bench attention` measures.
            q, k, v = jnp.moveaxis(qkv, 2, 0)
            scores = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
            scores = jnp.where(jnp.tri(TOKENS, dtype=bool), scores, -1e30)
            seen = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
            x = x + seen.reshape(x.shape) @ p[f"out{i}"]
            x = x + jax.nn.gelu(normalize(x) @ p[f"up{i}"]) @ p[f"down{i}"]
        return (normalize(x) @ p["head"]).reshape(*tokens.shape, -1)

    text = rng.integers(VOCABULARY, size=(8, TOKENS + 1))
    return Model(params, (text[:, :-1], text[:, 1:]), logits)


def transformer_rows() -> Model:
    """The same, with all tokens of a batch as the rows of one matrix.

    Of matrix products with arrays [batch, tokens, width] XLA on CPUs turns one factor over for the
    gradient of the weights, entry by entry, which takes as long as the products do.
    """
    return transformer(rows=True)


MODELS = {
    "mlp": mlp,
    "convnet": convnet,
    "transformer": transformer,
    "transformer_rows": transformer_rows,
}


def cross_entropy(logits: Any, x: Any, y: Any) -> Any:
    """Mean over all rows."""
    del x
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def programs(model: Model) -> tuple[dict[str, Run], dict[str, int]]:
    """What is measured, compiled, and the bytes that each allocates beside its arguments."""
    params = jax.tree.map(jnp.asarray, model.params)
    batch = tuple(map(jnp.asarray, model.batch))

    def loss(p: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.logits(p, x), x, y)

    key = jax.random.key(0)
    runs: dict[str, Run] = {}
    memory: dict[str, int] = {}

    def add(name: str, fn: Any, *args: Any) -> None:
        compiled = jax.jit(fn).lower(*args).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes
        runs[name] = lambda: jax.block_until_ready(compiled(*args))

    def add_step(name: str, tx: Any, oracle: Any, refresh: bool) -> None:
        def step(p: Any, state: Any, key: Any) -> Any:
            key, now = jax.random.split(key)
            _, grads, estimate = oracle(p, *batch, key=now, refresh=refresh)
            updates, state = tx.update(grads, state, p, curvature=estimate)
            return optax.apply_updates(p, updates), state, key

        # Copies, since the first step gives its arguments away.
        kept = jax.tree.map(jnp.copy, (params, tx.init(params), key))
        compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*kept).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes

        def run() -> None:
            nonlocal kept
            kept = jax.block_until_ready(compiled(*kept))

        runs[name] = run

    add("gradient", jax.value_and_grad(loss), params, *batch)
    probe = curvature.rademacher_like(key, params)
    fused = curvature.value_grad_and_hvp(loss)
    add("gradient and Hz", lambda p, z, x, y: fused(p, z, x, y), params, probe, *batch)
    plain = curvature.value_grad_and_diag(loss)
    add_step("AdamW", optax.with_extra_args_support(optax.adamw(1e-4)), plain, False)
    tx = optim.adahessian(1e-4)
    add_step("AdaHessian", tx, plain, True)
    add_step("AdaHessian, no estimate", tx, plain, False)
    quarter = curvature.value_grad_and_diag(loss, fraction=0.25)
    add_step("AdaHessian, a quarter of the batch", tx, quarter, True)
    sampled = curvature.value_grad_and_diag(
        lambda p, x, y: model.logits(p, x), estimator=curvature.gnb(cross_entropy)
    )
    add_step("Sophia-G", optim.sophia_g(1e-5), sampled, True)
    add_step("Sophia-G, no estimate", optim.sophia_g(1e-5), sampled, False)
    return runs, memory


def torch_programs(name: str, model: Model) -> dict[str, Run]:
    """PyTorch's gradient and AdaHessian step of the same model; empty where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch
    from torch.nn import functional

    turned = {
        k: np.ascontiguousarray(v.transpose(3, 2, 0, 1)) if v.ndim == 4 else v
        for k, v in model.params.items()
    }
    p = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in turned.items()}
    x, y = map(torch.tensor, model.batch)
    if name == "convnet":
        x = x.permute(0, 3, 1, 2).contiguous()
    gelu = functools.partial(functional.gelu, approximate="tanh")

    def logits() -> Any:
        h = x
        if name == "mlp":
            for i in range(3):
                h = h @ p[f"w{i}"] + p[f"b{i}"]
                h = gelu(h) if i < 2 else h
            return h
        if name == "convnet":
            for i, stride in enumerate((1, 2, 2)):
                h = gelu(functional.conv2d(h, p[f"w{i}"], stride=stride, padding=1))
            return h.mean((2, 3)) @ p["w3"]
        h = p["embed"][x] * WIDTH**0.5 + p["place"]
        hidden = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        for i in range(LAYERS):
            qkv = functional.layer_norm(h, (WIDTH,)) @ p[f"qkv{i}"]
            q, k, v = qkv.reshape(*h.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            seen = scores.masked_fill(hidden, -1e30).softmax(-1) @ v
            h = h + seen.transpose(1, 2).reshape(h.shape) @ p[f"out{i}"]
            h = h + gelu(functional.layer_norm(h, (WIDTH,)) @ p[f"up{i}"]) @ p[f"down{i}"]
        return functional.layer_norm(h, (WIDTH,)) @ p["head"]

    leaves = list(p.values())

    def loss() -> Any:
        f = logits()
        return functional.cross_entropy(f.reshape(-1, f.shape[-1]), y.reshape(-1))

    def gradient() -> Any:
        return torch.autograd.grad(loss(), leaves)

    runs: dict[str, Run] = {"PyTorch: gradient": gradient}
    if importlib.util.find_spec("pytorch_optimizer") is None:
        print("AdaHessian in PyTorch is not measured: pytorch_optimizer is not installed")
        return runs
    from pytorch_optimizer import AdaHessian

    tx = AdaHessian(leaves, lr=1e-4)

    def step() -> None:
        tx.zero_grad()
        loss().backward(create_graph=True)
        tx.step()
        for leaf in leaves:
            leaf.grad = None  # or the graph of each step would hold the one before it

    runs["PyTorch: AdaHessian (pytorch_optimizer)"] = step
    return runs


def measure(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every run."""
    return {name: [t.cpu for t in times] for name, times in take_turns(runs, repeats).items()}


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    """The median over turns of the ratio of two programs."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def m_fac_programs(window: int, size: int) -> dict[str, Run]:
    """M-FAC's update, and three products of its buffer with a vector."""
    g = jax.random.normal(jax.random.key(0), (size,))
    rows = jax.random.normal(jax.random.key(1), (window, size))
    x = jnp.ones(window)
    tx = optim.scale_by_m_fac(1e-3, window=window)
    update = jax.jit(tx.update, donate_argnums=1)
    products = jax.jit(lambda rows, g, x: (rows @ g, rows @ (2 * g), x @ rows))
    state = tx.init(g)

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(update(g, state))[1]

    return {"update": run, "products": lambda: jax.block_until_ready(products(rows, g, x))}


def print_m_fac(repeats: int) -> None:
    """A table over windows."""
    size = 100_000
    print(f"\n### M-FAC, {size:,} parameters: CPU ms\n")
    print("| window | update | three products | ratio |\n|--:|--:|--:|--:|")
    for window in (64, 256, 1024):
        times = measure(m_fac_programs(window, size), repeats)
        both = " | ".join(f"{statistics.median(t) * 1e3:.1f}" for t in times.values())
        print(f"| {window} | {both} | {ratio(times, 'update', 'products'):.2f} |")


SIZES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant"}
# Prefetches: what they read, the kernel that waits for them does not read again.
AHEAD = {"copy-start", "copy-done", "slice-start", "slice-done"}


def traffic(hlo: str) -> tuple[int, int]:
    """Bytes that the instructions of a compiled program read and write, and how many launch."""

    def size(shape: str) -> int:
        found = re.findall(r"(\w+)\[([\d,]*)\]", shape)
        return sum(
            SIZES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
            for dtype, dims in found
            if dtype in SIZES
        )

    sizes: dict[str, int] = {}
    moved = launches = 0
    for line in hlo.split("\nENTRY ")[1].splitlines()[1:]:
        match = re.match(r"\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([\w\-]+)\((.*)$", line)
        if match is None:
            continue
        name, shape, opcode, rest = match.groups()
        sizes[name] = size(shape)
        is_join = opcode == "custom-call" and "ConcatBitcast" in rest  # of prefetched slices
        if opcode in FREE | AHEAD or is_join:
            continue
        operands = re.findall(r"%[\w.\-]+", rest.split("), ")[0])
        moved += sizes[name] + sum(sizes.get(o, 0) for o in operands)
        launches += sizes[name] > 100
    return moved, launches


def print_traffic() -> None:
    """AdaHessian's update of a model of large and small leaves, compiled for a TPU."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:1x1").devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    shapes = {"embed": (32768, 1024), "up": (1024, 4096), "down": (4096, 1024), "head": (1000, 10)}
    shapes |= {"conv": (3, 3, 256, 512), **{f"scale{i}": (1024,) for i in range(20)}}

    def placed(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    params = placed({k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()})
    plain = optim.adahessian(0.1, weight_decay=0.01)

    def by_optax(p: Any, state: Any, g: Any, estimate: Any) -> Any:
        updates, state = plain.update(g, state, p, curvature=estimate)
        return optax.apply_updates(p, updates), state

    steps: dict[str, tuple[Any, Any]] = {"adahessian, XLA": (plain.init, by_optax)}
    for name in ("xla", "pallas_tpu"):
        tx = optim.fused_adahessian(0.1, weight_decay=0.01, implementation=name)
        steps[f"fused_adahessian, {name}"] = tx.init, tx.step
    print(f"\n### {len(shapes)} leaves, v5e\n\n| update | bytes over the least | launches |")
    print("|---|--:|--:|")
    for name, (init, step) in steps.items():
        state = placed(jax.eval_shape(init, params))
        fn = lambda p, s, g, d, step=step: step(p, s, g, curvature.Curvature(d))  # noqa: E731
        compiled = jax.jit(fn, donate_argnums=(0, 1)).lower(params, state, params, params).compile()
        moved, launches = traffic(compiled.as_text())
        size = lambda tree: sum(x.size * 4 for x in jax.tree.leaves(tree))  # noqa: E731
        print(f"| {name} | {moved / (4 * size(params) + 2 * size(state)):.4f} | {launches} |")


def main() -> None:
    """Print a table a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--traffic", action="store_true", help="of the update, instead")
    a = parser.parse_args()
    if a.traffic:
        print_traffic()
        return
    keep_memory()
    for name in a.models:
        model = MODELS[name]()
        runs, memory = programs(model)
        if not a.no_torch:
            runs |= torch_programs(name, model)
        times = measure(runs, a.repeats)
        size = sum(v.size for v in model.params.values())
        print(f"\n### {name}: {MODELS[name].__doc__.splitlines()[0]} {size:,} parameters\n")
        print("| program | CPU ms | gradients | memory MiB |\n|---|--:|--:|--:|")
        for run in runs:
            below = "PyTorch: gradient" if run.startswith("PyTorch") else "gradient"
            mib = f"{memory[run] / 2**20:.1f}" if run in memory else ""
            milliseconds = statistics.median(times[run]) * 1e3
            print(f"| {run} | {milliseconds:.1f} | {ratio(times, run, below):.2f} | {mib} |")
        for run in ("AdaHessian", "Sophia-G"):
            rare = ratio(times, f"{run}, no estimate", "gradient")
            mean = (ratio(times, run, "gradient") + 9 * rare) / 10
            print(f"| {run}, k = 10 | | {mean:.2f} | |")
        for run in times:
            if run.startswith("PyTorch"):
                ours = run.removeprefix("PyTorch: ").removesuffix(" (pytorch_optimizer)")
                print(f"\n{run} takes {ratio(times, run, ours):.2f} times the CPU time of ours")
    print_m_fac(a.repeats)


if __name__ == "__main__":
    main()
