"""AdaHessian's step in one pass: equal to the optax transformation, on every backend."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gpus import absent_gpu

from papyrax.curvature import Curvature
from papyrax.optim import adahessian, fused_adahessian

# Several tiles, tiles that are not whole, windows, a vector, a scalar and an integer.
SHAPES = {
    "a": (70, 1100),
    "b": (17,),
    "c": (3, 3, 5, 130),
    "d": (),
    "e": (1030, 10),
    "f": (2, 4, 3),
}
OPTIONS = {"weight_decay": 0.03, "min_curvature": 0.01, "eps": 1e-3}
KERNELS = ("interpret", "interpret_triton")


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    leaves = {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}
    return leaves | {"n": jnp.int32(3)}


def run(init, step, steps=3):
    """Three steps, of which the first has no estimate and the last a NaN."""
    params, step = tree(100), jax.jit(step)
    state = init(params)
    for i in range(steps):
        diag = tree(200 + i)
        if i == 2:
            diag["b"] = diag["b"].at[3].set(jnp.nan)
        curvature = Curvature(diag) if i else None
        params, state = step(params, state, tree(i), curvature)
    return params, state


def by_optax(**options):
    tx = adahessian(schedule, **OPTIONS, **options)

    def step(params, state, grads, curvature):
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def schedule(count):
    return 0.1 / (1 + count)


@pytest.mark.parametrize(
    ("options", "implementations"),
    [
        ({"average_of": "signed", "hessian_power": 0.5}, (None, *KERNELS)),
        ({"average": "none"}, (None,)),  # another view of the same leaves
    ],
    ids=["signed", "plain"],
)
def test_every_implementation_makes_the_steps_of_optax(options, implementations):
    wanted, (state, *_) = run(*by_optax(**options))
    assert wanted["n"] == 3
    for implementation in implementations:
        tx = fused_adahessian(schedule, **OPTIONS, **options, implementation=implementation)
        params, own = run(tx.init, tx.step)
        assert jax.tree.structure(own) == jax.tree.structure(state)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6),
            (params, own),
            (wanted, state),
        )


def test_half_precision_and_traced_refresh():
    params, grads, diag = (tree(i, jnp.bfloat16) for i in range(3))
    results = []
    for implementation in (None, *KERNELS):
        tx = fused_adahessian(0.1, mu_dtype=jnp.float32, implementation=implementation)
        step = jax.jit(lambda p, s, valid, tx=tx: tx.step(p, s, grads, Curvature(diag, valid)))
        state = step(params, tx.init(params), jnp.array(False))[1]
        assert int(state.refreshes) == 0
        assert not np.any(state.nu["a"])
        new, state = step(params, state, jnp.array(True))
        assert new["a"].dtype == jnp.bfloat16
        assert state.nu["c"].shape == (1, 1, 5, 130)
        assert state.nu["c"].dtype == state.mu["c"].dtype == jnp.float32
        results.append((new, state))
    for other in results[1:]:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(
                np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=1e-2, atol=1e-5
            ),
            other,
            results[0],
        )


def test_narrow_moments_wide_gradients_and_leaves_without_entries():
    """Squares that float16 cannot hold, gradients finer than the parameters, and an empty leaf."""
    params = {"a": jnp.ones(3, jnp.bfloat16), "empty": jnp.zeros((0, 2))}
    grads = params | {"a": jnp.array([1.001, 1.0005, 0.3333])}
    curvature = Curvature(params | {"a": jnp.array([1e4, 1e25, 0.3333])})
    cases = (
        ({"nu_dtype": jnp.float16}, (None, *KERNELS)),
        ({"mu_dtype": jnp.float32, "nu_dtype": jnp.bfloat16}, (None,)),
    )
    for options, implementations in cases:
        tx = adahessian(0.1, **options)
        updates, state = tx.update(grads, tx.init(params), params, curvature=curvature)
        wanted = (optax.apply_updates(params, updates), state[0])
        assert np.all(np.isfinite(np.asarray(state[0].nu["a"], np.float32)))
        for implementation in implementations:
            fused = fused_adahessian(0.1, **options, implementation=implementation)
            got = fused.step(params, fused.init(params), grads, curvature)
            for x, y in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
                np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), 1e-6)


def test_a_kernel_that_cannot_run_says_why():
    params = tree(0)
    for name, platform in (("pallas_tpu", "tpu"), ("pallas_triton", "cuda and rocm")):
        tx = fused_adahessian(implementation=name)
        with pytest.raises(ValueError, match=f"implementation: .*runs on {platform}, not on cpu"):
            jax.jit(tx.step)(params, tx.init(params), params)
    with jax.enable_x64(True):
        tx = fused_adahessian(implementation="interpret")
        wide = {"a": jnp.zeros(3, jnp.float64)}
        with pytest.raises(ValueError, match="params: got a leaf of float64"):
            tx.step(wide, tx.init(wide), wide)


def test_launches():
    """Seven leaves: two launches on a TPU, one on a GPU, and no copy of a leaf beside them."""
    params = {k: jnp.zeros((16, 256)) for k in "abcdefg"}
    for name, launches in (("pallas_tpu", 2), ("pallas_triton", 1)):
        tx = fused_adahessian(implementation=name)
        platform = {"pallas_tpu": "tpu", "pallas_triton": "cuda"}[name]
        unchecked = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
        step = jax.jit(lambda p, s, tx=tx: tx.step(p, s, p, Curvature(p)), donate_argnums=(0, 1))
        exported = jax.export.export(step, platforms=[platform], disabled_checks=unchecked)
        state = tx.init(params)
        with absent_gpu():
            text = exported(params, state).mlir_module()
        assert len(re.findall(r"stablehlo\.custom_call @(tpu_custom_call|__gpu)", text)) == launches
        assert "stablehlo.pad" not in text
