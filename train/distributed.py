"""Several processes as one run.

Each process is started with the same command and three variables of the environment:
`JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; on
Cloud TPU, Slurm, Open MPI and Kubernetes `JAX_COORDINATOR_ADDRESS=auto` finds all three.
"""

import os
from collections.abc import Mapping

from papyrax.train.errors import UserError


def initialize(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes, where the environment says that there are any.

    To be called before anything touches a device. On CPUs the processes talk through Gloo.

    Args:
      environ: where the variables are looked up.

    Raises:
      UserError: where a variable is missing or is not a number.
    """
    address = environ.get("JAX_COORDINATOR_ADDRESS")
    if not address:
        return
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if address == "auto":
        jax.distributed.initialize()
        return
    number, index = (_number(environ, n) for n in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    if not 0 <= index < number:
        raise UserError(f"JAX_PROCESS_ID: got {index}, takes 0 to {number - 1}")
    jax.distributed.initialize(address, number, index)


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name)
    if value is None or not value.isdigit():
        got = "nothing" if value is None else repr(value)
        raise UserError(f"{name}: got {got}, takes a number, as JAX_COORDINATOR_ADDRESS is set")
    return int(value)


def any_process(flag: bool) -> bool:
    """Whether `flag` is True in any process; every process has to call it at the same step."""
    import jax

    if jax.process_count() == 1:
        return flag
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())
