"""The pairs of the reproduction, what a pixel reads, and verdicts that can fail."""

import jax
import numpy as np

from papyrax.papers import densegap as paper


def test_pairs_are_crops_of_one_scene_with_matched_anchors(monkeypatch):
    monkeypatch.setattr(paper, "NOISE", 0.0)
    monkeypatch.setattr(paper, "WRONG", 0.0)
    pair = paper.draw(np.random.default_rng(0), 12)
    first, second = pair["descriptors"].reshape(2, 16, 16, 8)
    dy, dx = pair["offset"]
    np.testing.assert_array_equal(first[dy:, dx:], second[: 16 - dy, : 16 - dx])
    assert len(np.unique(first.reshape(-1, 8), axis=0)) == 4
    places = np.stack(np.divmod(pair["anchors"], 16), -1)
    np.testing.assert_array_equal(places[0], places[1] + pair["offset"])


def test_a_pixel_reads_the_codes_of_near_anchors():
    pair = paper.draw(np.random.default_rng(1), 5)
    got = np.asarray(paper.described(*(pair[k] for k in ("descriptors", "anchors", "codes"))))
    place = np.stack(np.divmod(np.arange(256), 16), -1)
    for image in range(2):
        at = place[pair["anchors"][image]]
        weights = np.exp(-((place[:, None] - at) ** 2).sum(-1) / (2 * paper.SPREAD))
        weights /= weights.sum(1, keepdims=True)
        want = 4 * weights @ pair["codes"][image]
        np.testing.assert_allclose(got[image, :, 8:], want, atol=1e-3)


def test_true_codes_match_better():
    drawn = [paper.draw(np.random.default_rng(2), 24) for _ in range(2)]
    pairs = jax.tree.map(lambda *x: np.stack(x), *drawn)
    assert paper.accuracy(pairs, kind="anchors") > paper.accuracy(pairs, kind="no anchors") + 0.2


def test_verdicts_follow_the_numbers():
    def verdicts(*shares):
        got = np.array(shares)[:, None, None] * np.ones((3, 3, len(paper.COUNTS)))
        return [m.holds for m in paper._result("quick", (0, 1, 2), got).measures]

    assert verdicts(0.5, 0.02, 0.03) == [True, True]
    assert verdicts(0.5, 0.4, 0.03) == [False, True]
    assert verdicts(0.5, 0.02, 0.45) == [True, False]
