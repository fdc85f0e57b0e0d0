"""The light fields of the reproduction, and verdicts that can fail."""

import numpy as np

from papyrax.papers import epit as paper


def test_views_are_displaced_by_the_disparity():
    clean = paper.draw(np.random.default_rng(0), 3)
    assert clean.shape == (5, 3, paper.VIEWS, paper.WIDTH + paper.TAPS - 1)
    np.testing.assert_allclose(clean.var(), 1, atol=0.4)
    for k, disparity in enumerate((0, 1, 2)):
        moved = clean[k, :, 3, disparity:]
        np.testing.assert_allclose(moved, clean[k, :, 2, : moved.shape[-1]], atol=1e-4)


def test_without_noise_attention_keeps_the_image():
    clean = paper.draw(np.random.default_rng(1), 2)[1]
    got = paper.restored(10 * clean, kind="all views")  # patches far apart: sharp weights
    half = paper.TAPS // 2
    np.testing.assert_allclose(got, 10 * clean[..., half:-half], atol=0.2)


def test_verdicts_follow_the_numbers():
    def verdicts(ours, own, mean):
        got = np.array([[ours] * 3, [own] * 3, [mean] * 3], float)
        return [m.holds for m in paper._result("quick", (0, 1, 2), got).measures]

    flat, lost = [7.0] * 5, [13, 2, 1, 0, 0]
    assert verdicts([9, 9, 9, 8, 8], flat, lost) == [True, True]
    assert verdicts(flat, flat, lost) == [False, True]
    assert verdicts([13, 9, 9, 8, 8], flat, lost) == [True, False]
    assert verdicts([9, 9, 9, 8, 8], flat, [7, 6, 5, 4, 3]) == [True, False]
