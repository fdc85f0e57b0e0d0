"""Eight virtual CPU devices, a compilation cache, and nothing read from the user's settings."""

import os
import pathlib

from xla_flags import xla_flags

os.environ["JAX_PLATFORMS"] = os.environ.get("PAPYRAX_TEST_PLATFORM", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ["XLA_FLAGS"] = xla_flags(8, os.environ.get("XLA_FLAGS", ""))

import jax

CACHE = pathlib.Path(__file__).parents[1] / "build" / "jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
