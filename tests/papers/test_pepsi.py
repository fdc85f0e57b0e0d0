"""The textures of the reproduction, and verdicts that can fail."""

import numpy as np

from papyrax.papers import pepsi as paper


def test_textures_have_bands_and_a_period():
    x, noise = paper.draw(np.random.default_rng(0), 3)
    assert x.shape == noise.shape == (3, 16, 16, 1)
    np.testing.assert_array_equal(x[:, :8], x[:, 8:])
    np.testing.assert_array_equal(x[:, :, :4], x[:, :, 4:8])
    for band in (slice(0, 4), slice(4, 8)):
        np.testing.assert_array_equal(x[:, band], x[:, band][:, :1].repeat(4, 1))
    assert not np.allclose(x[:, 3], x[:, 4])


def test_hole_alone_is_filled():
    x, noise = paper.draw(np.random.default_rng(1), 2)
    filled = np.asarray(paper.fill("Euclidean", x, noise))
    outside = np.ones((16, 16), bool)
    outside[paper.HOLE, paper.HOLE] = False
    np.testing.assert_array_equal(filled[:, outside], x[:, outside])
    assert not np.allclose(filled, x)


def test_verdicts_follow_the_numbers():
    def verdicts(*psnr):
        got = np.array(psnr)[:, None, None] * np.ones((3, 3, len(paper.NOISES)))
        return [m.holds for m in paper._result("quick", (0, 1, 2), got).measures]

    assert verdicts(28, 27, 20) == [True, True]
    assert verdicts(28, 27.8, 26) == [False, False]
