"""The coloured digits are as described; aligned training leaves the colour."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import hessian_alignment_dg as paper


def test_colours_and_labels():
    data = paper.make_data(100)
    for x, y, wrong in zip((*data["x"], data["x_test"]), (*data["y"], data["y_test"]), paper.FLIPS):
        sides = np.abs(x).reshape(-1, 2, 64).sum(-1)
        assert (sides.min(1) == 0).all()
        colour = sides[:, 0] > 0
        assert abs(np.mean(colour != y) - wrong) < 0.05


def test_reproduce_shortened(monkeypatch):
    """Aligned from early on, a small network leaves the colour; Hutchinson stands in for HGP."""
    small = {"STEPS": 120, "WARM": 40, "RATE": 2e-3, "HIDDEN": 64, "EXAMPLES": 400}
    for name, value in small.items():
        monkeypatch.setattr(paper, name, value)
    train, found = paper.train, {}

    def once(data, key, *, method, steps):
        method = "HGP" if method == "Hutchinson" else method
        if method not in found:
            found[method] = train(data, key, method=method, steps=steps)
        return found[method]

    monkeypatch.setattr(paper, "train", once)
    result = paper.reproduce(seed=100, seeds=1)
    accuracy, _, distance, _ = result.measures
    assert accuracy.method[0] > accuracy.baseline[0] + 0.1
    assert distance.method[0] < distance.baseline[0]
    assert Result.from_json(result.to_json()) == result
