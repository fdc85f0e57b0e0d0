"""The passes over tiles of logits, written once for all implementations.

A pass says which matrix products make a tile's logits and their tangents, what is done with the
tile, and which products of the tiles that come out are summed. An implementation walks the tiles.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ...numerics import accumulation_dtype

Tiles = dict[str, Any]
# Logits are sums of products of an array [n, d] and one [d, v], by their names.
Products = tuple[tuple[str, str], ...]


class Config(NamedTuple):
    """How the tiles of logits are walked.

    Attributes:
      chunk: classes at a time, of "xla" and of the derivatives of "pallas_triton".
      implementation: one of `api.IMPLEMENTATIONS`, or None for "xla".
      tiles: (rows, classes, features) of a tile, of the kernels; None for what suits the shapes.
    """

    chunk: int
    implementation: str | None = None
    tiles: tuple[int, int, int] | None = None


class Pass(NamedTuple):
    """One walk over the tiles of the logits [n, v].

    Attributes:
      name: of the kernel.
      x: arrays [n, d] by name.
      w: arrays [d, v] by name.
      b: arrays [v], by the name of the logits that they are added to.
      rows: arrays [n] by name, in the dtype of sums.
      labels: [n].
      logits: what is multiplied for each kind of logits, by name.
      starts: results [n] by name, with the values that they begin with.
      step: `step(z, is_label, seen, rows, own) -> (new, tiles)` has tiles of logits `z` by name;
        `is_label` and `seen`, booleans of their shape or None where all are seen; `rows` and the
        results so far, `own`, [rows, 1] by name. It returns the results thereafter, and tiles.
      to_x: for a result [n, d]: the tiles and arrays [d, v] with whose transposes they multiply.
      to_w: for a result [d, v]: the arrays [n, d] whose transposes multiply which tiles.
      to_b: for a result [v]: the tile that is summed over its rows.
    """

    name: str
    x: dict[str, Array]
    w: dict[str, Array]
    b: dict[str, Array]
    rows: dict[str, Array]
    labels: Array
    logits: dict[str, Products]
    starts: dict[str, float]
    step: Callable[[Tiles, Any, Any, Tiles, Tiles], tuple[Tiles, Tiles]]
    to_x: Products = ()
    to_w: Products = ()
    to_b: str | None = None

    @property
    def inputs(self) -> list[Array]:
        """Its floating-point arrays of the layer."""
        return [*self.x.values(), *self.w.values(), *self.b.values()]

    @property
    def indices(self) -> Array:
        """The labels, where those of no class are -1 or the number of classes."""
        labels = self.labels.astype(jnp.promote_types(self.labels.dtype, jnp.int32))
        return jnp.clip(labels, -1, self.w["w"].shape[1]).astype(jnp.int32)

    @property
    def wide(self) -> Any:
        """The dtype of sums."""
        return accumulation_dtype(*self.inputs)

    @property
    def factors(self) -> Any:
        """The dtype of the factors of products."""
        dtype = jnp.result_type(*self.inputs)
        # The probabilities of a large vocabulary are below the smallest float16.
        return self.wide if dtype == jnp.float16 else dtype


def _phi(kind: str, u: Array) -> Array:
    return jnp.square(u) if kind == "squares" else jnp.abs(u)


def _slopes(kind: str, u: Array, is_label: Array) -> tuple[Array, Array]:
    """The first and the second derivative of phi."""
    if kind == "squares":
        return 2 * u, jnp.full_like(u, 2)
    if kind == "magnitudes":
        sign = (u > 0).astype(u.dtype) - (u < 0).astype(u.dtype)
        return sign, jnp.zeros_like(u)
    p = jnp.exp(u)
    if kind == "others":
        p = jnp.where(is_label, 0, p)
    return p, p


def _only(seen: Any, values: Any, other: float = 0.0) -> Any:
    return values if seen is None else jnp.where(seen, values, other)


def _add(own: Tiles, **parts: Any) -> Tiles:
    return {name: own[name] + jnp.sum(part, -1, keepdims=True) for name, part in parts.items()}


def _layer(layer: Any, suffix: str = "") -> tuple[Tiles, Tiles, Tiles]:
    x, w, b = layer
    return {f"x{suffix}": x}, {f"w{suffix}": w}, {} if b is None else {f"z{suffix}": b}


Z: Products = (("x", "w"),)
PARTS = {"phi": 0.0, "label": 0.0, "total": 0.0}


def _dot(suffix: str) -> Products:
    """What makes the tangent of the logits."""
    return ((f"x{suffix}", "w"), ("x", f"w{suffix}"))


def log_sums(at: Any, y: Array, kind: str) -> Pass:
    """The exponentials' maximum and sum, which grow as tiles are seen, the label and the total."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        there, z = _only(seen, t["z"]), _only(seen, t["z"], -jnp.inf)
        if kind == "others":
            z = jnp.where(is_label, -jnp.inf, z)
        top = jnp.maximum(own["top"], jnp.max(z, -1, keepdims=True))
        shift = jnp.where(top == -jnp.inf, 0, top)  # no class yet
        own = own | {"mass": own["mass"] * jnp.exp(own["top"] - shift)}
        parts = {"label": jnp.where(is_label, there, 0), "total": there}
        return {"top": top, **_add(own, mass=jnp.exp(z - shift), **parts)}, {}

    x, w, b = _layer(at)
    starts = {"top": -jnp.inf, "mass": 0.0, "label": 0.0, "total": 0.0}
    return Pass("log_sums", x, w, b, {}, y, {"z": Z}, starts, step)


def join(parts: Tiles) -> Tiles:
    """The results of a pass [n] from those of parts of the classes [parts, n]."""
    if "top" not in parts:
        return {name: jnp.sum(part, 0) for name, part in parts.items()}
    top = jnp.max(parts["top"], 0)
    shift = jnp.where(top == -jnp.inf, 0, top)
    mass = parts["mass"] * jnp.exp(parts["top"] - shift)
    return {"top": top} | {
        name: jnp.sum(part, 0) for name, part in (parts | {"mass": mass}).items() if name != "top"
    }


def sums(at: Any, y: Array, kind: str) -> Pass:
    """The three sums of u = z - c."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        u = _only(seen, t["z"] - r["c"])
        return _add(own, phi=_phi(kind, u), label=jnp.where(is_label, u, 0), total=u), {}

    x, w, b = _layer(at[:3])
    return Pass("sums", x, w, b, {"c": at[3]}, y, {"z": Z}, PARTS, step)


def tangent(at: Any, along: Any, y: Array, kind: str) -> Pass:
    """The derivative of the sums along a tangent of (x, W, b), at a given c."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        first, _ = _slopes(kind, t["z"] - r["c"], is_label)
        z_dot = _only(seen, t["z'"])
        phi = _only(seen, first * z_dot)
        return _add(own, phi=phi, label=jnp.where(is_label, z_dot, 0), total=z_dot), {}

    x, w, b = (p | q for p, q in zip(_layer(at[:3]), _layer(along, "'")))
    logits = {"z": Z, "z'": _dot("'")}
    return Pass("tangent", x, w, b, {"c": at[3]}, y, logits, PARTS, step)


def _weights(g: Any, suffix: str = "") -> Tiles:
    return {f"{name}{suffix}": a for name, a in zip(("g_p", "g_y", "g_s"), g, strict=True)}


def _gradient(first: Any, is_label: Any, r: Tiles, suffix: str = "") -> Any:
    """The gradient of Psi in the logits."""
    g_p, g_y, g_s = (r[f"{name}{suffix}"] for name in ("g_p", "g_y", "g_s"))
    return g_p * first + jnp.where(is_label, g_y + g_s, g_s)


def cotangent(at: Any, along: Any, y: Array, kind: str) -> Pass:
    """The gradient of Psi in (x, W, b)."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        first, _ = _slopes(kind, t["z"] - r["c"], is_label)
        return {}, {"dz": _only(seen, _gradient(first, is_label, r))}

    x, w, b = _layer(at[:3])
    rows = {"c": at[3]} | _weights(along)
    to: dict[str, Any] = {
        "to_x": (("dz", "w"),),
        "to_w": (("x", "dz"),),
        "to_b": "dz" if b else None,
    }
    return Pass("cotangent", x, w, b, rows, y, {"z": Z}, {}, step, **to)


def hessian(at: Any, along: Any, y: Array, kind: str, numbers: bool) -> Pass:
    """The Hessian of Psi in (x, W, b, c, g) times a vector; of c and g only with `numbers`."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        first, second = _slopes(kind, t["z"] - r["c"], is_label)
        z_dot = _only(seen, t["z'"])
        bend = second * (z_dot - r["c'"])
        dz = _only(seen, _gradient(first, is_label, r))
        dz_dot = _only(seen, r["g_p"] * bend + _gradient(first, is_label, r, "'"))
        tiles = {"dz": dz, "dz'": dz_dot}
        if not numbers:
            return {}, tiles
        c = _only(seen, -r["g_p"] * bend - r["g_p'"] * first)
        phi = _only(seen, first * (z_dot - r["c'"]))
        return _add(own, c=c, phi=phi, label=jnp.where(is_label, z_dot, 0), total=z_dot), tiles

    x, w, b = (p | q for p, q in zip(_layer(at[:3]), _layer(along[:3], "'")))
    rows = {"c": at[3], "c'": along[3]} | _weights(at[4]) | _weights(along[4], "'")
    to_x, to_w = (("dz'", "w"), ("dz", "w'")), (("x", "dz'"), ("x'", "dz"))
    to: dict[str, Any] = {"to_x": to_x, "to_w": to_w, "to_b": "dz'" if b else None}
    starts = {"c": 0.0, **PARTS} if numbers else {}
    logits = {"z": Z, "z'": _dot("'")}
    return Pass("hessian", x, w, b, rows, y, logits, starts, step, **to)


def curve(at: Any, along: Any, y: Array, kind: str) -> Pass:
    """The derivative of `tangent` along a tangent of (x, W, b, c)."""

    def step(t: Tiles, is_label: Any, seen: Any, r: Tiles, own: Tiles) -> tuple[Tiles, Tiles]:
        first, second = _slopes(kind, t["z"] - r["c"], is_label)
        both = _only(seen, t["both"])
        phi = _only(seen, first * both + second * t["z1"] * (t["z2"] - r["c'"]))
        return _add(own, phi=phi, label=jnp.where(is_label, both, 0), total=both), {}

    layers = _layer(at[:3]), _layer(at[4], "1"), _layer(along[:3], "2")
    x, w, b = (p | q | r for p, q, r in zip(*layers))
    both = (("x1", "w2"), ("x2", "w1"))
    logits = {"z": Z, "z1": _dot("1"), "z2": _dot("2"), "both": both}
    return Pass("curve", x, w, b, {"c": at[3], "c'": along[3]}, y, logits, PARTS, step)
