"""Attention's derivatives within a tile: elementwise, in any orientation, for all implementations.

With Z = scale Q K^T, S = cap tanh(Z / cap) + bias, P = exp(S - shift - logsum), O = (D o P) V,
where D is dropout's factor, G and g the cotangents of O and logsum, and primes for tangents:

    S'  = u o Z' + bias',  u = 1 - tanh^2      mu  = logsum' = rowsum(P o S')
    P'  = P o (S' - mu)                        O'  = (D o P o S') V + (D o P) V' - mu O
    E   = D o (G V^T) - delta                  delta  = rowsum(G o O) - g
    E'  = D o (G' V^T + G V'^T) - delta'       delta' = rowsum(G' o O + G o O') - g'
    dS  = P o E                                dS' = P' o E + P o E'
    dZ  = u o dS                               dZ' = u o dS' - (2 / cap) tanh o u o Z' o dS
    dQ = scale dZ K,  dK = scale dZ^T Q,  dV = (D o P)^T G,  dbias = dS

The row statistics shift, logsum, mu, delta and delta' are all that is kept between tiles.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Weights(NamedTuple):
    """A tile of P with what its derivatives need.

    Attributes:
      p: the weights.
      tanh: tanh(Z / cap), or None without a cap.
      cap: the cap, or None.
    """

    p: Any
    tanh: Any
    cap: float | None

    @property
    def slope(self) -> Any:
        """The slope dS / dZ."""
        return 1.0 if self.tanh is None else 1 - self.tanh * self.tanh

    @property
    def bend(self) -> Any:
        """The second derivative d^2S / dZ^2."""
        return 0.0 if self.cap is None else (-2 / self.cap) * self.tanh * self.slope


def times(factor: Any, x: Any) -> Any:
    """Factor o x, where None stands for a factor of one."""
    return x if factor is None else factor * x


def logits(z: Any, bias: Any, seen: Any, cap: float | None) -> tuple[Any, Any]:
    """S, with -inf where nothing is seen, and tanh(Z / cap)."""
    tanh = None
    if cap is not None:
        tanh = jnp.tanh(z / cap)
        z = cap * tanh
    if bias is not None:
        z = z + bias.astype(z.dtype)
    if seen is not None:
        z = jnp.where(seen, z, -jnp.inf)
    return z, tanh


def weights(z: Any, bias: Any, seen: Any, shift: Any, logsum: Any, cap: float | None) -> Weights:
    """P from the saved statistics; `logsum` is +inf for a row that sees nothing, so that P = 0.

    P <= 1 in exact arithmetic. Holding it there keeps it finite where huge logits are rounded
    otherwise than in the pass that saved the statistics.
    """
    s, tanh = logits(z, bias, seen, cap)
    return Weights(jnp.exp(jnp.minimum((s - shift) - logsum, 0)), tanh, cap)


def logits_dot(w: Weights, z_dot: Any, bias_dot: Any) -> Any:
    """S'."""
    s_dot = z_dot if w.tanh is None else w.slope * z_dot
    return s_dot if bias_dot is None else s_dot + bias_dot.astype(s_dot.dtype)


def cotangents(w: Weights, dp: Any, keep: Any, delta: Any) -> tuple[Any, Any]:
    """The cotangents dS and dZ, from dP = G V^T."""
    ds = w.p * (times(keep, dp) - delta)
    return ds, ds if w.tanh is None else w.slope * ds


class Second(NamedTuple):
    """A tile of everything that the tangent of the cotangents is contracted from.

    Attributes:
      p_dot: P'.
      dz: dZ.
      dz_dot: dZ'.
      ds_dot: dS'.
    """

    p_dot: Any
    dz: Any
    dz_dot: Any
    ds_dot: Any


def cotangents_dot(
    w: Weights,
    z_dot: Any,
    bias_dot: Any,
    dp: Any,
    dp_dot: Any,
    keep: Any,
    mu: Any,
    delta: Any,
    delta_dot: Any,
) -> Second:
    """P', dZ, dZ' and dS', from Z', G V^T and G' V^T + G V'^T."""
    p_dot = w.p * (logits_dot(w, z_dot, bias_dot) - mu)
    e = times(keep, dp) - delta
    ds = w.p * e
    ds_dot = p_dot * e + w.p * (times(keep, dp_dot) - delta_dot)
    if w.tanh is None:
        return Second(p_dot, ds, ds_dot, ds_dot)
    return Second(p_dot, w.slope * ds, w.slope * ds_dot + w.bend * z_dot * ds, ds_dot)
