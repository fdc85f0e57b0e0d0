"""`papyrax bench`: papyrax against other libraries on this machine."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from papyrax.train import files
from papyrax.train.errors import UserError


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure papyrax against other libraries on this machine, alternating in one run.

    "attention": time and memory of value, gradient, jvp and Hessian-vector product of softmax
    attention, against jax.nn and, where they are installed, tokamax and torch; then how memory
    grows with the number of tokens.
    """

    subject: Annotated[Literal["attention"], tyro.conf.Positional]
    """What to measure."""
    tokens: tuple[int, ...] = (1024, 2048, 4096)
    """Numbers of tokens to time."""
    batch: int = 1
    """Examples."""
    heads: int = 1
    """Heads."""
    dim: tuple[int, ...] = (64,)
    """Features a head; several are measured one after the other."""
    causal: bool = False
    """A token sees only those before it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the arrays."""
    repeats: int = 5
    """Timed runs of each program."""
    memory_at: tuple[int, ...] = (4096, 8192, 16384, 32768)
    """Numbers of tokens at which memory is measured and fitted, by compiling alone; 0 for none."""
    memory_limit: float = 8.0
    """Programs that take more GiB for temporary arrays are named and not run: without tiles, 32768
    tokens take 4 GiB a head and matrix of logits."""
    out: pathlib.Path | None = None
    """Write the tables to this file too, in Markdown."""
    static: str | None = None
    """Instead of all this, a TPU such as v5e:1x1: what its compiler schedules for each kernel (with
    libtpu; no TPU is needed)."""

    def run(self) -> int:
        """Measures, printing line by line."""
        numbers = {"batch": self.batch, "heads": self.heads, "dim": min(self.dim, default=0)}
        numbers |= {"repeats": self.repeats, "tokens": min(self.tokens, default=0)}
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"--{name}: got {value}, takes 1 or more")
        if not self.memory_limit > 0:
            raise UserError(f"--memory-limit: got {self.memory_limit}, takes a number above 0")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise UserError(f"--out: there is no folder {self.out.parent}")
        if self.static is not None:
            # It sets variables that the TPU's compiler reads when JAX is loaded.
            from papyrax.train.benchmarks import static

            static.report(self.static, max(self.tokens), max(self.dim))
            return 0
        from papyrax.train.benchmarks import attention
        from papyrax.train.benchmarks.rivals import Problem
        from papyrax.train.benchmarks.turns import keep_memory

        keep_memory()  # programs that hold all scores would be timed with getting it anew
        kind = self.causal, self.dtype, int(self.memory_limit * 2**30)
        problems = [
            Problem(n, self.batch, self.heads, dim, *kind) for dim in self.dim for n in self.tokens
        ]
        sizes = sorted({n for n in self.memory_at if n > 0})
        lines = []
        for line in attention.report(problems, self.repeats, sizes):
            print(line, flush=True)
            lines.append(line)
        if self.out is not None:
            files.write_atomic(self.out, "\n".join(lines) + "\n")
        return 0
