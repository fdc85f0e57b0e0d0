"""Linear attention, MALA and L2ViT's attention by the kernel: equal to their scans."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import attention
from papyrax.attention import linear_attention_init, mala_init, rope_1d

FAST = {"xla_backend_optimization_level": 0}
MASK = np.arange(22).reshape(2, 1, 1, 11) % 3 != 1
HEADS = np.arange(88).reshape(2, 4, 1, 11) % 5 != 1  # tells heads of one group apart


# Operator, queries, options.
CASES = {
    "causal": ("linear_attention", 13, {"is_causal": True, "mask": MASK}),
    "all keys": ("linear_attention", 6, {"mask": HEADS, "normalize": False, "scale": 0.5}),
    "relu": ("relu_linear_attention", 6, {"floor": 2.0}),
    "mala, causal": ("mala", 11, {"is_causal": True, "mask": MASK, "rope": 11}),
    "mala, all keys": ("mala", 6, {"mask": MASK}),
}


def draw(queries, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    shapes = ((2, queries, 4, 4), (2, 11, 2, 4), (2, 11, 2, 5))
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def both(name, x, implementation):
    """The operator's value and, where causal, gradient; derivatives are the kernel's business."""
    operator, _, options = CASES[name]
    if "rope" in options:
        options = options | {"rope": rope_1d(jnp.arange(options["rope"]), 4)}
    f = functools.partial(
        getattr(attention, operator), implementation=implementation, chunk_size=4, **options
    )

    def run(*x):
        loss = lambda *x: jnp.sum(jnp.sin(f(*x)))  # noqa: E731
        return f(*x), jax.grad(loss, (0, 1, 2))(*x) if "is_causal" in options else ()

    return jax.jit(run, compiler_options=FAST)(*x)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [*((name, "interpret") for name in CASES), ("causal", "interpret_triton")],
)
def test_the_kernel_gives_what_the_scan_gives(name, implementation):
    with jax.enable_x64(True):
        x = draw(CASES[name][1])
        got, want = (both(name, x, how) for how in (implementation, "linear"))
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-12 * float(jnp.abs(w).max()))


def test_bfloat16():
    x = draw(13, jnp.bfloat16)
    f = functools.partial(attention.linear_attention, is_causal=True, mask=MASK)
    got = jax.jit(functools.partial(f, implementation="interpret"), compiler_options=FAST)(*x)
    assert got.dtype == jnp.bfloat16
    want = jax.jit(f, compiler_options=FAST)(*(a.astype(jnp.float32) for a in x))
    assert jnp.linalg.norm(got.astype(jnp.float32) - want) < 1e-2 * jnp.linalg.norm(want)


@pytest.mark.parametrize("operator", ["linear_attention", "mala"])
def test_steps_hand_the_state_on(operator):
    """From a scan to the kernel and back."""
    init = {"linear_attention": linear_attention_init, "mala": mala_init}[operator]
    step = getattr(attention, f"{operator}_step")

    def run(*x):
        state, pieces = init(*x[1:]), []
        for a, b, how in ((0, 4, "linear"), (4, 9, "interpret"), (9, 11, "linear")):
            out, state = step(state, *(y[:, a:b] for y in x), implementation=how, chunk_size=3)
            pieces.append(out)
        return jnp.concatenate(pieces, 1), getattr(attention, operator)(*x, is_causal=True)

    with jax.enable_x64(True):
        np.testing.assert_allclose(*jax.jit(run, compiler_options=FAST)(*draw(11)), rtol=1e-12)


def test_an_implementation_that_cannot_run_raises():
    x = draw(11, jnp.float32)
    with pytest.raises(ValueError, match=r"implementation: .*pallas_tpu.*runs on tpu, not on cpu"):
        attention.linear_attention(*x, implementation="pallas_tpu")
    with pytest.raises(ValueError, match="implementation: got 'quadratic'"):
        attention.mala_step(mala_init(*x[1:]), *x, implementation="quadratic")
