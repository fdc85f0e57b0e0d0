"""NVIDIA's GPUs and compilers, on a machine without a GPU: for the benchmarks that compile.

To be imported before anything is compiled: XLA is told where to write down what it makes.
"""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

DUMP = pathlib.Path(tempfile.mkdtemp())
os.environ["XLA_FLAGS"] = f"--xla_dump_emitter_re=triton.* --xla_dump_to={DUMP}"
jax.config.update("jax_platforms", "cpu")


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


def sharding_on(name: str) -> SingleDeviceSharding:
    """That of arrays on a chip that is described."""
    chip = CHIPS[name]
    major, minor = chip.capability
    fields = {"shared": chip.shared, "cores": chip.cores, "major": major, "minor": minor}
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        topology="1x1x1",
        target_config=DESCRIPTION.format(chip=name, **fields),
    )
    return SingleDeviceSharding(described.devices[0])


def compiled(pattern: str) -> Iterator[tuple[str, int, pathlib.Path]]:
    """Kernels that XLA has written down: what the pattern finds in a name, shared bytes, PTX."""
    shared = {}
    for path in DUMP.glob("*triton-to-llvm.txt"):
        if found := re.search(pattern, path.name):
            shared[found[1]] = max(map(int, re.findall(r"ttg.shared = (\d+)", path.read_text())))
    for path in sorted(DUMP.glob("*.ptx")):
        if found := re.search(rf"\.entry \w*?{pattern}", path.read_text()):
            yield found[1], shared[found[1]], path


def assembled(assembler: pathlib.Path, name: str, path: pathlib.Path) -> str:
    """Of a kernel's PTX, cells of a table: registers, bytes spilled, kinds of products."""
    architecture = name + "a" * (name == "sm_90")
    command = [str(assembler), "-v", f"-arch={architecture}", str(path), "-o", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.findall(r"Used (\d+) registers", said)[0]
    spilled = re.findall(r"(\d+) bytes spill stores", said)[0]
    text = path.read_text()
    return f"{registers} | {spilled} | {text.count('wgmma.mma_async')} | {text.count('mma.sync')}"
