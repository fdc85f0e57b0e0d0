"""Eight virtual CPU devices, a compilation cache, and nothing read from the user's settings."""

import os
import pathlib

from xla_flags import xla_flags

os.environ["JAX_PLATFORMS"] = os.environ.get("PAPYRAX_TEST_PLATFORM", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
before = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = xla_flags(8, before)

import jax  # noqa: E402

jax.devices()  # reads the flags; what is read later, in this process or another, may be for a TPU
os.environ["XLA_FLAGS"] = xla_flags(8, before, tpu=True)

CACHE = pathlib.Path(__file__).parents[1] / "build" / "jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
