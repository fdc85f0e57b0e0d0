"""The static schedule of attention's TPU kernels, from the compiler's own reports."""

import glob
import os
import re
import tempfile
from typing import NamedTuple


class Schedule(NamedTuple):
    """What the compiler schedules for a kernel, which is about one tile of logits.

    Attributes:
      bundles: bundles of instructions, of which the chip begins one a cycle.
      matrix_unit: the share of the matrix unit's slots in them that are used.
      spills: registers written to memory for want of others.
    """

    bundles: int
    matrix_unit: float
    spills: int


def schedule(topology: str, tokens: int, dim: int) -> dict[str, Schedule]:
    """Compile gradient and Hessian-vector product of attention for a TPU that is not there.

    To be called before JAX loads libtpu, which reads its options only then.

    Args:
      topology: such as "v5e:1x1".
      tokens: queries and keys.
      dim: features a head.

    Returns:
      The kernels by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
        os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        import jax
        import jax.numpy as jnp
        from jax.experimental import topologies
        from jax.sharding import SingleDeviceSharding

        from papyrax.attention import dot_product_attention
        from papyrax.train.benchmarks.rivals import jax_functions

        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
        sharding = SingleDeviceSharding(described.devices[0])
        x = (jax.ShapeDtypeStruct((1, tokens, 2, dim), jnp.bfloat16, sharding=sharding),) * 3
        for what in ("gradient", "hvp"):
            jax.jit(jax_functions(dot_product_attention, False)[what]).lower(x, x).compile()
        reports = glob.glob(f"{folder}/*attention_*-final_hlo-static-per-bundle-utilization.txt")
        found = {
            re.findall(r"attention_([a-z_]+)", os.path.basename(f))[0]: f for f in sorted(reports)
        }
        return {name: _read(path) for name, path in found.items()}


def _read(path: str) -> Schedule:
    with open(path) as file:
        lines = file.read().splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("MATMUL"))
    columns = [c.strip() for c in lines[head].split(",")]
    capacity = dict(zip(columns, map(int, lines[head + 1].split())))
    body = next(n for n, line in enumerate(lines) if "UTILIZATION" in line)
    rows = [list(map(int, s.split())) for s in lines[body + 1 :] if re.match(r"^[\d ]+$", s)]
    used = {c: sum(row[n] for row in rows) for n, c in enumerate(columns)}
    share = used["MATMUL"] / (len(rows) * capacity["MATMUL"])
    return Schedule(len(rows), share, used["VSTORE:SPILL"])


def report(topology: str, tokens: int, dim: int) -> None:
    """Print what the TPU compiler schedules for the body of each kernel, without a TPU.

    Args:
      topology: such as "v5e:1x1".
      tokens: queries and keys.
      dim: features a head.
    """
    found = schedule(topology, tokens, dim)
    print(f"\n{topology}, {tokens} tokens, heads of {dim}, bfloat16: static schedule of a tile")
    print(f"{'kernel':28}{'bundles':>9}{'matrix unit':>13}{'spills':>9}")
    for name, of in found.items():
        print(f"{name:28}{of.bundles:9}{of.matrix_unit:13.0%}{of.spills:9}")
