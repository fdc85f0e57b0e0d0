"""Parameter trees as lists of floating-point leaves, which is what can be differentiated."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import check


def is_floating(leaf: Any) -> bool:
    """Whether a leaf can be differentiated."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


class Split(NamedTuple):
    """A tree taken apart: its floating-point leaves, and what is needed to put it together.

    Integer and boolean leaves are constants of the function; their gradient, curvature and product
    is zero in their own dtype, so that the results have the structure of the parameters and
    `optax.apply_updates` leaves them as they are.
    """

    floats: list[jax.Array]
    leaves: list[Any]
    treedef: Any

    @classmethod
    def of(cls, tree: Any, name: str = "params") -> "Split":
        """Take `tree`, the argument called `name`, apart."""
        leaves, treedef = jax.tree.flatten(tree)
        for leaf in leaves:
            is_complex = jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)
            check(not is_complex, name, f"got a leaf of {jnp.result_type(leaf)}, takes real leaves")
        floats = [jnp.asarray(leaf) for leaf in leaves if is_floating(leaf)]
        return cls(floats, leaves, treedef)

    def join(self, floats: Sequence[Any]) -> Any:
        """The tree with its floating-point leaves replaced."""
        new = iter(floats)
        return self.treedef.unflatten([next(new) if is_floating(x) else x for x in self.leaves])

    def bind(
        self, fun: Callable[..., Any], has_aux: bool, args: Any, kwargs: Any
    ) -> Callable[[Sequence[Any]], tuple[Any, Any]]:
        """`fun` as a function of the floating-point leaves alone: leaves -> (output, aux)."""

        def bound(floats: Sequence[Any]) -> tuple[Any, Any]:
            out = fun(self.join(floats), *args, **kwargs)
            return out if has_aux else (out, None)

        return bound

    def fill(self, floats: Sequence[Any]) -> Any:
        """A tree of results: `floats`, and zeros for the other leaves."""
        new = iter(floats)
        return self.treedef.unflatten(
            [next(new) if is_floating(x) else jnp.zeros_like(x) for x in self.leaves]
        )

    def match(self, name: str, tree: Any, cast: bool = True) -> list[jax.Array]:
        """The leaves of `tree`, which must fit the parameters; with `cast` in their dtypes."""
        leaves, treedef = jax.tree.flatten(tree)
        check(
            treedef == self.treedef, name, f"got the tree {treedef}, takes that of the parameters"
        )
        for leaf, like in zip(leaves, self.leaves):
            check(
                jnp.shape(leaf) == jnp.shape(like),
                name,
                f"got a leaf of shape {jnp.shape(leaf)}, takes {jnp.shape(like)} as the parameters",
            )
        return [
            jnp.asarray(leaf, jnp.result_type(like) if cast else None)
            for leaf, like in zip(leaves, self.leaves)
            if is_floating(like)
        ]


def varying_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` as a value that differs between the devices of a shard_map, and is laid out, as `like`.

    The product with ones costs nothing once compiled.
    """
    return x * jnp.ones_like(like, dtype=x.dtype)


def dot(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """The inner product of two lists of leaves, accumulated in float32 or wider."""
    wide = [jnp.promote_types(x.dtype, jnp.float32) for x in a]
    products = [jnp.sum(x.astype(t) * y.astype(t)) for x, y, t in zip(a, b, wide)]
    return sum(products[1:], start=products[0]) if products else jnp.zeros(())
