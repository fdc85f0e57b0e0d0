"""The passes in plain XLA: a loop over chunks of the classes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .passes import Pass, Tiles


def _dot(work: Pass, spec: str, a: Array, b: Array) -> Array:
    a, b = a.astype(work.factors), b.astype(work.factors)
    return jnp.einsum(spec, a, b, preferred_element_type=work.wide)


def _part(work: Pass, skip: Any, own: Tiles) -> tuple[Tiles, Tiles]:
    """A chunk at once."""
    z = {
        name: sum(_dot(work, "nd,dv->nv", work.x[i], work.w[j]) for i, j in pairs)
        + (work.b[name].astype(work.wide) if name in work.b else 0)
        for name, pairs in work.logits.items()
    }
    column = jnp.arange(work.w["w"].shape[1], dtype=jnp.int32)
    seen = None if skip is None else column >= skip
    rows = {name: a[:, None] for name, a in work.rows.items()}
    return work.step(z, work.indices[:, None] == column, seen, rows, own)


def run(work: Pass, chunk: int, part: Any = None) -> Tiles:
    """The results of a pass, by name: those [n], and "x" [n, d], "w" [d, v] and "b" [v].

    The last chunk ends with the last class: classes seen before count for nothing.

    Args:
      work: the pass.
      chunk: classes at a time.
      part: `part(work, skip, own) -> (new, tiles)` takes the pass over the classes of a chunk, of
        which the first `skip` count for nothing (None: all count), and the results [n, 1] so far.
        It returns those thereafter and the tiles; None for plain XLA.
    """
    wide = work.wide
    n, classes = work.labels.shape[0], work.w["w"].shape[1]

    def body(carry: Tiles, here: Pass, skip: Any) -> tuple[Tiles, Tiles]:
        new, tiles = (part or _part)(here, skip, {name: carry[name] for name in work.starts})
        if work.to_x:
            parts = [_dot(work, "nv,dv->nd", tiles[i], here.w[j]) for i, j in work.to_x]
            new["x"] = carry["x"] + sum(parts)
        columns = {}
        if work.to_w:
            parts = [_dot(work, "nd,nv->dv", work.x[i], tiles[j]) for i, j in work.to_w]
            columns["w"] = sum(parts)
        if work.to_b is not None:
            columns["b"] = jnp.sum(tiles[work.to_b], 0, dtype=wide)
        return new, columns

    def step(i: Array, state: Any) -> Any:
        carry, out = state
        start = jnp.minimum(i * chunk, classes - chunk)
        skip = None if classes % chunk == 0 else i * chunk - start
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=chunk)
        w, b = ({k: cut(a, axis=a.ndim - 1) for k, a in t.items()} for t in (work.w, work.b))
        here = work._replace(w=w, b=b, labels=work.indices - start)
        carry, columns = body(carry, here, skip)

        def put(whole: Array, new: Array) -> Array:
            axis = whole.ndim - 1
            if skip is not None:  # classes seen before keep what they have
                old = cut(whole, axis=axis).astype(new.dtype)
                new = jnp.where(jnp.arange(chunk) >= skip, new, old)
            new = new.astype(whole.dtype)
            return jax.lax.dynamic_update_slice_in_dim(whole, new, start, axis)

        return carry, {name: put(out[name], new) for name, new in columns.items()}

    carry: Tiles = {name: jnp.full((n, 1), v, wide) for name, v in work.starts.items()}
    if work.to_x:
        carry["x"] = jnp.zeros(work.x["x"].shape, wide)
    out: Tiles = {}
    if work.to_w:
        out["w"] = jnp.zeros_like(work.w["w"])
    if work.to_b is not None:
        out["b"] = jnp.zeros(classes, work.b["z"].dtype)
    carry, out = jax.lax.fori_loop(0, -(-classes // chunk), step, (carry, out))
    results = {name: carry[name][:, 0] for name in work.starts} | out
    if work.to_x:
        results["x"] = carry["x"].astype(work.x["x"].dtype)
    return results
