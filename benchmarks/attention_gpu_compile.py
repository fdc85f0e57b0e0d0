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
import importlib.metadata
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_dump_emitter_re=triton.* --xla_dump_to={tempfile.mkdtemp()}"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from papyrax.attention import dot_product_attention, linear_attention
from papyrax.kernels.flash_attention import pallas_triton
from papyrax.kernels.linear_attention import pallas_triton as linear_triton

TUNING = pallas_triton._Kernel.tuning.func
PLAN = linear_triton.plan
OPERATORS = {"softmax": dot_product_attention, "linear": linear_attention}
DUMP = pathlib.Path(os.environ["XLA_FLAGS"].rpartition("=")[2])


class Chip(NamedTuple):
    """A GPU, as XLA is told of it.

    Attributes:
      capability: of computing, major and minor.
      shared: bytes of shared memory that a block may have.
      cores: multiprocessors.
      name: of one such GPU.
    """

    capability: tuple[int, int]
    shared: int
    cores: int
    name: str


CHIPS = {
    "sm_80": Chip((8, 0), 163 * 1024, 108, "A100"),
    "sm_89": Chip((8, 9), 99 * 1024, 128, "RTX 4090"),
    "sm_90": Chip((9, 0), 227 * 1024, 132, "H100"),
}
DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {shared}
  shared_memory_per_core: {shared} core_count: {cores} fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 2000000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.5
  device_memory_size: 25769803776 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{chip}"
"""


def ptxas() -> pathlib.Path | None:
    """NVIDIA's assembler, which comes with JAX's CUDA packages; None without them."""
    for package in ("nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu13", "nvidia-cuda-nvcc-cu12"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == "ptxas":
                return pathlib.Path(file.locate())
    return None


def compile_for(operator: str, name: str, dim: int, dtype: Any) -> dict[str, tuple[str, int]]:
    """Compile for a chip; the tiles and warps of every kernel."""
    chip = CHIPS[name]
    major, minor = chip.capability
    fields = {"shared": chip.shared, "cores": chip.cores, "major": major, "minor": minor}
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        topology="1x1x1",
        target_config=DESCRIPTION.format(chip=name, **fields),
    )
    sharding = SingleDeviceSharding(described.devices[0])
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
    shared = {}
    for path in DUMP.glob("*attention_*triton-to-llvm.txt"):
        kernel = path.name.split("attention_")[1].split(".")[0]
        shared[kernel] = max(map(int, re.findall(r"ttg.shared = (\d+)", path.read_text())))
    lines = {}
    for path in sorted(DUMP.glob("*.ptx")):
        text = path.read_text()
        entry = re.search(r"\.entry (?:linear_)?attention_(\w+)", text)
        if entry is None:
            continue
        kernel = entry.group(1)
        kind = next(k for k in tiles if kernel.startswith(k))
        if kind in lines:  # one that is called twice
            continue
        architecture = name + "a" * (name == "sm_90")
        command = [assembler, "-v", f"-arch={architecture}", path, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers = re.search(r"Used (\d+) registers", said)
        spilled = re.search(r"(\d+) bytes spill stores", said)
        assert registers is not None
        assert spilled is not None
        tile, warps = tiles[kind]
        counts = f"{text.count('wgmma.mma_async')} | {text.count('mma.sync')}"
        lines[kind] = (
            f"| {kind} | {tile} | {warps} | {shared[kernel] / 1024:.0f} "
            f"| {registers.group(1)} | {spilled.group(1)} | {counts} |"
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
