"""Wrong labels are as described, and borrowing helps the rare classes."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import rcal as paper


def test_data():
    data = paper.make_data(100)
    assert np.bincount(data.truth)[[0, -1]].tolist() == [500, 10]
    wrong = data.y != data.truth
    assert abs(wrong.mean() - 0.3) < 0.04
    taken = np.bincount(data.y[wrong], minlength=10)
    assert taken[:3].sum() > 3 * taken[5:].sum()
    near = np.linalg.norm(data.means[5:, None] - data.means[:5], axis=-1).min(1)
    far = np.linalg.norm(data.means[0] - data.means[1:5], axis=-1)
    assert near.max() < far.min()


def test_reproduce():
    result = paper.reproduce(seed=101, seeds=1)
    assert result.holds
    assert Result.from_json(result.to_json()) == result
