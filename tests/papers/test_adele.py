"""Annotations are wrong as described; corrected ones are less so."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import adele as paper


def test_annotations():
    data = paper.make_images(100, 40)
    large, small = (data.given == 1) & (data.right == 0), (data.given == 0) & (data.right == 2)
    changed = (large.any(1).mean(), small.any(1).mean())
    assert 0.2 < min(changed) <= max(changed) < 0.6
    # Where the disc of class 1 grows over the background alone.
    assert not ((data.given == 0) & (data.right == 1)).any()
    middle = data.patches[0, :, :, paper.PATCH**2 // 2]
    assert middle[data.right == 1].mean() > middle[data.right == 2].mean() + 0.4


def test_flips_show_the_same_pixel_from_other_sides():
    data = paper.make_images(100, 3).patches.reshape(4, 3, 256, paper.PATCH, paper.PATCH)
    np.testing.assert_array_equal(data[1], data[0, :, :, ::-1])
    np.testing.assert_array_equal(data[2], data[0, :, :, :, ::-1])
    np.testing.assert_array_equal(data[3], data[0, :, :, ::-1, ::-1])


def test_iou():
    guess, labels = np.array([[0, 1, 1, 2]]), np.array([[1, 1, 1, 0]])
    np.testing.assert_allclose(jax.jit(paper.iou)(guess, labels), [2 / 3, 0])


def test_reproduce_shortened(monkeypatch):
    small = {"EPOCHS": 25, "TRAIN": 24, "TEST": 24, "RATE": 4e-3, "FIRST": 6}
    for name, value in small.items():
        monkeypatch.setattr(paper, name, value)
    result = paper.reproduce(seed=100, seeds=1)
    fewer = result.measures[2]
    assert fewer.method[0] < fewer.baseline[0]
    assert Result.from_json(result.to_json()) == result
