"""How XLA compiles in the tests: most programs run once, so compiling costs more than running."""

import importlib.metadata

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_parallel_codegen_split_count": 1,
    # Eight devices share few cores: on a busy machine a collective waits long for its last member.
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": 300,
    "xla_cpu_collective_call_terminate_timeout_seconds": 900,
}
# Half the time to compile; 0.11 has no choice, and a TPU's compiler does not know the flag.
HERE = (
    {"xla_cpu_use_fusion_emitters": "false"}
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else {}
)


def xla_flags(devices: int, before: str = "", tpu: bool = False) -> str:
    """A value of XLA_FLAGS for so many virtual CPU devices; flags in `before` win.

    With `tpu` it has no flag that stops the TPU's compiler, should the process load that, too.
    """
    flags = {"xla_force_host_platform_device_count": devices, **QUICK, **({} if tpu else HERE)}
    return " ".join([before, *(f"--{k}={v}" for k, v in flags.items() if k not in before)]).strip()
