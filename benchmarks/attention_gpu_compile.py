"""What NVIDIA's compilers make of the attention kernels, on a machine without a GPU.

    pip install "jax[cuda13]"
    python benchmarks/attention_gpu_compile.py [--chips sm_80 sm_89 sm_90] [--dims 64 128]
        [--dtype bfloat16] [--operators softmax linear]

Value, gradient and Hessian-vector product of causal attention over 1024 tokens, of softmax with a
bias and linear, are compiled for GPUs that are only described. Printed for every kernel are the
rows of queries and keys in a tile (of linear attention: tokens, features, values), warps, the
shared memory of a block, registers a thread, bytes that are spilled from them, and the instructions
that multiply: `wgmma` of Hopper's tensor cores, `mma` of those before. Kernels of linear attention
are told apart by which keys are seen, features, values, and queries and keys at one place in time.
Nothing is run: these are no timings.
"""

import argparse
import itertools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
from described.gpus import CHIPS, DUMP, assembled, compiled, ptxas, sharding_on

from papyrax.attention import dot_product_attention, linear_attention
from papyrax.kernels.flash_attention import pallas_triton
from papyrax.kernels.linear_attention import pallas_triton as linear_triton

TUNING = pallas_triton._Kernel.tuning.func
PLAN = linear_triton.plan
OPERATORS = {"softmax": dot_product_attention, "linear": linear_attention}


def compile_for(operator: str, name: str, dim: int, dtype: Any) -> dict[str, tuple[str, int]]:
    """Compile for a chip; the tiles and warps of every kernel."""
    chip = CHIPS[name]
    sharding = sharding_on(name)
    pallas_triton.shared_memory = linear_triton.shared_memory = lambda: chip.shared
    tiles = {}

    def record(kernel: Any) -> Any:
        length, warps, stages = TUNING(kernel)
        kernel_name = f"{kernel.work.name}_{'_'.join(kernel.names)}"
        tiles[kernel_name] = f"{length['t']} x {length['s']}", warps
        return length, warps, stages

    def record_linear(x: Any, config: Any) -> Any:
        cut = PLAN(x, config)
        (rows, _, features), (keys, _, values) = x.query.shape[2:], x.value.shape[2:]
        kernel_name = f"{config.direction}_f{features}_v{values}_q{rows}_k{keys}"
        columns = " + ".join(map(str, cut.columns))
        tiles[kernel_name] = f"{cut.tile} x {cut.features} x {columns}", cut.warps
        return cut

    pallas_triton._Kernel.tuning = property(record)
    linear_triton.plan = record_linear

    def loss(x: Any, bias: Any) -> Any:
        how = {"is_causal": True, "implementation": "pallas_triton"}
        return jnp.sum(jnp.square(OPERATORS[operator](*x, bias, **how).astype(jnp.float32)))

    def run(x: Any, bias: Any) -> Any:
        gradient = jax.value_and_grad(loss, (0, 1))
        return jax.jvp(gradient, (x, bias), (x, bias))

    array = jax.ShapeDtypeStruct((2, 1024, 8, dim), dtype, sharding=sharding)
    bias = jax.ShapeDtypeStruct((1, 8, 1024, 1024), dtype, sharding=sharding)
    jax.jit(run).lower((array,) * 3, bias if operator == "softmax" else None).compile()
    return tiles


def report(name: str, tiles: dict[str, tuple[str, int]], assembler: pathlib.Path) -> None:
    """A line a kernel, from what XLA has written down."""
    lines = {}
    for kernel, shared, path in compiled(r"attention_(\w+)"):
        kind = next(k for k in tiles if kernel.startswith(k))
        if kind in lines:  # one that is called twice
            continue
        tile, warps = tiles[kind]
        lines[kind] = (
            f"| {kind} | {tile} | {warps} | {shared / 1024:.0f} "
            f"| {assembled(assembler, name, path)} |"
        )
    print(*(lines[kind] for kind in sorted(lines)), sep="\n")


def main() -> None:
    """Print a table a chip and size of head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    a = parser.parse_args()
    assembler = ptxas()
    if assembler is None:
        print('JAX for CUDA is not installed: pip install "jax[cuda13]"')
        return
    for operator, chip, dim in itertools.product(a.operators, a.chips, a.dims):
        for path in DUMP.iterdir():
            path.unlink()
        tiles = compile_for(operator, chip, dim, jnp.dtype(a.dtype))
        what = f"{chip} ({CHIPS[chip].name}, {CHIPS[chip].shared // 1024} KiB a block)"
        print(f"\n### {operator}, {what}, d = {dim}, {a.dtype}\n")
        print("| kernel | tile | warps | shared KiB | registers | spilled | wgmma | mma |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        report(chip, tiles, assembler)
    shutil.rmtree(DUMP)


if __name__ == "__main__":
    main()
