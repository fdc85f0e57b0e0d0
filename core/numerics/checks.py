"""Argument checks: a `ValueError` that names the argument, what it got and what it takes.

They look at shapes, dtypes and Python numbers, so they run while a function is traced and cost
nothing in the compiled program. A hyper-parameter that is itself traced (a schedule's value) cannot
be looked at and passes.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check(condition: bool, argument: str, message: str) -> None:
    """Raise `ValueError("argument: message")` unless `condition` holds.

    Args:
      condition: a Python bool; never a traced value.
      argument: the argument's name as the caller knows it.
      message: what it got and what it takes.

    Raises:
      ValueError: if the condition does not hold.

    >>> check(2 > 1, "margin", "got 1, takes a number above 1")
    """
    if not condition:
        raise ValueError(f"{argument}: {message}")


def _dtype(name: str, x: Any) -> Any:
    try:
        return jnp.result_type(x)
    except TypeError:
        raise ValueError(f"{name}: got {type(x).__name__}, takes an array") from None


def check_floating(**arrays: Any) -> None:
    """Raise unless every array (given by name) has a floating-point dtype.

    >>> check_floating(logits=jnp.zeros((2, 3)))
    """
    for name, x in arrays.items():
        dtype = _dtype(name, x)
        fits = jnp.issubdtype(dtype, jnp.floating)
        check(fits, name, f"got dtype {dtype}, takes floating point")


def check_integer(**arrays: Any) -> None:
    """Raise unless every array (given by name) has an integer dtype.

    >>> check_integer(labels=jnp.array([0, 1]))
    """
    for name, x in arrays.items():
        dtype = _dtype(name, x)
        check(jnp.issubdtype(dtype, jnp.integer), name, f"got dtype {dtype}, takes integers")


def check_boolean(**arrays: Any) -> None:
    """Raise unless every array (given by name) has a boolean dtype.

    >>> check_boolean(mask=jnp.array([True, False]))
    """
    for name, x in arrays.items():
        dtype = _dtype(name, x)
        check(dtype == jnp.bool_, name, f"got dtype {dtype}, takes bool")


def check_rank(
    argument: str, x: Any, rank: int | tuple[int, ...], *, at_least: bool = False
) -> None:
    """Raise unless `x` has the given rank (one of them, or at least it).

    >>> check_rank("query", jnp.zeros((1, 2, 3, 4)), 4)
    """
    got = np.ndim(x)
    if at_least:
        assert isinstance(rank, int)
        check(got >= rank, argument, f"got shape {np.shape(x)}, takes {rank} or more axes")
    else:
        ranks = (rank,) if isinstance(rank, int) else rank
        takes = " or ".join(map(str, ranks))
        check(got in ranks, argument, f"got shape {np.shape(x)}, takes {takes} axes")


def check_shape(argument: str, x: Any, shape: tuple[int | None, ...], meaning: str = "") -> None:
    """Raise unless `x` has `shape`, where `None` stands for any length.

    Args:
      argument: the argument's name.
      x: an array.
      shape: the shape that it must have.
      meaning: the shape in words, for the message: "[batch, classes]".

    Raises:
      ValueError: naming the argument, its shape and the shape it takes.

    >>> check_shape("labels", jnp.zeros((4,), int), (4,), "[batch], as logits")
    """
    got = np.shape(x)
    same = len(got) == len(shape) and all(e is None or e == g for g, e in zip(got, shape))
    wanted = "(" + ", ".join("any" if e is None else str(e) for e in shape) + ")"
    check(same, argument, f"got shape {got}, takes {wanted}{' ' + meaning if meaning else ''}")


def check_broadcastable(argument: str, x: Any, shape: tuple[int, ...], meaning: str = "") -> None:
    """Raise unless `x` can be broadcast to exactly `shape`.

    >>> check_broadcastable("mask", jnp.ones((1, 3), bool), (2, 3))
    """
    got = np.shape(x)
    fits = len(got) <= len(shape) and all(
        g in (1, e) for g, e in zip(reversed(got), reversed(shape))
    )
    check(
        fits,
        argument,
        f"got shape {got}, takes a shape that broadcasts to {tuple(shape)}"
        f"{' ' + meaning if meaning else ''}",
    )


def _known(name: str, x: Any) -> float | None:
    """The number that `x` is, or None where it is traced, absent or an array of several."""
    if x is None or isinstance(x, jax.core.Tracer) or np.ndim(x) != 0:
        return None
    return known_number(name, x)


def known_number(argument: str, x: Any) -> float:
    """A number that must be known while the function is traced.

    Args:
      argument: the argument's name.
      x: the number.

    Returns:
      It as a Python float.

    Raises:
      ValueError: for what is no number, or a traced one.

    >>> known_number("scale", np.float32(0.5))
    0.5
    """
    number: float | None = None
    if not isinstance(x, str | bytes):  # "0.5" is a number for Python
        with contextlib.suppress(TypeError, ValueError):
            number = float(x)
    takes = "takes a number that is known when the function is traced"
    if number is None:
        raise ValueError(f"{argument}: got {x!r}, {takes}")
    return number


def check_positive(**values: Any) -> None:
    """Raise unless every number (given by name) is above zero and finite.

    >>> check_positive(temperature=0.1)
    """
    for name, x in values.items():
        known = _known(name, x)
        check(
            known is None or (known > 0 and np.isfinite(known)),
            name,
            f"got {x}, takes a positive number",
        )


def check_count(**values: Any) -> None:
    """Raise unless every number (given by name) is an integer, not an array, of one or more.

    >>> check_count(classes=10, features=64)
    """
    for name, value in values.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        check(whole and value >= 1, name, f"got {value!r}, takes an integer of 1 or more")


def check_key(**keys: Any) -> None:
    """Raise unless every one (given by name) is one random key, typed or raw.

    >>> check_key(key=jax.random.key(0))
    """
    for name, key in keys.items():
        dtype = getattr(key, "dtype", None)
        typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
        raw = dtype == jnp.uint32 and np.ndim(key) == 1
        got = type(key).__name__ if dtype is None else f"dtype {dtype} and shape {np.shape(key)}"
        check(
            raw or (typed and np.ndim(key) == 0),
            name,
            f"got {got}, takes one random key such as jax.random.key(0)",
        )


def check_range(
    argument: str,
    x: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raise unless the number `x` lies between `low` and `high` (ends included unless open).

    >>> check_range("label_smoothing", 0.1, 0, 1, open_high=True)
    """
    known = _known(argument, x)
    if known is None:
        return
    inside = not np.isnan(known)
    if low is not None:
        inside &= known > low if open_low else known >= low
    if high is not None:
        inside &= known < high if open_high else known <= high
    interval = (
        f"{'(' if open_low or low is None else '['}{'-inf' if low is None else low}, "
        f"{'inf' if high is None else high}{')' if open_high or high is None else ']'}"
    )
    check(inside, argument, f"got {x}, takes a number in {interval}")
