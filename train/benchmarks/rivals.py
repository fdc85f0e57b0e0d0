"""Softmax attention of other libraries, as programs to measure: value, gradient, jvp and HVP.

What a library lacks is told by its own error, and what is not installed is not measured.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.attention import dot_product_attention
from papyrax.train.benchmarks.turns import torch_peak

PROGRAMS = ("value", "gradient", "jvp", "hvp")


class Problem(NamedTuple):
    """What is attended to.

    Attributes:
      tokens: queries and keys.
      batch: examples.
      heads: heads.
      dim: features a head.
      causal: whether a token sees only those before it.
      dtype: of the arrays, by its name.
      limit: bytes that a program may take for arrays beside arguments and results.
    """

    tokens: int
    batch: int
    heads: int
    dim: int
    causal: bool
    dtype: str
    limit: int | None = None

    def allow(self, memory: int) -> None:
        """Raise if a program takes more than this may."""
        if self.limit is not None and memory > self.limit:
            mib = f"{memory / 2**20:.0f} MiB, more than {self.limit / 2**20:.0f}"
            raise MemoryError(f"takes {mib}")

    def arrays(self) -> list[np.ndarray]:
        """Query, key and value [batch, tokens, heads, dim], and a tangent of each."""
        rng = np.random.default_rng(0)
        shape = (self.batch, self.tokens, self.heads, self.dim)
        return [rng.standard_normal(shape, np.float32) for _ in range(6)]


class Program(NamedTuple):
    """Something to time.

    Attributes:
      run: runs it once, and returns when it is done.
      memory: bytes for arrays beside arguments and results, at most.
    """

    run: Callable[[], Any]
    memory: int


def jax_functions(attention: Callable[..., Any], causal: bool) -> dict[str, Callable[..., Any]]:
    """The programs by name, as functions of (arrays, tangents)."""

    def value(x: Any, t: Any) -> Any:
        return attention(*x, is_causal=causal)

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.sin(value(x, None).astype(jnp.float32)))

    return {
        "value": value,
        "gradient": lambda x, t: jax.grad(loss)(x),
        "jvp": lambda x, t: jax.jvp(lambda x: value(x, None), (x,), (t,)),
        "hvp": lambda x, t: jax.jvp(jax.grad(loss), (x,), (t,))[1],
    }


def compiled(attention: Callable[..., Any], problem: Problem, what: str) -> Any:
    """The XLA program, which is not run."""
    shape = (problem.batch, problem.tokens, problem.heads, problem.dim)
    x = (jax.ShapeDtypeStruct(shape, jnp.dtype(problem.dtype)),) * 3
    return jax.jit(jax_functions(attention, problem.causal)[what]).lower(x, x).compile()


def _of_jax(attention: Callable[..., Any], problem: Problem, what: str) -> Program:
    program = compiled(attention, problem, what)
    memory = program.memory_analysis().temp_size_in_bytes
    problem.allow(memory)
    arrays = [jnp.asarray(a, problem.dtype) for a in problem.arrays()]
    x, t = tuple(arrays[:3]), tuple(arrays[3:])
    return Program(lambda: jax.block_until_ready(program(x, t)), memory)


def _of_tokamax(implementation: str, problem: Problem, what: str) -> Program:
    import tokamax

    attention = functools.partial(tokamax.dot_product_attention, implementation=implementation)
    return _of_jax(attention, problem, what)


def _of_torch(backend: str, problem: Problem, what: str) -> Program:
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read when torch is loaded
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    if backend == "MATH":  # logits and weights, before anything is run
        problem.allow(2 * problem.batch * problem.heads * problem.tokens**2 * 4)
    on_gpu = torch.cuda.is_available()
    kind = {"device": "cuda" if on_gpu else "cpu", "dtype": getattr(torch, problem.dtype)}
    arrays = [torch.tensor(a.swapaxes(1, 2)).to(**kind) for a in problem.arrays()]
    x, t = tuple(arrays[:3]), tuple(arrays[3:])

    def value(q: Any, k: Any, v: Any) -> Any:
        return scaled_dot_product_attention(q, k, v, is_causal=problem.causal)

    def loss(*x: Any) -> Any:
        return value(*x).float().sin().sum()

    def gradient(*x: Any) -> Any:
        return torch.func.grad(loss, (0, 1, 2))(*x)

    runs: dict[str, Callable[[], Any]] = {
        "value": lambda: value(*x),
        "gradient": lambda: gradient(*x),
        "jvp": lambda: torch.func.jvp(value, x, t),
        "hvp": lambda: torch.func.jvp(gradient, x, t)[1],
    }

    def run() -> None:
        with sdpa_kernel(getattr(SDPBackend, backend)), contextlib.ExitStack() as stack:
            if what == "value":
                stack.enter_context(torch.no_grad())
            runs[what]()
        if on_gpu:
            torch.cuda.synchronize()

    run()
    if on_gpu:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return Program(run, torch.cuda.max_memory_allocated() - before)
    return Program(run, torch_peak(run))


def libraries() -> Iterator[tuple[str, Callable[[Problem, str], Program]]]:
    """What is installed: a name, and the maker of its programs. papyrax is the first."""
    on_gpu = jax.default_backend() == "gpu"
    yield "papyrax", functools.partial(_of_jax, dot_product_attention)
    yield "jax.nn xla", functools.partial(_of_jax, jax.nn.dot_product_attention)
    if on_gpu:
        cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
        yield "jax.nn cudnn", functools.partial(_of_jax, cudnn)
    if importlib.util.find_spec("tokamax"):
        for name in ("xla_chunked", *(("triton", "mosaic") if on_gpu else ())):
            yield f"tokamax {name}", functools.partial(_of_tokamax, name)
    if importlib.util.find_spec("torch"):
        for name, backend in (("math", "MATH"), ("flash", "FLASH_ATTENTION")):
            yield f"torch {name}", functools.partial(_of_torch, backend)
