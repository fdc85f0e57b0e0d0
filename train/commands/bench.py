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
    dim: int = 64
    """Features a head."""
    causal: bool = False
    """A token sees only those before it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the arrays."""
    repeats: int = 5
    """Timed runs of each program."""
    memory_at: tuple[int, ...] = (4096, 8192, 16384, 32768)
    """Numbers of tokens at which memory is measured and fitted, by compiling alone; 0 for none."""
    out: pathlib.Path | None = None
    """Write the tables to this file too, in Markdown."""
    static: str | None = None
    """Instead of all this, a TPU such as v5e:1x1: what its compiler schedules for each kernel (with
    libtpu; no TPU is needed)."""

    def run(self) -> int:
        """Measures, printing line by line."""
        numbers = {"batch": self.batch, "heads": self.heads, "dim": self.dim}
        numbers |= {"repeats": self.repeats, "tokens": min(self.tokens, default=0)}
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"--{name}: got {value}, takes 1 or more")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise UserError(f"--out: there is no folder {self.out.parent}")
        if self.static is not None:
            # It sets variables that the TPU's compiler reads when JAX is loaded.
            from papyrax.train.benchmarks import static

            static.report(self.static, max(self.tokens), self.dim)
            return 0
        from papyrax.train.benchmarks import attention
        from papyrax.train.benchmarks.rivals import Problem

        shape = self.batch, self.heads, self.dim, self.causal, self.dtype
        problems = [Problem(n, *shape) for n in self.tokens]
        sizes = sorted({n for n in self.memory_at if n > 0})
        lines = []
        for line in attention.report(problems, self.repeats, sizes):
            print(line, flush=True)
            lines.append(line)
        if self.out is not None:
            files.write_atomic(self.out, "\n".join(lines) + "\n")
        return 0
