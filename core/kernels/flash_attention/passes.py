"""The passes over tiles that make F, J, B, H and K, written once for all implementations.

A pass says which arrays it reads, what is done with a tile of logits and which sums are kept. An
implementation walks the tiles; its `Algebra` says how tiles are laid out and multiplied. Arrays are
named by their axes, as in einsum: "b" batch, "k" key heads, "g" group, "t" queries, "s" keys, "h"
and "e" features. An axis of length one is shared by all tiles. The formulas are in `formulas.py`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from . import formulas
from .operands import Config, Inputs, Masks, Output, logits_dtype

QUERY, KEY, VALUE, OUT = "bkgth", "bksh", "bkse", "bkgte"
ROW, PAIR = "bkgt", "bkgts"

Tiles = dict[str, Any]


class Algebra(Protocol):
    """A tile of logits has queries and keys for axes, in the implementation's order."""

    def qk(self, q: Any, k: Any) -> Any:
        """Q K^T: a tile of logits from tiles of rows [queries, features] and [keys, features]."""

    def pv(self, p: Any, v: Any) -> Any:
        """P V: a sum over keys for every query."""

    def qp(self, q: Any, p: Any) -> Any:
        """P^T Q: a sum over queries for every key."""

    def per_row(self, x: Any) -> Any:
        """A statistic of queries, ready to meet a tile of logits or a result of `pv`."""

    def like_pv(self, x: Any) -> Any:
        """A tile of rows [queries, features], ready to meet a result of `pv`."""

    def over_keys(self, reduce: Callable[..., Any], p: Any) -> Any:
        """A statistic of queries from a tile of logits, by `jnp.sum` or `jnp.max`."""


class Sum(NamedTuple):
    """What a pass accumulates.

    Attributes:
      axes: its axes.
      shape: its shape.
      start: the value that it begins with.
      state: whether a step replaces it, rather than adds to it.
    """

    axes: str
    shape: tuple[int, ...]
    start: float = 0.0
    state: bool = False


class Pass(NamedTuple):
    """One walk over the tiles.

    Attributes:
      name: of the kernel.
      operands: arrays with their axes, by name.
      sums: accumulated in the dtype of the logits.
      step: `step(algebra, tiles, seen, keep, own)` gives what each sum gains from a tile, by name,
        as functions without arguments, so that only what is kept is computed. `seen` is a boolean
        tile or None, `keep` dropout's factors or None, `own` the tiles of the states.
      finish: `finish(algebra, tiles, sums)` turns sums that belong together into results, row by
        row or key by key.
      results: axes and dtype of the results, by name.
    """

    name: str
    operands: dict[str, tuple[Any, str]]
    sums: dict[str, Sum]
    step: Callable[[Algebra, Tiles, Any, Any, Tiles], dict[str, Callable[[], Any]]]
    finish: Callable[[Algebra, Tiles, Tiles], Tiles]
    results: dict[str, tuple[str, Any]]


class Lazy(dict[str, Any]):
    """Tiles by name, loaded where they are used: the values are functions without arguments."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)()

    def get(self, name: str, default: Any = None) -> Any:
        """The tile, or `default` where there is none."""
        return super().get(name, lambda: default)()


def sums_by_shared_axes(work: Pass, size: dict[str, int]) -> dict[str, list[str]]:
    """The names of the sums of a pass, by the axes that they run over."""
    groups: dict[str, list[str]] = {}
    for name, s in work.sums.items():
        length = dict(zip(s.axes, s.shape, strict=True))
        shared = [a for a in "bkgts" if a not in length or (length[a] == 1 and size[a] > 1)]
        groups.setdefault("".join(shared), []).append(name)
    return groups


@dataclasses.dataclass(frozen=True)
class PassKernel:
    """The sums `names` of a pass, which run over the axes `shared`, as a kernel of a backend."""

    work: Pass
    names: list[str]
    shared: str
    masks: Masks
    config: Config
    size: dict[str, int]
    acc: Any
    algebra: Any

    @functools.cached_property
    def own_results(self) -> dict[str, tuple[str, tuple[int, ...], Any]]:
        """Axes, shapes and dtypes of the results that the sums are turned into."""
        shape_of = {s.axes: s.shape for s in (self.work.sums[n] for n in self.names)}
        found = {}
        for name, (axes, dtype) in self.work.results.items():
            # Statistics of rows become results of other names, of the same shapes.
            if name in self.names or ROW in shape_of:
                shape = self.work.sums[name].shape if name in self.names else shape_of[axes]
                found[name] = axes, shape, dtype
        return found


def run_kernels(
    kernel: Callable[..., Any],
    algebra: Callable[..., Any],
    work: Pass,
    x: Inputs,
    masks: Masks,
    config: Config,
    interpret: bool,
) -> Tiles:
    """Run a backend's kernels of a pass, one for the sums over the same axes."""
    b, k, g, t, _ = x.query.shape
    size = {"b": b, "k": k, "g": g, "t": t, "s": x.key.shape[2]}
    acc = logits_dtype(x)
    tiles = algebra(x.query.dtype, acc, config.precision)
    results: Tiles = {}
    for shared, names in sums_by_shared_axes(work, size).items():
        one = kernel(work, names, shared, masks, config, size, acc, tiles)
        results |= one.call(interpret)
    return {name: results[name] for name in work.results}


def _inputs(x: Inputs, suffix: str = "") -> dict[str, tuple[Any, str]]:
    parts = zip(("q", "k", "v", "bias"), x, (QUERY, KEY, VALUE, PAIR), strict=True)
    return {f"{name}{suffix}": (a, axes) for name, a, axes in parts if a is not None}


def _statistics(y: Output) -> dict[str, tuple[Any, str]]:
    # A row that sees nothing: exp(s - inf) = 0 for every logit.
    logsum = jnp.where(y.logsum == -jnp.inf, jnp.inf, y.logsum)
    return {"shift": (y.shift, ROW), "logsum": (logsum, ROW)}


def _weights(a: Algebra, c: Tiles, seen: Any, config: Config) -> formulas.Weights:
    z = config.scale * a.qk(c["q"], c["k"])
    statistics = a.per_row(c["shift"]), a.per_row(c["logsum"])
    return formulas.weights(z, c.get("bias"), seen, *statistics, config.cap)


def _z_dot(a: Algebra, c: Tiles, suffix: str, config: Config) -> Any:
    return config.scale * (a.qk(c[f"q{suffix}"], c["k"]) + a.qk(c["q"], c[f"k{suffix}"]))


def _rows(x: Inputs, *names: str, **more: Sum) -> dict[str, Sum]:
    """Sums over keys: the statistics called `names` and "out"."""
    shape = x.query.shape[:-1]
    sums = {name: Sum(ROW, shape) for name in names}
    return sums | {"out": Sum(OUT, (*shape, x.value.shape[-1]))} | more


def forward(x: Inputs, config: Config) -> Pass:
    """F, two products a tile: the softmax's maximum and total grow as tiles are seen."""

    def step(a: Algebra, c: Tiles, seen: Any, keep: Any, own: Tiles) -> Any:
        z = config.scale * a.qk(c["q"], c["k"])
        s, _ = formulas.logits(z, c.get("bias"), seen, config.cap)
        largest = jnp.maximum(own["max"], a.over_keys(jnp.max, s))
        base = jnp.where(largest == -jnp.inf, 0, largest)
        e = jnp.exp(s - a.per_row(base))
        shrink = jnp.exp(own["max"] - base)
        gain = a.pv(formulas.times(keep, e), c["v"])
        return {
            "max": lambda: largest,
            "total": lambda: own["total"] * shrink + a.over_keys(jnp.sum, e),
            "out": lambda: own["out"] * a.per_row(shrink) + gain,
        }

    def finish(a: Algebra, c: Tiles, s: Tiles) -> Tiles:
        empty = s["total"] == 0
        total = jnp.where(empty, 1, s["total"])
        return {
            "out": s["out"] / a.per_row(total),
            "shift": jnp.where(empty, 0, s["max"]),
            "logsum": jnp.where(empty, -jnp.inf, jnp.log(total)),
        }

    shape, dtype = x.query.shape[:-1], logits_dtype(x)
    sums = {
        "max": Sum(ROW, shape, -jnp.inf, True),
        "total": Sum(ROW, shape, 0.0, True),
        "out": Sum(OUT, (*shape, x.value.shape[-1]), 0.0, True),
    }
    results = {"out": (OUT, x.query.dtype), "shift": (ROW, dtype), "logsum": (ROW, dtype)}
    return Pass("forward", _inputs(x), sums, step, finish, results)


def tangent(x: Inputs, y: Output, t: Inputs, config: Config) -> Pass:
    """J, five products a tile."""

    def step(a: Algebra, c: Tiles, seen: Any, keep: Any, own: Tiles) -> Any:
        w = _weights(a, c, seen, config)
        weighted = w.p * formulas.logits_dot(w, _z_dot(a, c, "'", config), c.get("bias'"))
        drop = functools.partial(formulas.times, keep)
        return {
            "logsum": lambda: a.over_keys(jnp.sum, weighted),
            "out": lambda: a.pv(drop(weighted), c["v"]) + a.pv(drop(w.p), c["v'"]),
        }

    def finish(a: Algebra, c: Tiles, s: Tiles) -> Tiles:
        return {"logsum": s["logsum"], "out": s["out"] - a.per_row(s["logsum"]) * a.like_pv(c["o"])}

    operands = _inputs(x) | _inputs(t, "'") | _statistics(y) | {"o": (y.out, OUT)}
    results = {"out": (OUT, y.out.dtype), "logsum": (ROW, logits_dtype(x))}
    return Pass("tangent", operands, _rows(x, "logsum"), step, finish, results)


def _delta(y: Output, g: Output, dtype: Any) -> Any:
    return jnp.sum(g.out.astype(dtype) * y.out.astype(dtype), -1) - g.logsum


def _delta_dot(y: Output, g: Output, y_dot: Output, g_dot: Output, dtype: Any) -> Any:
    out, out_dot = y.out.astype(dtype), y_dot.out.astype(dtype)
    mixed = g_dot.out.astype(dtype) * out + g.out.astype(dtype) * out_dot
    return jnp.sum(mixed, -1) - g_dot.logsum


def _like(x: Inputs) -> tuple[dict[str, Sum], dict[str, tuple[str, Any]]]:
    """Sums and results of the shapes of the inputs."""
    arrays = _inputs(x)
    sums = {name: Sum(axes, a.shape) for name, (a, axes) in arrays.items()}
    return sums, {name: (axes, a.dtype) for name, (a, axes) in arrays.items()}


def _as_they_are(a: Algebra, c: Tiles, s: Tiles) -> Tiles:
    return s


def cotangent(x: Inputs, y: Output, g: Output, config: Config) -> Pass:
    """B, five products a tile."""

    def step(a: Algebra, c: Tiles, seen: Any, keep: Any, own: Tiles) -> Any:
        w = _weights(a, c, seen, config)
        ds, dz = formulas.cotangents(w, a.qk(c["g"], c["v"]), keep, a.per_row(c["delta"]))
        dz = config.scale * dz
        return {
            "q": lambda: a.pv(dz, c["k"]),
            "k": lambda: a.qp(c["q"], dz),
            "v": lambda: a.qp(c["g"], formulas.times(keep, w.p)),
            "bias": lambda: ds,
        }

    operands = _inputs(x) | _statistics(y)
    operands |= {"g": (g.out, OUT), "delta": (_delta(y, g, logits_dtype(x)), ROW)}
    sums, results = _like(x)
    return Pass("cotangent", operands, sums, step, _as_they_are, results)


def hessian(
    x: Inputs, y: Output, g: Output, x_dot: Inputs, y_dot: Output, g_dot: Output, config: Config
) -> Pass:
    """H, twelve products a tile."""

    def step(a: Algebra, c: Tiles, seen: Any, keep: Any, own: Tiles) -> Any:
        w = _weights(a, c, seen, config)
        dp_dot = a.qk(c["g'"], c["v"]) + a.qk(c["g"], c["v'"])
        rows = (a.per_row(c[name]) for name in ("mu", "delta", "delta'"))
        z_dot, dp = _z_dot(a, c, "'", config), a.qk(c["g"], c["v"])
        s = formulas.cotangents_dot(w, z_dot, c.get("bias'"), dp, dp_dot, keep, *rows)
        dz, dz_dot = config.scale * s.dz, config.scale * s.dz_dot
        drop = functools.partial(formulas.times, keep)
        return {
            "q": lambda: a.pv(dz_dot, c["k"]) + a.pv(dz, c["k'"]),
            "k": lambda: a.qp(c["q"], dz_dot) + a.qp(c["q'"], dz),
            "v": lambda: a.qp(c["g"], drop(s.p_dot)) + a.qp(c["g'"], drop(w.p)),
            "bias": lambda: s.ds_dot,
        }

    dtype = logits_dtype(x)
    operands = _inputs(x) | _inputs(x_dot, "'") | _statistics(y)
    operands |= {"g": (g.out, OUT), "g'": (g_dot.out, OUT), "mu": (y_dot.logsum, ROW)}
    operands |= {
        "delta": (_delta(y, g, dtype), ROW),
        "delta'": (_delta_dot(y, g, y_dot, g_dot, dtype), ROW),
    }
    sums, results = _like(x)
    return Pass("hessian", operands, sums, step, _as_they_are, results)


def second_tangent(
    x: Inputs,
    y: Output,
    t: Inputs,
    t_mu: Any,
    x_dot: Inputs,
    y_dot: Output,
    t_dot: Inputs,
    config: Config,
) -> Pass:
    """K, thirteen products a tile; `t_mu` is logsum' along t.

    With C = (S1 - mu1) o (S2 - mu2) + S12 and kappa = rowsum(P o C): logsum12 = kappa and
    O12 = (D o P o C) V + (D o P1) V2 + (D o P2) V1 + (D o P) V12 - kappa O.
    """

    def step(a: Algebra, c: Tiles, seen: Any, keep: Any, own: Tiles) -> Any:
        w = _weights(a, c, seen, config)
        z1, z2 = _z_dot(a, c, "1", config), _z_dot(a, c, "2", config)
        z12 = config.scale * (a.qk(c["q1"], c["k2"]) + a.qk(c["q2"], c["k1"]))
        z12 += _z_dot(a, c, "12", config)
        s12 = formulas.logits_dot(w, z12, c.get("bias12"))
        if w.tanh is not None:
            s12 += w.bend * z1 * z2
        c1 = formulas.logits_dot(w, z1, c.get("bias1")) - a.per_row(c["mu1"])
        c2 = formulas.logits_dot(w, z2, c.get("bias2")) - a.per_row(c["mu2"])
        weighted = w.p * (c1 * c2 + s12)
        drop = functools.partial(formulas.times, keep)

        def out() -> Any:
            out = a.pv(drop(weighted), c["v"]) + a.pv(drop(w.p * c1), c["v2"])
            return out + a.pv(drop(w.p * c2), c["v1"]) + a.pv(drop(w.p), c["v12"])

        return {"logsum": lambda: a.over_keys(jnp.sum, weighted), "out": out}

    def finish(a: Algebra, c: Tiles, s: Tiles) -> Tiles:
        return {"logsum": s["logsum"], "out": s["out"] - a.per_row(s["logsum"]) * a.like_pv(c["o"])}

    operands = _inputs(x) | _inputs(t, "1") | _inputs(x_dot, "2") | _inputs(t_dot, "12")
    operands |= _statistics(y) | {"o": (y.out, OUT)}
    operands |= {"mu1": (t_mu, ROW), "mu2": (y_dot.logsum, ROW)}
    results = {"out": (OUT, y.out.dtype), "logsum": (ROW, logits_dtype(x))}
    return Pass("second_tangent", operands, _rows(x, "logsum"), step, finish, results)
