"""Values and gradients that the authors' public code gave in float64, and the comparison with them.

Each entry of an `authors_*.json` names the repository and file it was computed with, the inputs and
the hyper-parameters. A loss has the mean over the batch and its gradient; any other function has
its output and the gradient of `sum(cotangent * output)`.
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


def compare(entry, function, rtol=1e-10):
    """Assert that `function(**arrays)` has the authors' value and gradients."""
    with jax.enable_x64(True):
        arrays = {k: jnp.asarray(np.asarray(v)) for k, v in entry["arrays"].items()}
        wrt = {k: arrays.pop(k) for k in entry["gradient"]}

        @jax.jit
        def both(wrt, cotangent):
            value, pull_back = jax.vjp(lambda w: function(**w, **arrays), wrt)
            return value, *pull_back(cotangent)

        value, gradient = both(wrt, jnp.asarray(np.asarray(entry.get("cotangent", 1.0))))
        np.testing.assert_allclose(value, entry["value"], rtol=rtol, atol=rtol * _largest(value))
        for name, want in entry["gradient"].items():
            atol = rtol * _largest(want)
            np.testing.assert_allclose(gradient[name], want, rtol=rtol, atol=atol, err_msg=name)


def _largest(x):
    return np.abs(np.asarray(x)).max()
