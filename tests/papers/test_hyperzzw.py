"""Sizes of the networks that are compared, what they see, and verdicts that can fail."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from papyrax.papers import hyperzzw as paper


def test_method_has_no_more_parameters():
    ours, theirs = paper.parameters(paper.Hyper), paper.parameters(paper.Convolutions)
    assert ours <= theirs <= 1.1 * ours


def test_method_sees_the_whole_image_and_the_baseline_does_not():
    """The first quarter's mean, as a function of the last pixel."""
    x = np.random.default_rng(0).normal(size=(8, 8, paper.CHANNELS)).astype(np.float32)

    def slope(block):
        first = lambda x: jnp.sum(jnp.sin(block(x[None])[0, 0, 0]))  # noqa: E731
        return np.abs(jax.jit(jax.grad(first))(x)[7, 7]).max()

    assert slope(paper.Block(8, rngs=nnx.Rngs(0))) > 1e-6
    assert slope(paper.Convolutions(rngs=nnx.Rngs(0)).layer) == 0


def test_verdicts_follow_the_numbers():
    def verdicts(ours, theirs, mean=1e-6):
        curves = (np.full((3, 4), ours), np.full((3, 4), theirs))
        return [m.holds for m in paper._result("quick", (0, 1, 2), *curves, [mean] * 3).measures]

    assert verdicts(0.95, 0.96) == [True, True]
    assert verdicts(0.92, 0.92) == [False, True]
    assert verdicts(0.94, 0.97) == [False, True]
    assert verdicts(0.95, 0.95, 1e-2) == [True, False]
