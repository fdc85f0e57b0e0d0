"""Eight virtual CPU devices, a compilation cache, and nothing read from the user's settings."""

import ast
import functools
import gc
import math
import os
import pathlib
import sys

from xla_flags import xla_flags

os.environ["JAX_PLATFORMS"] = os.environ.get("PAPYRAX_TEST_PLATFORM", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
before = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = xla_flags(8, before)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.devices()  # reads the flags; what is read later, in this process or another, may be for a TPU
os.environ["XLA_FLAGS"] = xla_flags(8, before, tpu=True)

CACHE = pathlib.Path(__file__).parents[1] / "build" / "jax_cache"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

if sys.version_info < (3, 11, 8):
    # Until then (python/cpython#106905) threads that parse at the same time count the depth of
    # their trees together. Python changes threads there only where garbage is collected: JAX has a
    # callback then. Threads of data pipelines may still be running while a test reads a source.
    parse = ast.parse

    @functools.wraps(parse)
    def parse_alone(*args, **kwargs):
        collects = gc.isenabled()
        gc.disable()
        try:
            return parse(*args, **kwargs)
        finally:
            if collects:
                gc.enable()

    ast.parse = parse_alone


@pytest.fixture(scope="module")
def topology():
    """Descriptions of TPUs that are not there, by name."""
    pytest.importorskip("libtpu")
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    from jax.experimental import topologies

    # JAX's compilation cache cannot read programs for absent devices back.
    setting = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, setting)
    jax.config.update(setting, math.inf)
    yield lambda name: topologies.get_topology_desc(platform="tpu", topology_name=name)
    jax.config.update(setting, before)
