"""The step of SAF costs one gradient, and the acceptance is about its effect."""

import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import saf as paper


def test_labels_are_wrong_as_often_as_they_say():
    _, labels, x_test, y_test = paper.make_data(100)
    assert labels.shape == (paper.SPLITS, paper.EXAMPLES)
    assert x_test.shape == (paper.SPLITS, 1397, 64)
    x, y = paper.digits()
    order = np.random.default_rng([100, 0]).permutation(len(x))
    wrong = np.mean(labels[0] != y[order[: paper.EXAMPLES]])
    assert 0.2 < wrong < 0.34  # 30%, of which a tenth hits the right class
    np.testing.assert_array_equal(y_test[0], y[order[paper.EXAMPLES :]])


@pytest.mark.parametrize("gain", [0.02, 0.012, 0.0])
def test_verdict(monkeypatch, gain):
    """A method without effect fails, as does one that pays for a second gradient."""
    after = {"SAF": 0.7 + gain, "MESA": 0.7 + gain, "SGD": 0.7}
    run = lambda data, key, *, method, epochs: np.full(10, after[method])  # noqa: E731
    monkeypatch.setattr(paper, "accuracy", run)
    counts = {"SAF": 2.0 if gain == 0.012 else 1.0, "MESA": 1.3, "SAM": 2.0, "SGD": 1.0}
    monkeypatch.setattr(paper, "operations", counts.get)
    result = paper.reproduce(seed=100, seeds=2)
    wanted = {0.02: [True] * 4, 0.012: [False, True, False, True], 0.0: [False, False, True, True]}
    assert [m.holds for m in result.measures] == wanted[gain]
    assert Result.from_json(result.to_json()) == result


def test_operations():
    """Without its branch SAF's step is SGD's; SAM's is two of them."""
    assert paper.operations("SAF") < 1.1 * paper.operations("SGD")
