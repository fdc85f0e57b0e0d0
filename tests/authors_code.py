"""Values and gradients that the authors' public code gave in float64, and the comparison with them.

Each entry of an `authors_*.json` names the repository and file it was computed with, the inputs and
the hyper-parameters. A loss has the mean over the batch and its gradient; any other function has
its output and the gradient of `sum(cotangent * output)`. Inputs and weights of a module are drawn
from a seed, uniform on [-1, 1] in the order of their names, and so is its cotangent, from the seed
plus 1000 (the stream of `RandomState` is fixed).
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

ROOMS = pathlib.Path(__file__).parent / "core"


def recorded(family, room="losses"):
    """The entries of one family by name."""
    return json.loads((ROOMS / room / f"authors_{family}.json").read_text())


def drawn(seed, shapes):
    """Arrays by name, uniform on [-1, 1]."""
    rng = np.random.RandomState(seed)
    return {name: rng.uniform(-1, 1, size=shape) for name, shape in shapes.items()}


def compare(entry, function, rtol=1e-10):
    """Assert that `function(**arrays)` has the authors' value and gradients."""
    with jax.enable_x64(True):
        inputs = drawn(entry["seed"], entry["shapes"]) if "seed" in entry else {}
        arrays = inputs | entry.get("arrays", {})
        arrays = {k: jnp.asarray(np.asarray(v)) for k, v in arrays.items()}
        wrt = {k: arrays.pop(k) for k in entry["gradient"]}

        @jax.jit
        def both(wrt, cotangent):
            value, pull_back = jax.vjp(lambda w: function(**w, **arrays), wrt)
            return value, *pull_back(cotangent)

        cotangent = np.asarray(entry.get("cotangent", 1.0))
        if "seed" in entry:
            shape = np.shape(entry["value"])
            cotangent = drawn(entry["seed"] + 1000, {"cotangent": shape})["cotangent"]
        value, gradient = both(wrt, jnp.asarray(cotangent))
        wanted = {"value": entry["value"], **entry["gradient"]}
        for name, got in {"value": value, **gradient}.items():
            atol = rtol * np.abs(np.asarray(wanted[name])).max()
            np.testing.assert_allclose(got, wanted[name], rtol=rtol, atol=atol, err_msg=name)
