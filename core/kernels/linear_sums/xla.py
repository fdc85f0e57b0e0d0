"""The passes in plain XLA: a loop over chunks of the classes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .passes import Pass, Tiles


def run(work: Pass, chunk: int) -> Tiles:
    """The results of a pass, by name: those [n], and "x" [n, d], "w" [d, v] and "b" [v].

    The last chunk ends with the last class: classes seen before count for nothing.
    """
    wide, factors = work.wide, work.factors
    n, classes = work.labels.shape[0], work.w["w"].shape[1]

    def dot(spec: str, a: Array, b: Array) -> Array:
        a, b = a.astype(factors), b.astype(factors)
        return jnp.einsum(spec, a, b, preferred_element_type=wide)

    rows = {name: a[:, None] for name, a in work.rows.items()}

    def body(carry: Tiles, w: Tiles, b: Tiles, start: Any, fresh: Any) -> tuple[Tiles, Tiles]:
        z = {
            name: sum(dot("nd,dv->nv", work.x[i], w[j]) for i, j in pairs)
            + (b[name].astype(wide) if name in b else 0)
            for name, pairs in work.logits.items()
        }
        is_label = (work.labels - start)[:, None] == jnp.arange(chunk, dtype=work.labels.dtype)
        new, tiles = work.step(z, is_label, fresh, rows, carry)
        if work.to_x:
            new["x"] = carry["x"] + sum(dot("nv,dv->nd", tiles[i], w[j]) for i, j in work.to_x)
        columns = {}
        if work.to_w:
            columns["w"] = sum(dot("nd,nv->dv", work.x[i], tiles[j]) for i, j in work.to_w)
        if work.to_b is not None:
            columns["b"] = jnp.sum(tiles[work.to_b], 0)
        return new, columns

    def step(i: Array, state: Any) -> Any:
        carry, out = state
        start = jnp.minimum(i * chunk, classes - chunk)
        fresh = None if classes % chunk == 0 else start + jnp.arange(chunk) >= i * chunk
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=chunk)
        w, b = ({k: part(a, axis=a.ndim - 1) for k, a in t.items()} for t in (work.w, work.b))
        carry, columns = body(carry, w, b, start, fresh)

        def put(whole: Array, new: Array) -> Array:
            axis = whole.ndim - 1
            if fresh is not None:  # classes seen before keep what they have
                new = jnp.where(fresh, new, part(whole, axis=axis).astype(new.dtype))
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
