"""Softmax attention on this machine: time and memory against `jax.nn`, and Hessian-vector products.

    python benchmarks/attention.py [--tokens N ...] [--heads N] [--dim N] [--causal] [--repeats N]
    python benchmarks/attention.py --static v5e:1x1 [--tokens N]

Programs are compiled first and then run in turn; printed are medians of one process, and ratios.
CPU time (over all threads) is printed beside wall time, as it suffers less from busy neighbours.
`--static` needs `libtpu` but no TPU: it compiles the TPU kernels and prints, for each, the
instruction bundles of a tile and the share of them that multiplies matrices.
"""

import argparse
import collections
import glob
import os
import re
import statistics
import tempfile
import time


def programs(attention, causal):
    """Value, gradient and Hessian-vector product of a loss of attention."""
    import jax
    import jax.numpy as jnp

    def value(x, t):
        return attention(*x, is_causal=causal)

    def loss(x):
        return jnp.sum(jnp.sin(attention(*x, is_causal=causal)))

    def gradient(x, t):
        return jax.grad(loss)(x)

    def hvp(x, t):
        return jax.jvp(jax.grad(loss), (x,), (t,))[1]

    return {"value": value, "gradient": gradient, "hvp": hvp}


def measure(tokens, heads, dim, causal, repeats):
    """Time the programs of `jax.nn` and papyrax in turn."""
    import jax

    from papyrax.attention import dot_product_attention

    keys = jax.random.split(jax.random.key(0), 6)
    arrays = [jax.random.normal(key, (1, tokens, heads, dim)) for key in keys]
    x, t = tuple(arrays[:3]), tuple(arrays[3:])
    compiled = {}
    for name, attention in (
        ("jax.nn", jax.nn.dot_product_attention),
        ("papyrax", dot_product_attention),
    ):
        for what, program in programs(attention, causal).items():
            compiled[name, what] = jax.jit(program).lower(x, t).compile()
    wall, cpu = collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(repeats):
        for key, run in compiled.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(x, t))
            wall[key].append(time.perf_counter() - start[0])
            cpu[key].append(time.process_time() - start[1])
    print(
        f"\n{tokens} tokens, {heads} heads of {dim}, {'causal' if causal else 'all pairs'}, float32"
    )
    print(f"{'':10}{'program':10}{'wall ms':>9}{'cpu ms':>9}{'x gradient':>12}{'temp MiB':>10}")
    for (name, what), run in compiled.items():
        memory = run.memory_analysis().temp_size_in_bytes / 2**20
        seconds = [statistics.median(of[name, what]) for of in (wall, cpu)]
        ratio = seconds[1] / statistics.median(cpu[name, "gradient"])
        row = f"{1e3 * seconds[0]:9.1f}{1e3 * seconds[1]:9.1f}{ratio:12.2f}{memory:10.1f}"
        print(f"{name:10}{what:10}{row}")
    for what in ("value", "gradient", "hvp"):
        ratios = [
            statistics.median(of["papyrax", what]) / statistics.median(of["jax.nn", what])
            for of in (wall, cpu)
        ]
        print(f"papyrax / jax.nn, {what}: wall {ratios[0]:.2f}, cpu {ratios[1]:.2f}")


def memory(sizes, heads, dim, causal):
    """Print what Hessian-vector products of long sequences allocate."""
    import jax
    import jax.numpy as jnp

    from papyrax.attention import dot_product_attention

    print("\ntemporary memory of a Hessian-vector product, compiled and not run")
    for tokens in sizes:
        x = tuple(jax.ShapeDtypeStruct((1, tokens, heads, dim), jnp.float32) for _ in range(3))
        hvp = programs(dot_product_attention, causal)["hvp"]
        found = jax.jit(hvp).lower(x, x).compile().memory_analysis().temp_size_in_bytes
        matrix = 4 * heads * tokens**2 / 2**20
        found = f"{found / 2**20:8.1f} MiB"
        print(f"{tokens:7} tokens {found}, where a matrix of logits has {matrix:8.0f} MiB")


def static(topology, tokens, dim):
    """What the TPU compiler schedules for the body of each kernel, without a TPU."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
        os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        import jax
        import jax.numpy as jnp
        from jax.experimental import topologies
        from jax.sharding import SingleDeviceSharding

        from papyrax.attention import dot_product_attention

        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
        sharding = SingleDeviceSharding(described.devices[0])
        x = (jax.ShapeDtypeStruct((1, tokens, 2, dim), jnp.bfloat16, sharding=sharding),) * 3
        for what in ("gradient", "hvp"):
            jax.jit(programs(dot_product_attention, False)[what]).lower(x, x).compile()
        print(f"\n{topology}, {tokens} tokens, heads of {dim}, bfloat16: static schedule of a tile")
        print(f"{'kernel':28}{'bundles':>9}{'matrix unit':>13}{'spills':>9}")
        reports = glob.glob(f"{folder}/*attention_*-final_hlo-static-per-bundle-utilization.txt")
        found = {
            re.search(r"attention_([a-z_]+)", os.path.basename(f))[1]: f for f in sorted(reports)
        }
        for name, path in found.items():
            with open(path) as file:
                lines = file.read().splitlines()
            head = next(n for n, line in enumerate(lines) if line.startswith("MATMUL"))
            columns = [c.strip() for c in lines[head].split(",")]
            capacity = dict(zip(columns, map(int, lines[head + 1].split())))
            body = next(n for n, line in enumerate(lines) if "UTILIZATION" in line)
            rows = [
                list(map(int, s.split())) for s in lines[body + 1 :] if re.match(r"^[\d ]+$", s)
            ]
            used = {c: sum(row[n] for row in rows) for n, c in enumerate(columns)}
            share = used["MATMUL"] / (len(rows) * capacity["MATMUL"])
            print(f"{name:28}{len(rows):9}{share:13.0%}{used['VSTORE:SPILL']:9}")


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--static", metavar="TOPOLOGY", help="such as v5e:1x1")
    args = parser.parse_args()
    if args.static:
        static(args.static, max(args.tokens), args.dim)
        return
    for tokens in args.tokens:
        measure(tokens, args.heads, args.dim, args.causal, args.repeats)
    memory([4096, 8192, 16384], args.heads, args.dim, args.causal)


if __name__ == "__main__":
    main()
