"""Attention operators as `attention_fn` of `flax.nnx.MultiHeadAttention`."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .. import attention
from ..numerics import check, check_count

Operator = Callable[..., Array]


def _operators() -> dict[str, Operator]:
    """The functions of `papyrax.attention` that take a query, a key and a value first."""
    found = {}
    for name in attention.__all__:
        thing = getattr(attention, name)
        takes = list(inspect.signature(thing).parameters) if inspect.isfunction(thing) else []
        if takes[:3] == ["query", "key", "value"]:
            found[name] = thing
    return found


def operator_of(operator: str | Operator, argument: str = "operator") -> Operator:
    """The function that `operator` names, or itself.

    Args:
      operator: a name in `papyrax.attention`, or a function.
      argument: what the caller calls it.

    Returns:
      The function.

    Raises:
      ValueError: naming the argument where there is none of this name.
    """
    if callable(operator):
        return operator
    known = _operators()
    check(
        isinstance(operator, str) and operator in known,
        argument,
        f"got {operator!r}, takes a function or one of {', '.join(sorted(known))}",
    )
    return known[operator]


def check_heads(dim: int, heads: int) -> None:
    """Raise unless the features of a token can be shared out among heads."""
    check_count(dim=dim, heads=heads)
    check(dim % heads == 0, "heads", f"got {heads}, takes a divisor of dim, {dim}")


def accepted_by(operator: Operator) -> Callable[[str], bool]:
    """Whether a function takes a keyword argument, by its name."""
    parameters = inspect.signature(operator).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda name: True
    return parameters.__contains__


def attention_fn(operator: str | Operator, **options: Any) -> Operator:
    """An attention operator as `attention_fn=` of `flax.nnx.MultiHeadAttention`.

    What the module asks for and the operator cannot do (dropout of weights, weights to look at,
    a mask between queries) raises instead of being left out. `dot_product_attention` drops weights
    of every example and head by themselves, so it needs `broadcast_dropout=False` of the module,
    whose default drops the same ones of all.

    Args:
      operator: an operator of `papyrax.attention` or its name, or any function
        `f(query, key, value, mask=..., is_causal=...)` of arrays [batch, length, heads, dim].
      **options: its keyword arguments, such as `epsilon=1e-6`; `is_causal=True` makes every call
        causal.

    Returns:
      A function of query [..., queries, heads, dim], key and value [..., keys, key_heads, dim] and
      the keyword arguments of `flax.nnx.dot_product_attention`, with values
      [..., queries, heads, value_dim]. Masks may be 0 and 1 of any dtype, as flax makes them.

    Raises:
      ValueError: for an unknown name or option; when called with dropout, `sow_weights` or a
        precision that the operator does not take.

    Source: the interface is that of flax 0.12, `flax/nnx/nn/attention.py`.

    >>> layer = nnx.MultiHeadAttention(
    ...     num_heads=4, in_features=16, decode=False, attention_fn=attention_fn("mala"),
    ...     rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 5, 16))).shape
    (2, 5, 16)
    """
    function = operator_of(operator)
    accepts = accepted_by(function)
    for name in options:
        check(
            accepts(name) and name not in ("query", "key", "value", "bias", "mask"),
            name,
            f"got {options[name]!r}, takes nothing: no option of {_name(function)}",
        )
    always_causal = bool(options.pop("is_causal", False))

    def call(
        query: Float[Array, "*B T N H"],
        key: Float[Array, "*B S K H"],
        value: Float[Array, "*B S K E"],
        bias: Any = None,
        mask: Any = None,
        *,
        dropout_rng: Any = None,
        dropout_rate: float = 0.0,
        broadcast_dropout: bool = True,
        deterministic: bool = False,
        dtype: Any = None,
        precision: Any = None,
        module: Any = None,
        promote_dtype: Callable[..., Any] = nnx.nn.dtypes.promote_dtype,
        is_causal: bool = always_causal,
    ) -> Float[Array, "*B T N E"]:
        wanted = dict(options)

        def hand_over(argument: str, name: str, given: Any, keywords: dict[str, Any]) -> None:
            check(
                all(map(accepts, keywords)),
                argument,
                f"got {given!r}, but {_name(function)} cannot do it; takes {name}",
            )
            wanted.update(keywords)

        if dropout_rate > 0 and not deterministic:
            dropout = {"dropout_rng": dropout_rng, "dropout_rate": dropout_rate}
            hand_over("dropout_rate", "0 or deterministic=True", dropout_rate, dropout)
            if broadcast_dropout or accepts("broadcast_dropout"):
                shared = {"broadcast_dropout": broadcast_dropout}
                hand_over("broadcast_dropout", "False", broadcast_dropout, shared)
        if module is not None:
            hand_over("module", "None (sow_weights=False)", type(module), {"module": module})
        if precision is not None and "precision" not in options:
            hand_over("precision", "None", precision, {"precision": precision})
        if is_causal or always_causal:
            hand_over("is_causal", "False", True, {"is_causal": True})
        query, key, value = promote_dtype((query, key, value), dtype=dtype)
        batch = query.shape[:-3]
        if bias is not None:
            hand_over("bias", "None", jnp.shape(bias), {"bias": _flat(bias, batch)})
        if mask is not None:
            mask = _flat(jnp.asarray(mask).astype(bool), batch)
            hand_over("mask", "None", mask.shape, {"mask": mask})
        out = function(
            *(x.reshape(math.prod(batch), *x.shape[-3:]) for x in (query, key, value)), **wanted
        )
        return out.reshape(*batch, *out.shape[1:])

    return call


def _name(function: Operator) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _flat(x: Any, batch: tuple[int, ...]) -> Any:
    """[batch..., heads, queries, keys] or fewer axes, with the batch axes as one."""
    if len(batch) == 1 or jnp.ndim(x) <= 3:
        return x
    x = jnp.broadcast_to(x, (*batch, *jnp.shape(x)[-3:]))
    return x.reshape(math.prod(batch), *x.shape[-3:])
