"""Inverse Fisher matrices, spectra of windows and alignment of domains, as authors have them.

Products are those of curvlinops. M-FAC's pruner leaves its last gradient zero, which is in the
recorded ones. Of Hutchinson's penalty both sides were given the same signs, one draw of them for
all domains.
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
NETWORK = recorded("optimizers", "optim")["network"]
close = functools.partial(np.testing.assert_allclose, rtol=1e-10)


def network(params, inputs):
    hidden = jnp.tanh(jnp.einsum("nhwi,hwio->no", inputs, params["kernel"]) + params["bias"])
    return hidden @ params["out"] + params["shift"]


def losses_of(params, inputs, labels):
    z = network(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(z, labels)


def mean_loss(params, inputs, labels):
    return losses_of(params, inputs, labels).mean()


PRODUCTS = {
    "hessian": curvature.hvp(mean_loss),
    "ggn": curvature.ggn_vp(
        lambda p, x, y: network(p, x),
        lambda z, x, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
    ),
    "ggn fisher": curvature.fisher_vp(lambda p, x, y: network(p, x)),
    "empirical_fisher": curvature.empirical_fisher_vp(losses_of),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    """Three batches of one network; the Fisher matrix of its softmax is its Gauss-Newton matrix."""
    entry, which = ENTRIES["products"], name.split()[0]
    with jax.enable_x64(True):
        tree = lambda d: {k: jnp.asarray(np.asarray(v)) for k, v in d.items()}  # noqa: E731
        params, vector = tree(NETWORK["start"]), tree(entry["vector"])
        x = jnp.asarray(np.asarray(NETWORK["inputs"][:3])).reshape(12, 2, 2, 1)
        y = jnp.asarray(np.asarray(NETWORK["labels"][:3])).reshape(12)

        @jax.jit
        def both(params, vector):
            product = lambda v: PRODUCTS[name](params, v, x, y)  # noqa: E731
            key = jax.random.key(0)
            ends = [
                curvature.extreme_eigenpairs(product, params, key=key, which=w)[0][0]
                for w in ("largest", "smallest")
            ]
            return product(vector), ends

        got, (largest, smallest) = both(params, vector)
        for leaf, want in entry["products"][which].items():
            close(got[leaf], want, atol=1e-15)
        moments = entry["moments"][which]
        close(largest, moments["largest"])
        close(smallest, moments["smallest"], atol=1e-12)


@pytest.mark.parametrize("name", ["inverse_fisher", "inverse_fisher blocks"])
def test_inverse_fisher(name):
    entry = ENTRIES[name]
    with jax.enable_x64(True):
        gradients, weights, vector = (
            jnp.asarray(np.asarray(entry[k])) for k in ("gradients", "weights", "vector")
        )
        pruned = np.asarray(entry["pruned"])

        @jax.jit
        def run():
            fisher = curvature.inverse_fisher(gradients, **entry["options"])
            diagonal = curvature.inverse_fisher_diagonal(fisher)
            order = jnp.argsort(curvature.obs_saliency(weights, diagonal))
            updated = curvature.obs_update(fisher, weights, pruned)
            return curvature.inverse_fisher_vp(fisher, vector), diagonal, order, updated

        product, diagonal, order, updated = run()
        close(product, entry["product"])
        close(diagonal, entry["diagonal"])
        assert set(order[: pruned.sum()].tolist()) == set(np.flatnonzero(pruned).tolist())
        close(updated, entry["updated"])


def test_spectra_of_windows():
    entry = ENTRIES["farms"]
    with jax.enable_x64(True):
        weights = jnp.asarray(np.asarray(entry["weights"]))

        @jax.jit
        def run():
            spectra = [
                curvature.farms_eigenvalues(weights, **window["options"])
                for window in entry["windows"]
            ]
            return spectra, [curvature.hill_exponent(values) for values in spectra]

        for window, values, exponent in zip(entry["windows"], *run()):
            close(values[-len(window["eigenvalues"]) :], window["eigenvalues"], atol=1e-12)
            close(exponent, window["exponent"])


def test_exponent_of_a_convolution():
    """There it is the mean over square blocks, of all positions of the window each."""
    entry = ENTRIES["farms"]
    with jax.enable_x64(True):
        kernel = jnp.asarray(np.asarray(entry["kernel"])).transpose(2, 3, 0, 1)  # [2, 2, 7, 3]

        @jax.jit
        def exponent(block):
            return curvature.hill_exponent(curvature.farms_eigenvalues(block, size=3))

        found = [exponent(kernel[..., i : i + 3, :]) for i in (0, 3)]
        close(np.mean(found), entry["kernel_exponent"])


def test_power_laws():
    """The start of least distance, among all values or those up to the peak."""
    fits = {c: functools.partial(curvature.power_law_fit, candidates=c) for c in ("all", "peak")}
    with jax.enable_x64(True):
        run = jax.jit(lambda values: {c: fit(values) for c, fit in fits.items()})
        for case in ENTRIES["power_law"]["cases"]:
            for candidates, found in run(jnp.asarray(case["eigenvalues"])).items():
                close(found.exponent, case[candidates]["exponent"])
                close(found.distance, case[candidates]["distance"])


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
