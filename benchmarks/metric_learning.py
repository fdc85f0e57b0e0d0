"""Losses of pairs against pytorch-metric-learning: time and memory of value and gradient.

    python benchmarks/metric_learning.py [--batch N] [--features N] [--classes N] [--repeats N]
        [--large N] [--pod]

Both in one process, alternated loss by loss; medians of CPU time. Memory is what is allocated
beside inputs and results: as XLA's compiler reports it, and as PyTorch's profiler counts it.
`--large N` runs NT-Xent in chunks on a batch of N examples. `--pod` compiles the losses that
compare a batch across devices, gathered and sent round the ring, for 4 and 16 TPUs, and prints the
memory of a device; it takes libtpu, but no TPU.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from papyrax.losses import (
    arcface_loss,
    multi_similarity_loss,
    nt_xent_loss,
    supervised_contrastive_loss,
)
from papyrax.train.benchmarks.turns import keep_memory, take_turns, torch_peak

# PyTorch's threads would spin while they wait, which counts as CPU time on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

Run = Callable[[], Any]
MIB = 2**20


def arrays(a: argparse.Namespace) -> dict[str, np.ndarray]:
    """Embeddings of two views, labels and proxies."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(a.classes, a.features))
    labels = rng.integers(a.classes, size=a.batch)
    views = centres[labels] + rng.normal(size=(2, a.batch, a.features))
    x, other = views.astype(np.float32)
    return {"x": x, "other": other, "labels": labels, "proxies": centres.astype(np.float32)}


def ours(a: argparse.Namespace, chunk: int | None) -> dict[str, Any]:
    """The losses by name: functions of the arrays to differentiate in, and their names."""
    options: dict[str, Any] = {"chunk_size": chunk}
    data = arrays(a)
    y = jnp.asarray(data["labels"])
    losses: dict[str, tuple[Any, tuple[str, ...]]] = {
        "NT-Xent": (lambda x, v: nt_xent_loss(x, v, temperature=0.1, **options), ("x", "other")),
        "SupCon": (lambda x: supervised_contrastive_loss(x, y, **options), ("x",)),
        "multi-similarity": (lambda x: multi_similarity_loss(x, y, **options), ("x",)),
    }
    if chunk is None:
        losses["ArcFace"] = (lambda x, p: arcface_loss(x, y, p), ("x", "proxies"))
    return losses


def compiled(a: argparse.Namespace, chunk: int | None) -> dict[str, tuple[Run, float]]:
    """Each loss's value and gradient, and its memory in MiB."""
    data = {k: jnp.asarray(v) for k, v in arrays(a).items()}
    programs = {}
    for name, (loss, wanted) in ours(a, chunk).items():
        args = tuple(data[k] for k in wanted)

        def mean(*args: Any, loss: Any = loss) -> Any:
            return jnp.mean(loss(*args))

        program = jax.jit(jax.value_and_grad(mean, tuple(range(len(args))))).lower(*args).compile()
        memory = program.memory_analysis().temp_size_in_bytes / MIB
        programs[name] = (lambda p=program, x=args: jax.block_until_ready(p(*x))), memory
    return programs


def theirs(a: argparse.Namespace) -> dict[str, tuple[Run, float]]:
    """The same in pytorch-metric-learning; empty where it is not installed."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        print("pytorch-metric-learning is not installed: nothing to compare with")
        return {}
    import torch
    from pytorch_metric_learning import losses, miners

    data = {k: torch.tensor(v) for k, v in arrays(a).items()}
    for name in ("x", "other", "proxies"):
        data[name].requires_grad_(True)
    views = torch.arange(a.batch).repeat(2)
    y = data["labels"]
    arcface = losses.ArcFaceLoss(a.classes, a.features, margin=28.6, scale=64)
    with torch.no_grad():
        arcface.W.copy_(data["proxies"].T)
    similar, miner = losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)
    ntxent, supcon = losses.NTXentLoss(0.1), losses.SupConLoss(0.1)
    functions = {
        "NT-Xent": lambda: ntxent(torch.cat([data["x"], data["other"]]), views),
        "SupCon": lambda: supcon(data["x"], y),
        "multi-similarity": lambda: similar(data["x"], y, miner(data["x"], y)),
        "ArcFace": lambda: arcface(data["x"], y),
    }

    def run(function: Any) -> None:
        for x in (data["x"], data["other"], arcface.W):
            x.grad = None
        function().backward()

    programs = {}
    for name, function in functions.items():
        try:
            run(function)
        except RuntimeError as error:  # that of NT-Xent pairs every positive with every negative
            print(f"{name} of pytorch-metric-learning does not run: {' '.join(str(error).split())}")
            continue
        memory = torch_peak(lambda f=function: run(f)) / MIB
        programs[name] = (lambda f=function: run(f)), memory
    return programs


def measure(programs: dict[str, tuple[Run, float]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of the libraries."""
    times = take_turns({name: run for name, (run, _) in programs.items()}, repeats)
    return {name: statistics.median(t.cpu for t in of) for name, of in times.items()}


def compare(a: argparse.Namespace) -> None:
    """Print the table of both libraries."""
    libraries = {
        "papyrax": compiled(a, None),
        "papyrax, chunks of 512": compiled(a, 512),
        "pytorch-metric-learning": theirs(a),
    }
    print(f"\n### batch {a.batch}, {a.features} features, {a.classes} classes, float32\n")
    print(
        "| loss | library | CPU ms | its time over papyrax's | memory MiB |\n|---|---|--:|--:|--:|"
    )
    for loss in libraries["papyrax"]:
        programs = {name: made[loss] for name, made in libraries.items() if loss in made}
        seconds = measure(programs, a.repeats)
        for name, took in seconds.items():
            ratio, memory = took / seconds["papyrax"], programs[name][1]
            print(f"| {loss} | {name} | {took * 1e3:.0f} | {ratio:.2f} | {memory:.0f} |")


def large(a: argparse.Namespace, batch: int) -> None:
    """Run NT-Xent of a large batch in chunks, and print the most memory the process has had."""
    a = argparse.Namespace(**{**vars(a), "batch": batch})
    run, memory = compiled(a, 1024)["NT-Xent"]
    start = time.perf_counter()
    run()
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    pairs = (2 * batch) ** 2 * 4 / MIB
    print(
        f"NT-Xent of {batch} examples in chunks of 1024: {took:.1f} s, {memory:.0f} MiB beside its "
        f"arguments, {peak:.0f} MiB of the process at most; all pairs would take {pairs:.0f}"
    )


def pod(a: argparse.Namespace) -> None:
    """Memory of a device, at the same batch of a device, on 4 and on 16 of them."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    local = 1024
    print(f"\n### {local} examples a device, {a.features} features: MiB beside the arguments\n")
    print("| loss | gathered, 4 devices | 16 | ring, 4 devices | 16 |\n|---|--:|--:|--:|--:|")
    rows: dict[str, list[str]] = {}
    for ring in (False, True):
        for topology in ("v5e:2x2", "v5e:4x4"):
            devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
            mesh = jax.sharding.Mesh(np.array(devices), ("data",))
            spec = PartitionSpec("data")
            sharding = jax.sharding.NamedSharding(mesh, spec)
            options: dict[str, Any] = {"axis_name": "data", "ring": ring}
            losses = {
                "NT-Xent": lambda x, v, y, o=options: nt_xent_loss(x, v, temperature=0.1, **o),
                "SupCon": lambda x, v, y, o=options: supervised_contrastive_loss(x, y, **o),
                "multi-similarity": lambda x, v, y, o=options: multi_similarity_loss(x, y, **o),
            }
            rows_all = local * len(devices)
            x = jax.ShapeDtypeStruct((rows_all, a.features), jnp.float32, sharding=sharding)
            y = jax.ShapeDtypeStruct((rows_all,), jnp.int32, sharding=sharding)
            for name, loss in losses.items():

                def mean(x: Any, v: Any, y: Any, loss: Any = loss) -> Any:
                    return jax.lax.pmean(jnp.mean(loss(x, v, y)), "data")

                over = jax.shard_map(
                    mean, mesh=mesh, in_specs=(spec,) * 3, out_specs=PartitionSpec()
                )
                program = jax.jit(jax.value_and_grad(over, (0, 1))).lower(x, x, y).compile()
                memory = program.memory_analysis().temp_size_in_bytes / MIB
                rows.setdefault(name, []).append(f"{memory:.1f}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--classes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", type=int, metavar="N")
    parser.add_argument("--pod", action="store_true")
    a = parser.parse_args()
    if a.pod:
        pod(a)
    elif a.large:
        large(a, a.large)
    else:
        keep_memory()
        compare(a)


if __name__ == "__main__":
    main()
