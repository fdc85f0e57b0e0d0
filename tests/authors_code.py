"""Values and gradients that the authors' public code gave in float64, and the comparison with them.

Each entry of an `authors_*.json` names the repository and file it was computed with, the inputs,
the hyper-parameters, the mean over the batch and its gradient.
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


def compare(entry, mean_loss, rtol=1e-10):
    """Assert that `mean_loss(**arrays)` has the authors' value and gradients."""
    with jax.enable_x64(True):
        arrays = {k: jnp.asarray(np.asarray(v)) for k, v in entry["arrays"].items()}
        wrt = {k: arrays.pop(k) for k in entry["gradient"]}
        value, gradient = jax.jit(jax.value_and_grad(lambda w: mean_loss(**w, **arrays)))(wrt)
        np.testing.assert_allclose(value, entry["value"], rtol=rtol)
        for name, want in entry["gradient"].items():
            want = np.asarray(want)
            scale = np.abs(want).max()
            np.testing.assert_allclose(gradient[name], want, rtol=rtol, atol=rtol * scale)
