"""The data of the reproduction, and verdicts that can fail."""

import numpy as np

from papyrax.papers import din as paper


def test_clicks_follow_the_items_of_the_candidates_category(monkeypatch):
    monkeypatch.setattr(paper, "TRAIN", 3000)
    monkeypatch.setattr(paper, "TEST", 0)
    history, candidate, clicked = paper.draw(0)
    category = np.random.default_rng(0).permutation(np.arange(paper.ITEMS) % paper.CATEGORIES)
    count = (category[history] == category[candidate][:, None]).sum(1)
    rates = [clicked[count == n].mean() for n in (0, 1, 2)]
    np.testing.assert_allclose(rates, [0.119, 0.5, 0.881], atol=0.06)


def test_verdicts_follow_the_numbers():
    def verdicts(*last):
        got = {k: np.full((3, 5), v) for k, v in zip(paper.KINDS, last)}
        return [m.holds for m in paper._result("quick", (0, 1, 2), got).measures]

    assert verdicts(0.6, 0.7, 0.75) == [True, True]
    assert verdicts(0.6, 0.63, 0.69) == [False, False]


def test_scores_of_all_kinds_depend_on_the_history():
    for kind in paper.KINDS:
        params = paper.init(np.random.default_rng(0), kind)
        history = np.random.default_rng(1).integers(0, paper.ITEMS, (3, 7))
        out = paper.score(params, kind, history, np.zeros(3, int))
        assert out.shape == (3,)
        assert len(set(np.asarray(out).tolist())) == 3
