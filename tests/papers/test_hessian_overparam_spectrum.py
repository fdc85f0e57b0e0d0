"""Products give the Hessian's eigenvalues, and the verdict follows the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import hessian_overparam_spectrum as paper


def test_spectra_of_a_network_whose_hidden_units_are_off():
    """With v = 0 and w = 0 the logits are the offsets c, and H is known."""
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, paper.make_data(100, 4))
        params = jax.tree.map(jnp.zeros_like, paper.init(jax.random.key(0), 2, 4))
        found = paper.spectra(params, x, y, jax.random.key(1))
    values = np.asarray(found["hessian"])
    assert values.shape == (10 * 2 + 2 + 2 * 4 + 4,)
    # diag(p) - p p' of equal classes: three times 1/4, and zero; inputs' weights and v see R alone,
    # which couples b with v by the mean of p - one_hot(y), and w with v by that times x.
    counts = np.bincount(np.asarray(y), minlength=4) / 600
    g = 0.25 - counts
    means = np.stack(
        [np.mean(np.asarray(x) * (0.25 - (np.asarray(y) == k))[:, None], 0) for k in range(4)]
    )
    coupling = np.linalg.svd(np.c_[means, g])[1]
    want = np.r_[[0.25] * 3, np.repeat(coupling, 2), -np.repeat(coupling, 2)]
    want = np.sort(np.r_[want, np.zeros(len(values) - len(want))])
    np.testing.assert_allclose(values, want, atol=1e-9)
    np.testing.assert_allclose(found["gauss_newton"], 0.25, rtol=1e-9)
    np.testing.assert_allclose(found["largest"], values[-1], rtol=1e-9)


@pytest.mark.parametrize("good", [True, False])
def test_verdict(monkeypatch, good):
    def measured(seed, classes, width):
        return {
            "spectrum": np.linspace(-1, 10, 40),
            "bulk": 0.5 + (0.005 if good else 0.001) * width,
            "outliers": classes + width // (20 if good else 5),
            "least": -0.01 if good else -0.1,
            "lanczos": 0.0 if good else 1e-3,
            "gauss_newton": 0.1 if good else 1.0,
        }

    monkeypatch.setattr(paper, "measure", measured)
    monkeypatch.setattr(paper, "barrier", lambda seed: 0.05 if good else 0.3)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [good] * 8
    assert Result.from_json(result.to_json()) == result


def test_barrier(monkeypatch):
    """A line between two ends whose loss is lower than halfway."""
    ends = iter([{"x": jnp.array(-1.0)}, {"x": jnp.array(1.0)}])
    monkeypatch.setattr(paper, "train", lambda *a, **k: next(ends))
    monkeypatch.setattr(paper, "loss", lambda p, x, y: 1 - p["x"] ** 2)
    np.testing.assert_allclose(paper.barrier(100), 1.0, atol=1e-6)
