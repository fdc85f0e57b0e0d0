"""What a TPU's compiler makes of a linear layer's cross-entropy, on a machine without a TPU.

    python benchmarks/large_vocabulary_tpu.py [--topology v5e:1x1] [--batch N] [--features N]
        [--classes N]

In bfloat16, for value, gradient and Hessian-vector product: the memory beside inputs and results,
and the cycles that the compiler expects. For what XLA compiles these are its own estimates, for a
Pallas kernel the instruction bundles of a step of the grid times its steps, or what the matrix
units need at least where that is more. Neither counts the time of copies that are not hidden.
"""

import argparse
import glob
import importlib.util
import math
import os
import re
import tempfile
from collections.abc import Callable
from typing import Any

CHUNK = 2048
# Operations of all matrix units in a cycle.
PEAK = {"v5e": 2 * 4 * 128**2, "v6e": 2 * 4 * 256**2}


def functions(loss: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Value, gradient and Hessian-vector product of the mean of a loss of (x, w, y).

    All take x, w, y and a direction in x and w.
    """
    import jax
    import jax.numpy as jnp

    def mean(x: Any, w: Any, y: Any) -> Any:
        return jnp.mean(loss(x, w, y).astype(jnp.float32))

    gradient = jax.value_and_grad(mean, (0, 1))
    return {
        "value": lambda x, w, y, *_: mean(x, w, y),
        "value and gradient": lambda x, w, y, *_: gradient(x, w, y),
        "Hessian-vector product": lambda x, w, y, *along: jax.jvp(
            lambda *p: gradient(*p, y)[1], (x, w), along
        )[1],
    }


def xla_cycles(text: str, chunks: int) -> int:
    """The cycles that XLA expects of its program: what is not at its entry, once a chunk."""
    total = 0
    for computation in re.split(r"\n(?=(?:%|ENTRY)[^\n]*\{\n)", text):
        found = re.findall(r'"estimated_cycles":"(\d+)"', computation)
        total += sum(map(int, found)) * (1 if "ENTRY" in computation[:200] else chunks)
    return total


def kernel_cycles(folder: str, plans: dict[str, Any], peak: int) -> int:
    """The same of kernels, from the reports that the compiler leaves in a folder."""
    from papyrax.train.benchmarks.static import _read

    total = 0
    for name, plan in plans.items():
        files = f"{folder}/*{name}*-final_hlo-static-per-bundle-utilization.txt"
        bundles = _read(max(glob.glob(files))).bundles
        products = sum(map(len, plan.work.logits.values())) + len(plan.products)
        least = 2 * math.prod(n * plan.many[a] for a, n in plan.tile.items()) * products / peak
        total += round(max(bundles * math.prod(plan.grid), least))
    return total


def main() -> None:
    """Compile both forms and print what the compiler says of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:1x1", help="a v5e or a v6e")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=262_144)
    a = parser.parse_args()
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is not installed: pip install libtpu")
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
        # libtpu reads its options when JAX loads it.
        os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        import functools

        import jax
        import jax.numpy as jnp
        from jax.experimental import topologies

        from papyrax.kernels.linear_sums import pallas_tpu
        from papyrax.losses import linear_softmax_cross_entropy

        plans: dict[str, Any] = {}
        choose = pallas_tpu.plan

        def recorded(*args: Any) -> Any:
            plan = choose(*args)
            plans[plan.name] = plan
            return plan

        pallas_tpu.plan = recorded
        described = topologies.get_topology_desc(platform="tpu", topology_name=a.topology)
        sharding = jax.sharding.SingleDeviceSharding(described.devices[0])

        def array(dtype: Any, *shape: int) -> Any:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

        x, w = array(jnp.bfloat16, a.batch, a.features), array(jnp.bfloat16, a.features, a.classes)
        args = x, w, array(jnp.int32, a.batch), x, w
        logits = 2 * a.batch * a.classes
        print(f"{a.topology}: batch {a.batch}, features {a.features}, classes {a.classes}")
        print(f"logits would take {logits / 2**20:.0f} MiB in bfloat16")
        for name in ("xla", "pallas_tpu"):
            loss = functools.partial(linear_softmax_cross_entropy, implementation=name)
            for what, fn in functions(functools.partial(loss, chunk_size=CHUNK)).items():
                plans.clear()
                compiled = jax.jit(fn).lower(*args).compile()
                memory = compiled.memory_analysis()
                held = memory.argument_size_in_bytes + memory.output_size_in_bytes
                beside = max(memory.temp_size_in_bytes, memory.peak_memory_in_bytes - held)
                cycles = xla_cycles(compiled.as_text(), math.ceil(a.classes / CHUNK))
                if plans:
                    cycles += kernel_cycles(folder, plans, PEAK[a.topology[:3]])
                print(
                    f"  {name:11} {what:23} {beside / 2**20:7.1f} MiB, {beside / logits:5.2%} of "
                    f"the logits; {cycles / 1e6:6.1f} million cycles",
                    flush=True,
                )


if __name__ == "__main__":
    main()
