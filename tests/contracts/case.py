"""How a public function or optimizer declares its example inputs, once, for the common suite.

A declaration is an entry of the list `CASES` in a module `tests/contracts/<room>_<family>.py`; such
modules are found by name. `test_contracts.py` runs every case through the whole suite, and fails
for a public function that has none.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Bad:
    """Arguments that must raise `ValueError` naming `argument`.

    Attributes:
      argument: the name that the message must contain.
      change: what is put in place of the case's arguments, arrays or hyper-parameters alike; a
        callable is given the case's arrays and returns the new value.
    """

    argument: str
    change: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Example inputs of one public function.

    Attributes:
      name: dotted public name, such as "papyrax.losses.stablemax_cross_entropy".
      arrays: from a NumPy generator to the array arguments by name; floats as float64, integers as
        int32, masks as bool. Small: they are compiled many times.
      wrt: the float arguments to differentiate.
      static: hyper-parameters by name.
      label: tells several cases of one function apart.
      call: `call(fn, **arrays, **static)` for what is not called plainly (a module, an init/apply
        pair, a function that takes a function); it returns arrays. A case with `call` for a class
        builds it.
      rows: the axis of independent rows shared by the arrays in `rows_in`, used for a batch of one
        and for duplicated rows; None where there is no such axis.
      rows_in: the arguments that have the rows axis; all array arguments by default.
      extremes: further extreme inputs, from the arrays to {label: changed arrays}; they come on
        top of the common ones (see `test_contracts.py`).
      skip_extremes: labels of common extremes that are outside the function's domain, with why;
        "zeros of x" where the argument `x` has no derivative at zeros though slopes on either side
        agree.
      bad: calls that must raise.
      differentiable: False for functions of integers or with no gradient by nature (a metric that
        counts); such functions are tested for everything else.
      second_order: False where the second derivative is zero or undefined by nature.
      keeps_dtype: whether bf16 in means bf16 out.
      tolerance: relative tolerance of bf16 against float64, measured against the largest output.
      finite_differences: compare jvp with central differences in float64 at the example.
      jittable: False for host-side functions (they return Python objects or draw a plot).
      vmappable: whether a stacked leading axis on every array argument can be mapped over.
    """

    name: str
    arrays: Callable[[np.random.Generator], Arrays]
    wrt: tuple[str, ...] = ()
    static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    call: Callable[..., Any] | None = None
    rows: int | None = 0
    rows_in: tuple[str, ...] | None = None
    extremes: Callable[[Arrays], Mapping[str, Arrays]] | None = None
    skip_extremes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bad: tuple[Bad, ...] = ()
    differentiable: bool = True
    second_order: bool = True
    keeps_dtype: bool = True
    tolerance: float = 2e-2
    finite_differences: bool = True
    jittable: bool = True
    vmappable: bool = True

    def __str__(self) -> str:
        return self.name.removeprefix("papyrax.") + (f"[{self.label}]" if self.label else "")


@dataclasses.dataclass(frozen=True)
class OptimizerCase:
    """One optimizer, for the suite that every optax transformation meets.

    Attributes:
      name: dotted public name, such as "papyrax.optim.adahessian".
      static: arguments of the factory; with a learning rate where it takes one.
      numeric: the names of hyper-parameters that `optax.inject_hyperparams` may inject.
      extra: `extra(loss, params, batch, key) -> dict` of keyword arguments for `tx.update`
        (curvature, obj_fn, ...), where `loss(params, batch)` is a scalar; None for a transformation
        that needs gradients alone.
      label: tells several cases of one factory apart.
      descends: whether it alone lowers a convex loss when its updates are applied (False for a
        bare `scale_by_x`, whose sign is that of the gradient).
      bad: factory arguments that must raise.
    """

    name: str
    static: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    numeric: tuple[str, ...] = ()
    extra: Callable[..., dict[str, Any]] | None = None
    label: str = ""
    descends: bool = True
    bad: tuple[Bad, ...] = ()

    def __str__(self) -> str:
        return self.name.removeprefix("papyrax.") + (f"[{self.label}]" if self.label else "")
