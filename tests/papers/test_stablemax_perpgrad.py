"""The pieces of the reproduction, at a size that trains in a second."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import papyrax
from papyrax.losses import stablemax_cross_entropy
from papyrax.papers import stablemax_perpgrad as paper


@pytest.fixture(scope="module")
def small():
    return paper.make_data(0, 11), paper.init(jax.random.key(0), 11, 32)


def test_data_is_the_whole_table_split_once(small):
    pairs, sums, test_pairs, test_sums = small[0]
    assert len(pairs) == int(0.4 * 121)
    both = np.concatenate([pairs, test_pairs])
    assert len(np.unique(both, axis=0)) == 121
    np.testing.assert_array_equal(both.sum(1) % 11, np.concatenate([sums, test_sums]))


def test_network_is_the_mlp_on_one_hot_pairs_and_homogeneous(small):
    data, weights = small
    x = np.concatenate([np.eye(11)[data[0][:, 0]], np.eye(11)[data[0][:, 1]]], axis=1)
    for kernel in weights[:-1]:
        x = np.maximum(x @ np.asarray(kernel, float), 0)
    want = x @ np.asarray(weights[-1], float)
    np.testing.assert_allclose(paper.network(weights, data[0]), want, rtol=1e-4, atol=1e-5)
    scaled = paper.network([2 * w for w in weights], data[0])
    np.testing.assert_allclose(scaled, 8 * want, rtol=1e-4, atol=1e-5)


def test_training_memorises_and_measures(small):
    data, weights = small
    tx = paper.optimizers()["baseline"]
    end, trace = paper.train(weights, data, tx=tx, loss=paper.softmax_cross_entropy, epochs=300)
    assert trace["train"].shape == (30,)
    assert trace["train"][-1] == 1
    assert trace["test"][-1] < 0.3
    assert trace["collapse"][0] == 0
    raw, projected = paper.alignment(end, data)
    assert raw > 0.4
    assert projected < 1e-5


def test_a_softmax_in_place_of_stablemax_would_fail(small):
    """The acceptance separates the two losses whatever form softmax is computed in."""
    data, weights = small
    logits = 1e7 * paper.network(weights, data[0])
    labels = jnp.argmax(logits, -1)
    for softmax in (
        paper.softmax_cross_entropy,
        optax.softmax_cross_entropy_with_integer_labels,
    ):
        assert paper.vanished(logits, labels, loss=softmax) >= 0.99
    assert paper.vanished(logits, labels, loss=stablemax_cross_entropy) == 0


def test_parts_exist():
    for name in paper.PAPER.parts:
        thing = papyrax
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        assert callable(thing)


def test_reproduce_reports_every_seed(monkeypatch):
    """The whole path on a small table; the verdicts there are not the claim's."""
    small_data, small_init = paper.make_data, paper.init
    monkeypatch.setattr(paper, "make_data", lambda seed: small_data(seed, 7))
    monkeypatch.setattr(paper, "init", lambda key: small_init(key, 7, 16))
    seen = []
    result = paper.reproduce(seed=3, seeds=2, progress=lambda f, what: seen.append(f))
    assert result.seeds == (3, 4)
    assert len(result.measures) == 4
    assert all(len(m.method) == 2 == len(m.baseline) for m in result.measures)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert papyrax.papers.Result.from_json(result.to_json()) == result
