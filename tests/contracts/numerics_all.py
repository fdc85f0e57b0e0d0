"""Declarations for `papyrax.numerics`."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def one(rng):
    return {"x": rng.normal(size=(3, 4))}


def checked(fn, x, **kwargs):
    fn(x=x, **kwargs)
    return x


CASES = [
    Case("papyrax.numerics.safe_abs", one, ("x",)),
    Case("papyrax.numerics.safe_sqrt", lambda rng: {"x": rng.uniform(0.5, 2, (3, 4))}, ("x",)),
    Case("papyrax.numerics.safe_log", lambda rng: {"x": rng.uniform(0.5, 2, (3, 4))}, ("x",)),
    Case(
        "papyrax.numerics.safe_divide",
        lambda rng: {
            "numerator": rng.normal(size=(3, 4)),
            "denominator": rng.uniform(0.5, 2, (3, 4)),
        },
        ("numerator", "denominator"),
    ),
    Case("papyrax.numerics.safe_norm", one, ("x",)),
    Case("papyrax.numerics.safe_norm", one, ("x",), {"axis": None, "keepdims": True}, "all axes"),
    Case("papyrax.numerics.safe_normalize", one, ("x",)),
    Case(
        "papyrax.numerics.upcast",
        one,
        ("x",),
        call=lambda fn, x: fn(x),
        keeps_dtype=False,
    ),
    Case(
        "papyrax.numerics.restore",
        one,
        ("x",),
        call=lambda fn, x: fn(jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32)), x),
    ),
    Case(
        "papyrax.numerics.accumulation_dtype",
        one,
        ("x",),
        call=lambda fn, x: x.astype(fn(x)),
        keeps_dtype=False,
    ),
    Case(
        "papyrax.numerics.check",
        one,
        ("x",),
        call=lambda fn, x, ok=True: fn(ok, "x", "is wrong") or x,
        bad=(Bad("x: is wrong", {"ok": False}),),
    ),
    Case(
        "papyrax.numerics.check_floating",
        one,
        ("x",),
        call=checked,
        bad=(Bad("x: got dtype int32", {"x": np.zeros(3, np.int32)}),),
    ),
    Case(
        "papyrax.numerics.check_integer",
        lambda rng: {"x": rng.integers(0, 5, (3,))},
        call=checked,
        differentiable=False,
        bad=(Bad("x: got dtype float32", {"x": np.zeros(3)}),),
    ),
    Case(
        "papyrax.numerics.check_count",
        one,
        ("x",),
        call=lambda fn, x, value=1: fn(value=value) or x,
        bad=tuple(Bad("value: got", {"value": v}) for v in (0, True, 2.5, "2")),
    ),
    Case(
        "papyrax.numerics.check_boolean",
        lambda rng: {"x": rng.integers(0, 2, (3,)) > 0},
        call=checked,
        differentiable=False,
        bad=(Bad("x: got dtype float32", {"x": np.zeros(3)}), Bad("x: got list", {"x": [True]})),
    ),
    Case(
        "papyrax.numerics.known_number",
        one,
        ("x",),
        call=lambda fn, x, value=0.5: fn("value", value) * x,
        bad=tuple(Bad("value: got", {"value": v}) for v in ("0.5", [1.0], np.zeros(2))),
    ),
    Case(
        "papyrax.numerics.check_key",
        one,
        ("x",),
        call=lambda fn, x, key=np.zeros(2, np.uint32): fn(key=key) or x,
        bad=tuple(Bad("key: got", {"key": v}) for v in (0, np.zeros(2), np.zeros(3, np.int32))),
    ),
    Case(
        "papyrax.numerics.check_positive",
        one,
        ("x",),
        call=lambda fn, x, value=1.0: fn(value=value) or x,
        bad=tuple(Bad("value: got", {"value": v}) for v in (0.0, -1.0, np.nan, np.inf)),
    ),
    Case(
        "papyrax.numerics.check_range",
        one,
        ("x",),
        call=lambda fn, x, value=0.5: fn("value", value, 0, 1, open_high=True) or x,
        bad=tuple(Bad("value: got", {"value": v}) for v in (-0.1, 1.0, np.nan)),
    ),
    Case(
        "papyrax.numerics.check_rank",
        one,
        ("x",),
        call=lambda fn, x: fn("x", x, 2) or x,
        bad=(Bad("x: got shape (3,), takes 2 axes", {"x": np.zeros(3)}),),
    ),
    Case(
        "papyrax.numerics.check_shape",
        one,
        ("x",),
        call=lambda fn, x: fn("x", x, (None, 4), "[batch, classes]") or x,
        rows=None,
        bad=(Bad("x: got shape (3, 5), takes (any, 4) [batch", {"x": np.zeros((3, 5))}),),
    ),
    Case(
        "papyrax.numerics.check_broadcastable",
        one,
        ("x",),
        call=lambda fn, x: fn("x", x, (2, 3, 4)) or x,
        rows=None,
        bad=(Bad("x: got shape (3, 5), takes", {"x": np.zeros((3, 5))}),),
    ),
]
