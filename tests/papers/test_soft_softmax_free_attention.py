"""The pieces of the reproduction on one crop, and verdicts that can fail."""

import numpy as np
import pytest

import papyrax
from papyrax.papers import soft_softmax_free_attention as paper
from papyrax.papers.catalog import missing_parts

CROPS = paper.crops


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "crops", lambda seed, count, side=32: CROPS(seed, 1, side))
        # Nothing is run for its time here.
        costs = {paper.landmarks_fixed: [1.0, 4.0], paper.full_kernel: [1.0, 16.0]}
        patch.setattr(paper, "cost", lambda f, side: (costs[f][side // 64], 1.0))
        return paper.reproduce(seed=100, seeds=2)


def test_reproduce(result):
    assert result.holds
    assert result.seeds == (100, 101)
    assert papyrax.papers.Result.from_json(result.to_json()) == result
    assert [line.name for line in result.figure.lines] == ["SOFT", "Nystromformer"]
    assert missing_parts(paper.PAPER) == ()


def test_operations_of_soft_are_linear_in_the_tokens():
    soft, full = (
        [paper.cost(f, side)[0] for side in (16, 32)]
        for f in (paper.landmarks_fixed, paper.full_kernel)
    )
    assert soft[1] <= 4.4 * soft[0]
    assert full[1] >= 14 * full[0]


def test_full_kernel_and_crops():
    q, v = CROPS(3, 2)
    same, _ = CROPS(3, 2)
    np.testing.assert_array_equal(q, same)
    assert abs(float(np.std(q)) - 1) < 0.3
    q, v = q[:1, :4, :4], v[:1, :4, :4]
    a, b = np.asarray(q, np.float64).reshape(16, 16), np.asarray(v, np.float64).reshape(16, 16)
    want = np.exp(-((a[:, None] - a[None]) ** 2).sum(-1) / 8) @ b
    np.testing.assert_allclose(paper.full_kernel(q, v)[0, :, 0], want, rtol=1e-4, atol=1e-5)


def test_wrong_numbers_fail(result):
    good = {"newton": [[0.01] * 4], "exact": [[0.01] * 4], "softmax": [[0.1] * 4]}
    growth, costs = {True: [1.1], False: [4.0]}, {"method": [(1, 1), (4, 4)], "full": [(1, 1)] * 2}
    costs["full"] = [(1, 1), (16, 16)]

    def verdicts(found=good, growth=growth, costs=costs):
        return [m.holds for m in paper._result("quick", (0,), found, growth, costs).measures]

    assert all(verdicts())
    assert not verdicts({**good, "newton": [[0.06] * 4]})[0]
    assert not verdicts({**good, "softmax": [[0.015] * 4]})[0]
    assert not verdicts({**good, "newton": [[0.04] * 4]})[1]
    assert not verdicts({**good, "exact": [[0.03] * 4]})[2]
    assert not verdicts(costs={**costs, "method": [(1, 1), (16, 16)]})[3]
    assert not verdicts(growth={True: [4.0], False: [4.0]})[4]
