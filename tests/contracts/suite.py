"""Finds the declarations and knows how to call what they declare."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import contracts
import papyrax
from contracts.case import Arrays, Case, OptimizerCase

ROOMS = tuple(name for name in papyrax.__all__ if not name.startswith("_"))


@functools.cache
def declarations() -> tuple[Case | OptimizerCase, ...]:
    """All cases of all modules in `tests/contracts`, in a stable order."""
    cases: list[Case | OptimizerCase] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(contracts.__path__)):
        cases += getattr(importlib.import_module(f"contracts.{module}"), "CASES", [])
    return tuple(cases)


def functions() -> list[Case]:
    return [case for case in declarations() if isinstance(case, Case)]


def optimizers() -> list[OptimizerCase]:
    return [case for case in declarations() if isinstance(case, OptimizerCase)]


def resolve(name: str) -> Any:
    """The object of a dotted public name."""
    thing: Any = papyrax
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    return thing


def public_names() -> Iterator[tuple[str, Any]]:
    """Every function and class that a room exports and that is defined in papyrax."""
    for room in ROOMS:
        module = getattr(papyrax, room)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            ours = (getattr(thing, "__module__", None) or "").startswith("papyrax")
            if ours and (inspect.isfunction(thing) or inspect.isclass(thing) or callable(thing)):
                yield f"papyrax.{room}.{name}", thing


def example(case: Case, dtype: Any = np.float32, seed: int = 0) -> Arrays:
    """The case's arrays with floats in `dtype`."""
    return cast(case.arrays(np.random.default_rng(seed)), dtype)


def cast(arrays: Arrays, dtype: Any) -> Arrays:
    def one(x: Any) -> Any:
        if isinstance(x, np.ndarray | np.generic | float):
            x = np.asarray(x)
            if np.issubdtype(x.dtype, np.floating):
                return jnp.asarray(x, dtype)
            if np.issubdtype(x.dtype, np.integer):
                return jnp.asarray(x, x.dtype if x.dtype in (np.uint8, np.uint32) else jnp.int32)
            return jnp.asarray(x)
        return x

    return jax.tree.map(one, arrays)


def call(case: Case, arrays: Arrays, **change: Any) -> Any:
    """What the function returns for the arrays and the case's hyper-parameters."""
    fn = resolve(case.name)
    kwargs = {**case.static, **arrays, **change}
    return case.call(fn, **kwargs) if case.call else fn(**kwargs)


def floats(tree: Any) -> list[jax.Array]:
    """The floating-point leaves of a result."""
    leaves = [x for x in jax.tree.leaves(tree) if not isinstance(x, str | bool | int)]
    return [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating)]


def scalarize(tree: Any) -> jax.Array:
    """A weighted sum of all floating outputs, whose weights make no entry's gradient cancel."""
    total = jnp.zeros(())
    for x in floats(tree):
        weights = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) + 1.5
        total = total + jnp.sum(weights * x)
    return total


def loss_of(case: Case, arrays: Arrays) -> Callable[[Arrays], jax.Array]:
    """The scalarized function of the arguments in `case.wrt` alone."""
    rest = {k: v for k, v in arrays.items() if k not in case.wrt}
    return lambda wrt: scalarize(call(case, {**rest, **wrt}))


def direction(tree: Any, seed: int = 1) -> Any:
    """A fixed direction of the shape of `tree`, with entries of order one."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(-1, 1, x.shape), x.dtype), tree)


def extremes(case: Case, arrays: Arrays) -> dict[str, Arrays]:
    """The inputs at which value, gradient and second derivative must be finite."""
    out: dict[str, Arrays] = {}

    def changed(label: str, f: Callable[[Any], Any], names: tuple[str, ...]) -> None:
        if label not in case.skip_extremes:
            out[label] = {
                k: jax.tree.map(lambda x: f(plain(x)), v) if k in names else v
                for k, v in arrays.items()
            }

    def plain(x: Any) -> Any:  # NumPy compiles nothing
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)

    def repeat(x: Any, shape: tuple[int, ...]) -> Any:
        return (np if isinstance(x, np.ndarray) else jnp).broadcast_to(x, shape)

    def alternate(x: Any) -> Any:
        signs = 1 - 2 * (np.arange(x.size) % 2)
        return (1e4 * signs).astype(x.dtype).reshape(x.shape)

    if case.wrt:
        changed("+1e4", lambda x: np.full_like(x, 1e4), case.wrt)
        changed("-1e4", lambda x: np.full_like(x, -1e4), case.wrt)
        changed("alternating +-1e4", alternate, case.wrt)
        changed("example times 1e4", lambda x: x * np.asarray(1e4, x.dtype), case.wrt)
        changed("zeros", np.zeros_like, case.wrt)
    if case.rows is not None:
        names = case.rows_in or tuple(arrays)
        first = (slice(None),) * case.rows + (slice(0, 1),)
        changed("one row", lambda x: x[first], names)
        changed("duplicated rows", lambda x: repeat(x[first], x.shape), names)
    masks = tuple(k for k, v in arrays.items() if hasattr(v, "dtype") and v.dtype == jnp.bool_)
    if masks:
        changed("fully masked", np.zeros_like, masks)
    if case.extremes:
        out |= {k: cast(v, jnp.float32) for k, v in case.extremes(arrays).items()}
    return out
