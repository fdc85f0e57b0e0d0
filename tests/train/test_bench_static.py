"""What a TPU compiler schedules for attention's kernels: a guard against slower ones."""

import json
import subprocess
import sys

import pytest

# Bundles of instructions for a tile of 256 x 256 at 128 features on a v5e, a fifth above what
# libtpu 0.0.52 schedules.
BUDGET = {
    "forward_max_total_out": 700,
    "tangent_logsum_out": 1000,
    "cotangent_q": 710,
    "cotangent_k_v": 700,
    "hessian_q": 1330,
    "hessian_k_v": 1350,
}


def test_kernels_keep_to_their_cycles():
    pytest.importorskip("libtpu")
    code = (
        "import json\n"
        "from papyrax.train.benchmarks.static import schedule\n"
        "print(json.dumps(schedule('v5e:1x1', 256, 128)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(BUDGET)
    for name, (bundles, share, _) in found.items():
        assert bundles <= BUDGET[name], f"{name} takes {bundles} bundles"
        assert share > 0.1, name
    # The Hessian's kernels do 2.5 to 2.7 times the products of the cotangents'.
    for of in ("q", "k_v"):
        assert found[f"hessian_{of}"][0] < 2.2 * found[f"cotangent_{of}"][0]
