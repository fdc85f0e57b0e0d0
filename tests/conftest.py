"""Eight virtual CPU devices, a compilation cache, and nothing read from the user's settings."""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = os.environ.get("PAPYRAX_TEST_PLATFORM", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
FLAGS = {
    "xla_force_host_platform_device_count": 8,
    # Most of what is compiled here runs once, on small arrays: compiling costs more than running.
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": "true",
    # Eight devices share few cores: on a busy machine a collective waits long for its last member.
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": 300,
    "xla_cpu_collective_call_terminate_timeout_seconds": 900,
}
set_already = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [set_already, *(f"--{k}={v}" for k, v in FLAGS.items() if k not in set_already)]
).strip()

import jax  # noqa: E402

CACHE = pathlib.Path(__file__).parents[1] / "build" / "jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
