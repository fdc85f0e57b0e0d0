"""Time of `import papyrax`, with all its rooms, against importing jax, flax and optax alone.

    python benchmarks/import_time.py [--repeats N]

Fresh interpreters, alternated, medians of wall time; the ratio is what counts.
"""

import argparse
import statistics
import subprocess
import sys
import time

BASE = "import jax, flax.nnx, optax"
CANDIDATES = {
    "import papyrax": f"{BASE}; import papyrax",
    "all rooms": f"{BASE}; import papyrax; [getattr(papyrax, room) for room in papyrax.__all__]",
}


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs the code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Alternate the imports and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    seconds(BASE)  # warm the file cache
    times: dict[str, list[float]] = {name: [] for name in ("baseline", *CANDIDATES)}
    for _ in range(repeats):
        times["baseline"].append(seconds(BASE))
        for name, code in CANDIDATES.items():
            times[name].append(seconds(code))
    base = statistics.median(times["baseline"])
    print(f"{'jax, flax, optax':18} {base:.3f} s")
    for name in CANDIDATES:
        median = statistics.median(times[name])
        print(f"{name:18} {median:.3f} s  ratio {median / base:.3f}")


if __name__ == "__main__":
    main()
