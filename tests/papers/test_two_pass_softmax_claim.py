"""The reproduction on one seed, and softmaxes that its acceptance rejects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import papyrax
from papyrax.papers import two_pass_softmax as paper
from papyrax.papers.catalog import missing_parts


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "seconds", lambda *_: 1.0)
        return paper.reproduce(seed=100, seeds=1)


def test_reproduce(result):
    relative, absolute, *others = result.measures
    assert relative.holds
    assert all(m.holds for m in others)
    # One unit in the last place more than asked: the tests compile without fused multiply-adds.
    assert absolute.method[0] <= 2.4e-7
    assert papyrax.papers.Result.from_json(result.to_json()) == result
    assert [line.name for line in result.figure.lines] == ["two passes", "three passes"]
    assert missing_parts(paper.PAPER) == ()


def test_the_figure_shows_where_digits_are_lost(result):
    two, three = (np.array(line.y[0]) for line in result.figure.lines)
    assert np.all(two[:4] < 5e-6)
    assert two[-1] > 100 * three[-1]


def test_streams_read_as_often_as_they_say_and_agree():
    data = np.random.default_rng(0).normal(size=300).astype(np.float32)
    for stream, passes in ((paper.stream_two, 3.0), (paper.stream_three, 4.0)):
        counted, error = paper.traffic(stream, data)
        assert counted == passes
        assert error < 1e-7


def test_wrong_softmaxes_are_found():
    x = 100 * np.random.default_rng(0).normal(size=(8, 1000)).astype(np.float32)
    assert paper.errors(paper.plain_formula, x)[2] == 1
    half = lambda x: jax.nn.softmax(x.astype(jnp.bfloat16)).astype(jnp.float32)  # noqa: E731
    assert paper.errors(half, x)[0] > 5e-6
