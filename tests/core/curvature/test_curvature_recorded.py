"""Inverse Fisher matrices, spectra of windows and alignment of domains, as authors have them.

The pruner's loop leaves its last gradient zero, which is in the recorded ones. Of Hutchinson's
penalty both sides were given the same signs, one draw of them for all domains.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import compare, recorded

from papyrax import curvature, losses, optim
from papyrax.curvature import domains

ENTRIES = recorded("curvature", "curvature")
close = functools.partial(np.testing.assert_allclose, rtol=1e-10)


@pytest.mark.parametrize("name", ["inverse_fisher", "inverse_fisher blocks"])
def test_inverse_fisher(name):
    entry = ENTRIES[name]
    with jax.enable_x64(True):
        gradients, weights, vector = (
            jnp.asarray(np.asarray(entry[k])) for k in ("gradients", "weights", "vector")
        )
        fisher = curvature.inverse_fisher(gradients, **entry["options"])
        close(curvature.inverse_fisher_vp(fisher, vector), entry["product"])
        diagonal = curvature.inverse_fisher_diagonal(fisher)
        close(diagonal, entry["diagonal"])
        order = jnp.argsort(curvature.obs_saliency(weights, diagonal))
        pruned = np.asarray(entry["pruned"])
        assert set(order[: pruned.sum()].tolist()) == set(np.flatnonzero(pruned).tolist())
        close(curvature.obs_update(fisher, weights, jnp.asarray(pruned)), entry["updated"])


def test_spectra_of_windows():
    entry = ENTRIES["farms"]
    with jax.enable_x64(True):
        weights = jnp.asarray(np.asarray(entry["weights"]))
        for window in entry["windows"]:
            values = curvature.farms_eigenvalues(weights, **window["options"])
            close(values[-len(window["eigenvalues"]) :], window["eigenvalues"], atol=1e-12)
            close(curvature.hill_exponent(values), window["exponent"])


def test_exponent_of_a_convolution():
    """There it is the mean over square blocks, of all positions of the window each."""
    entry = ENTRIES["farms"]
    with jax.enable_x64(True):
        kernel = jnp.asarray(np.asarray(entry["kernel"])).transpose(2, 3, 0, 1)  # [2, 2, 7, 3]
        blocks = (kernel[..., i : i + 3, :] for i in (0, 3))
        found = [curvature.hill_exponent(curvature.farms_eigenvalues(b, size=3)) for b in blocks]
        close(np.mean(found), entry["kernel_exponent"])


def test_what_layers_get():
    entry = ENTRIES["farms"]
    with jax.enable_x64(True):
        exponents = jnp.asarray(entry["exponents"])
        close(optim.layerwise_scales(exponents, low=0.6, high=1.4), entry["rates"])
        close(optim.layerwise_sparsity(exponents, entry["sizes"], 0.7), entry["shares"])


def cross_entropy(head, features, labels):
    logits = features @ head["weight"] + head["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize("name", ["hgp_penalty", "hutchinson_penalty"])
def test_alignment_of_domains(name, monkeypatch):
    """The mean loss with the penalty, and its gradient in the head and in the features."""
    entry = ENTRIES[name]
    penalty = functools.partial(getattr(losses, name), **entry["static"])
    if name == "hutchinson_penalty":
        z = {k: jnp.asarray(np.asarray(v)) for k, v in entry["signs"].items()}
        like = lambda key, tree: [x.astype(t.dtype) for x, t in zip(jax.tree.leaves(z), tree)]  # noqa: E731
        monkeypatch.setattr(domains, "rademacher_like", like)
        penalty = functools.partial(penalty, jax.random.key(0), n_samples=1)

    def loss(weight, bias, features, labels):
        head = {"weight": weight, "bias": bias}
        plain = jax.vmap(cross_entropy, (None, 0, 0))(head, features, labels)
        return jnp.mean(plain) + jnp.mean(penalty(cross_entropy, head, features, labels))

    compare(entry, loss)
