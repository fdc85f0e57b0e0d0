"""A transformer that AdaHessian trains through attention's kernels, as the benchmark does."""

import functools
import importlib.util
import pathlib
import re

import engine  # noqa: F401  # says where prepared data are
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from papyrax.attention import dot_product_attention

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "language_model.py"
MODEL = {"layers": 2, "width": 32, "heads": 2}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("language_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loss_curve_is_that_of_dense_attention(script):
    """Eight steps through the Pallas kernels in scanned and rematerialized layers."""
    kernels = functools.partial(dot_product_attention, implementation="interpret")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with jax.enable_x64(True):
            data = script.batches(8, 2, 32)
            dense, *_ = script.train(script.dense, data, **MODEL)
            curve, *_ = script.train(kernels, data, **MODEL)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    np.testing.assert_allclose(curve, dense, rtol=1e-10)
    assert min(dense) < dense[0] - 0.3, "it does not learn"


def test_a_sharded_step_compiles_for_256_chips(script, topology):
    mesh = Mesh(np.array(topology("v5e:16x16").devices), ("data",))
    whole, split = PartitionSpec(), PartitionSpec("data")
    init, step = script.training_step(dot_product_attention, axis_name="data", **MODEL)
    specs = (whole, whole, split, whole)
    step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole)
    key = jax.eval_shape(lambda: jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((256, 129), jnp.int32)
    args = jax.tree.map(
        lambda spec, part: jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec)),
            part,
        ),
        specs,
        (*jax.eval_shape(init), tokens, key),
    )
    program = jax.jit(step).lower(*args).compile().as_text()
    kernels = set(re.findall(r"attention_(forward|tangent|cotangent|hessian)_", program))
    assert kernels == {"forward", "tangent", "cotangent", "hessian"}
