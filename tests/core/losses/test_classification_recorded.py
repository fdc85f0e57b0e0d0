"""Losses of classification against values and gradients of the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("classification")
WITH_STATE = [name for name in ENTRIES if name.startswith("aldr_kl")]
DRAWN = [name for name in ENTRIES if name.startswith("ensloss")]
SPECIAL = {*WITH_STATE, *DRAWN, "log_stablemax", "equiangular_basis_vectors"}


def close(got, want, rtol=1e-10):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in SPECIAL])
def test_value_and_gradient(name):
    """Names of losses, with what tells two entries of one loss apart after a space."""
    entry = ENTRIES[name]
    loss = getattr(losses, name.split()[0])
    compare(entry, lambda **arrays: jnp.mean(loss(**arrays, **entry["static"])))


def test_log_stablemax():
    entry = ENTRIES["log_stablemax"]
    compare(entry, lambda logits, weights: jnp.mean(weights * losses.log_stablemax(logits)))


@pytest.mark.parametrize("name", [name for name in ENTRIES if name.startswith("madacos")])
def test_scale_and_margin_of_madacos(name):
    entry = ENTRIES[name]
    with jax.enable_x64(True):
        cosines, labels = (jnp.asarray(np.array(x)) for x in entry["arrays"].values())
        got = losses.madacos_parameters(cosines, labels, **entry["static"])
        close(got, [entry["scale"], entry["margin"]])


@pytest.mark.parametrize("name", WITH_STATE)
def test_aldr_kl_over_three_batches(name):
    """The sum of their losses. The code adds 1e-5 to probabilities, which ours leaves out."""
    entry, rtol = ENTRIES[name], 3e-4 if "released" in name else 1e-10

    def run(scores, labels, indices):
        state = losses.AldrKlState(jnp.full(6, entry["static"]["temperature"]))
        total = 0.0
        for batch in zip(scores, labels, indices):
            loss, state = losses.aldr_kl(state, *batch, **entry["static"])
            total += jnp.mean(loss)
        return total, state

    compare(entry, lambda **arrays: run(**arrays)[0], rtol=rtol)
    with jax.enable_x64(True):
        _, state = jax.jit(run)(**{k: np.array(v) for k, v in entry["arrays"].items()})
        close(state.temperatures, entry["temperatures"], rtol)


@pytest.mark.parametrize("name", DRAWN)
def test_ensloss(name, monkeypatch):
    """With the authors' normal draws for ours."""
    entry = ENTRIES[name]
    monkeypatch.setattr(jax.random, "normal", lambda *a: jnp.asarray(np.array(entry["draws"])))
    key = jax.random.key(0)
    compare(entry, lambda **a: jnp.mean(losses.ensloss(**a, key=key, **entry["static"])))


def test_equiangular_basis_vectors(monkeypatch):
    """From the authors' start: after four steps, and where the descent ends."""
    entry = ENTRIES["equiangular_basis_vectors"]
    monkeypatch.setattr(jax.random, "normal", lambda *a: jnp.asarray(np.array(entry["start"])))
    with jax.enable_x64(True):

        def find(steps):
            return losses.equiangular_basis_vectors(
                jax.random.key(0), **entry["static"], steps=steps, dtype=jnp.float64
            )

        close(find(4).vectors, entry["after_4"])
        found = find(5000)
        close(found.vectors, entry["end"], 1e-8)
        assert found.steps == entry["steps"] < 5000
