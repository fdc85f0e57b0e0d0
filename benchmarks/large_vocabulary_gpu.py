"""What NVIDIA's compilers make of a linear layer's cross-entropy, on a machine without a GPU.

    pip install "jax[cuda13]"
    python benchmarks/large_vocabulary_gpu.py [--chips sm_80 sm_89 sm_90] [--batch N] [--features N]
        [--classes N] [--dtype bfloat16]

Value, gradient, Hessian-vector product and the second derivative along a direction are compiled for
GPUs that are only described. Printed are the memory beside inputs and results, for plain XLA and
for the kernels, and for every kernel the rows, classes and features of a tile, programs, warps, the
shared memory of a block, registers a thread, bytes that are spilled from them, and the instructions
that multiply: `wgmma` of Hopper's tensor cores, `mma` of those before. Nothing is run: these are no
timings.
"""

import argparse
import functools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
from described.gpus import CHIPS, DUMP, assembled, compiled, ptxas, sharding_on
from large_vocabulary_tpu import functions as up_to_products

from papyrax.kernels.linear_sums import pallas_triton
from papyrax.losses import linear_softmax_cross_entropy

PLAN = pallas_triton.plan


def functions(implementation: str) -> dict[str, Any]:
    """The mean loss and its derivatives, of x, w, y and a direction in x and w."""
    found = up_to_products(
        functools.partial(linear_softmax_cross_entropy, implementation=implementation)
    )

    def slope(x: Any, w: Any, y: Any, *along: Any) -> Any:
        return jax.jvp(lambda *p: found["value"](*p, y), (x, w), along)[1]

    def second(x: Any, w: Any, y: Any, *along: Any) -> Any:
        return jax.jvp(lambda *p: slope(*p, y, *along), (x, w), along)[1]

    return found | {"second derivative": second}


def arguments(name: str, batch: int, features: int, classes: int, dtype: Any) -> Any:
    """Those of `functions`, on a chip that is described."""
    sharding = sharding_on(name)
    x = jax.ShapeDtypeStruct((batch, features), dtype, sharding=sharding)
    w = jax.ShapeDtypeStruct((features, classes), dtype, sharding=sharding)
    return x, w, jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=sharding), x, w


def memory(fn: Any, args: Any) -> int:
    """Compile; bytes beside arguments and results."""
    found = jax.jit(fn).lower(*args).compile().memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes
    return max(found.temp_size_in_bytes, found.peak_memory_in_bytes - held)


def report(name: str, plans: dict[str, Any], assembler: pathlib.Path) -> None:
    """A line a kernel, from what XLA has written down."""
    lines = set()
    for kernel, shared, path in compiled(r"linear_(\w+)_over_classes"):
        p = plans[kernel]
        tile = " x ".join(str(p.tile[a]) for a in "nvd")
        lines.add(
            f"| {kernel} | {tile} | {p.many['n']} x {p.splits} | {p.warps} "
            f"| {shared / 1024:.0f} | {assembled(assembler, name, path)} |"
        )
    print("\n".join(sorted(lines)), flush=True)


def main() -> None:
    """Print two tables a chip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=262_144)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    a = parser.parse_args()
    assembler = ptxas()
    if assembler is None:
        print('JAX for CUDA is not installed: pip install "jax[cuda13]"')
        return
    plans: dict[str, Any] = {}

    def recorded(work: Any, tiles: Any) -> Any:
        plans[work.name] = PLAN(work, tiles)
        return plans[work.name]

    pallas_triton.plan = recorded
    for name in a.chips:
        chip = CHIPS[name]
        pallas_triton.shared_memory = functools.partial(int, chip.shared)
        args = arguments(name, a.batch, a.features, a.classes, jnp.dtype(a.dtype))
        print(f"\n### {name} ({chip.name}, {chip.shared // 1024} KiB a block), {a.dtype}\n")
        print("| beside inputs and results, MiB | XLA | kernels |\n|---|--:|--:|")
        for what in functions("xla"):
            ours, plain = (
                memory(functions(i)[what], args) / 2**20 for i in ("pallas_triton", "xla")
            )
            print(f"| {what} | {plain:.0f} | {ours:.0f} |", flush=True)
        print(
            "\n| kernel | tile | programs | warps | shared KiB | registers | spilled "
            "| wgmma | mma |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        )
        report(name, plans, assembler)
        for path in DUMP.iterdir():
            path.unlink()
    shutil.rmtree(DUMP)


if __name__ == "__main__":
    main()
