"""Short runs: the correction beats FedAvg on digits, and the verdict follows the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.data import dirichlet_clients
from papyrax.papers import Result
from papyrax.papers import fedspeed as paper
from papyrax.papers.toys import digits_split


def test_logistic_clients():
    x, y = paper.logistic_clients(100)
    assert (np.diff(x[..., 0].ravel()) >= 0).all()
    np.testing.assert_allclose(x.reshape(-1, 31)[:, :30].std(0), 1)
    shares = (y > 0).mean(1)
    assert shares.max() - shares.min() > 0.8  # the clients differ


def test_training():
    x, y, test_x, test_y = digits_split(100, 1400)
    rows = dirichlet_clients(y, clients=20, concentration=0.1, seed=100)
    data = (x[rows], y[rows], test_x, test_y)
    key, rate = jax.random.key(0), jnp.float32(0.1)
    found = {
        name: np.asarray(paper.train(*data, key, rate, name=name, rounds=15))[-5:].mean()
        for name in ("FedAvg", "FedSpeed")
    }
    assert found["FedSpeed"] > max(found["FedAvg"], 0.8)


@pytest.mark.parametrize("broken", [None, 0, 1, 2, 3])
def test_verdict(monkeypatch, broken):
    gaps = {("FedSpeed", 50): 1e-12, ("FedAvg", 50): 2e-4}
    gaps |= {("FedSpeed", 10): 1e-12, ("FedAvg", 10): 2e-5}
    if broken == 0:
        gaps["FedAvg", 50] = 1e-5
    if broken == 1:
        gaps["FedSpeed", 10] = 1e-9

    def accuracies(seed, name):
        if name != "FedSpeed":
            return dict.fromkeys(paper.ROWS, 0.95 if name == "FedSAM" else 0.9)
        rows = dict.fromkeys(paper.ROWS, 0.97)
        return rows | {60: 0.955 if broken == 2 else 0.97, 40: 0.94 if broken == 3 else 0.96}

    monkeypatch.setattr(paper, "gap", lambda seed, name, steps: gaps[name, steps])
    monkeypatch.setattr(paper, "accuracies", accuracies)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(4)]
    assert Result.from_json(result.to_json()) == result
