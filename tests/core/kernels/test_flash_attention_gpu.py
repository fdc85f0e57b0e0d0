"""The Triton kernels: their numbers by Pallas' interpreter, and lowered for CUDA."""

import attention_cases
import jax
import jax.numpy as jnp
import pytest
from gpus import absent_gpu

from papyrax.kernels.flash_attention import Config, Inputs, Masks, attention, pallas_triton

SCENES = [
    "one tile",
    "causal, more keys",
    "left window, causal",
    "cap",
    "lengths",
    "segments",
    "mask of heads",
    "offset",
    "dropout",
    "one query",
]


@pytest.mark.parametrize("name", SCENES)
def test_float64(name):
    attention_cases.check(name, "interpret_triton", "float64", second_tangent=name == "cap")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision(dtype):
    attention_cases.check("cap", "interpret_triton", dtype)


def lowered(x, masks, config):
    """The StableHLO for CUDA of value, gradient and Hessian-vector product."""

    def loss(x, masks):
        return jnp.sum(jnp.sin(attention(x, masks, config).out.astype(jnp.float32)))

    def run(x, t, masks):
        return jax.jvp(lambda x: jax.value_and_grad(loss)(x, masks), (x,), (t,))

    unchecked = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    exported = jax.export.export(jax.jit(run), platforms=["cuda"], disabled_checks=unchecked)
    with absent_gpu():
        return exported(x, x, masks).mlir_module()


def shaped(dtype, queries, keys, dim, value_dim, bias=False):
    shapes = [(2, 1, 2, queries, dim), (2, 1, keys, dim), (2, 1, keys, value_dim)]
    shapes += [(1, 1, 2, queries, keys)] if bias else []
    return Inputs(*(jax.ShapeDtypeStruct(s, dtype) for s in shapes))


def test_default_on_cuda_is_triton():
    text = lowered(shaped(jnp.bfloat16, 512, 512, 64, 64), Masks(), Config(0.1, causal=True))
    for name in ("forward_max_total_out", "tangent_logsum_out", "cotangent_k_v", "hessian_k_v"):
        assert f"attention_{name}" in text


def test_every_option_lowers():
    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    masks = Masks(
        mask=array(bool, 1, 1, 2, 1, 100),
        query_segments=array(jnp.int32, 2, 70),
        key_segments=array(jnp.int32, 2, 100),
        query_lengths=array(jnp.int32, 2),
        key_lengths=array(jnp.int32, 2),
        offset=array(jnp.int32),
        seed=array(jnp.int32, 2),
    )
    config = Config(0.1, True, (64, None), 20.0, 0.1, implementation="pallas_triton")
    text = lowered(shaped(jnp.float32, 70, 100, 80, 24, bias=True), masks, config)
    assert "attention_hessian_bias" in text


def test_explicit_kernels_do_not_fall_back():
    x = Inputs(*(jnp.ones(s) for s in ((1, 1, 1, 8, 4), (1, 1, 8, 4), (1, 1, 8, 4))))
    with pytest.raises(ValueError, match=r"implementation.*runs on cuda and rocm, not on cpu"):
        attention(x, Masks(), Config(1.0, implementation="pallas_triton"))
    wide = Inputs(*(jnp.ones(s) for s in ((1, 1, 1, 8, 512), (1, 1, 8, 512), (1, 1, 8, 4))))
    with pytest.raises(ValueError, match=r"implementation.*up to 256 features"):
        attention(wide, Masks(), Config(1.0, implementation="pallas_triton"))


@pytest.mark.parametrize("kib", [64, 99, 163, 227])
def test_tiles_fit_the_shared_memory_of_a_block(kib, monkeypatch):
    """Of AMD's GPUs, and of NVIDIA's for consumers, Ampere and Hopper."""
    tuned = {}
    tuning = pallas_triton._Kernel.tuning.func

    def record(kernel):
        length, warps, stages = tuning(kernel)
        name = f"{kernel.work.name} {kernel.names[-1]}"
        tuned[name] = (length["t"], length["s"]), kernel.shared_bytes(length, stages)
        return length, warps, stages

    monkeypatch.setattr(pallas_triton._Kernel, "tuning", property(record))
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: kib * 1024)
    # One bias for both examples: its tiles of results are summed in a loop over them.
    lowered(shaped(jnp.bfloat16, 512, 512, 128, 128, bias=True), Masks(), Config(0.1))
    assert max(used for _, used in tuned.values()) <= kib * 1024
    # The most rows of results that fit: what is read again for every tile of them.
    widest = {64: (16, 16), 99: (32, 16), 163: (64, 32), 227: (128, 32)}
    assert tuned["hessian q"][0] == widest[kib]


def test_heads_too_wide_for_the_shared_memory_are_refused(monkeypatch):
    x = shaped(jnp.float32, 64, 64, 256, 256)
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: 99 * 1024)
    found = pallas_triton.why_not(Config(1.0), x, Masks(), "cuda")
    assert found == ["its tiles take 128 KiB of a block's 99 KiB"]
    monkeypatch.setattr(pallas_triton, "shared_memory", lambda: 163 * 1024)
    assert pallas_triton.why_not(Config(1.0), x, Masks(), "cuda") == []
