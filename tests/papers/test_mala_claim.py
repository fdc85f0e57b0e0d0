"""The pieces of the reproduction at a size that trains in seconds, and verdicts that can fail."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import papyrax
from papyrax.attention import linear_attention_weights, mala_weights
from papyrax.papers import mala as paper


def test_episodes_show_different_items_and_ask_for_one_of_them():
    ids = np.arange(100, 160)
    context, symbols, asked, answer = paper.episodes(np.random.default_rng(0), ids, 3, 5)
    assert context.shape == symbols.shape == (3, 5, paper.TOKENS)
    for s, b in np.ndindex(3, 5):
        assert len(set(context[s, b])) == paper.TOKENS
        assert set(context[s, b]) <= set(ids)
        (where,) = np.flatnonzero(context[s, b] == asked[s, b])
        assert symbols[s, b, where] == answer[s, b]


def test_training_and_test_items_are_disjoint():
    rng = np.random.default_rng(0)
    _, items, (context, *_), (held, *_) = paper.recall_task(rng, rng.normal(size=(120, 16)), 4, 9)
    assert items.shape == (120, 16)
    assert not set(context.ravel()) & set(held.ravel())
    images, labels = paper.load_digits()
    _, _, (ids, y), (other, z) = paper.vit_task(rng, images, labels, 2)
    assert not set(ids.ravel()) & set(other)
    np.testing.assert_array_equal(labels[ids], y)
    np.testing.assert_array_equal(labels[other], z)


def test_recall_is_solved_by_an_attention_that_finds_the_item():
    """With unit maps and a softmax of very large logits, the answer is read off exactly."""
    rng = np.random.default_rng(0)
    params, items, _, held = paper.recall_task(rng, rng.normal(size=(200, 16)), 1, 64)
    for name in ("q", "k"):
        params[name]["w"] = 30 * np.eye(16, dtype=np.float32)
    params["v"]["w"] = np.eye(8, 16, dtype=np.float32)
    params["o"]["w"] = np.eye(16, 8, dtype=np.float32)
    items = items / np.linalg.norm(items, axis=1, keepdims=True)
    *inputs, answer = held
    logits = paper.recall(params, paper.softmax_attention, items, *inputs)
    np.testing.assert_array_equal(logits.argmax(-1), answer)


def small(seeds, *_, make=paper.tasks):
    return make(seeds, 20, 1, 64)


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "tasks", small)
        # One program less to compile for each task.
        patch.setitem(paper.OPERATORS, "baseline", paper.softmax_attention)
        seen = []
        result = paper.reproduce(seed=3, seeds=2, progress=lambda f, what: seen.append(f))
        assert seen == sorted(seen)
        assert seen[-1] == 1
        yield result


def test_reproduce_reports_every_seed(result):
    assert result.seeds == (3, 4)
    assert len(result.measures) == 5
    assert all(len(m.method) == 2 for m in result.measures)
    assert [line.name for line in result.figure.lines] == ["MALA", "linear attention", "softmax"]
    assert papyrax.papers.Result.from_json(result.to_json()) == result


def test_concentration_holds_already_for_a_barely_trained_network(result):
    assert result.measures[0].holds
    assert result.measures[1].holds


@pytest.fixture(scope="module")
def drawn():
    params = paper.vit_init(np.random.default_rng(0), 64, 10)
    return params, paper.load_digits()[0][:20].astype(np.float32)


def verdicts(drawn, monkeypatch, weights):
    monkeypatch.setattr(paper, "mala_weights", weights)
    top, rows = jax.jit(lambda *a: paper.concentration.__wrapped__(*a))(*drawn)
    top = {name: [np.asarray(x, float)] for name, x in top.items()}
    same = dict.fromkeys(
        ((t, n) for t in ("vectors", "digits", "classification") for n in paper.OPERATORS), (0.5,)
    )
    return [m.holds for m in paper._result("quick", (0,), same, top, [float(rows)]).measures]


def test_wrong_weights_fail(drawn, monkeypatch):
    def no_offset(query, key, scale):
        kernel = scale * linear_attention_weights(query, key, normalize=False)
        return (1 + 1 / kernel.sum(-1, keepdims=True)) * kernel

    def no_scale(query, key, scale):
        return mala_weights(query, key, scale=scale) - linear_attention_weights(query, key)

    assert verdicts(drawn, monkeypatch, mala_weights)[:2] == [True, True]
    assert verdicts(drawn, monkeypatch, linear_attention_weights)[0] is False
    assert verdicts(drawn, monkeypatch, no_offset)[1] is False
    assert verdicts(drawn, monkeypatch, no_scale)[1] is False


def test_equal_accuracies_fail(drawn, monkeypatch):
    assert verdicts(drawn, monkeypatch, mala_weights)[2:] == [False, False, False]


def test_parts_exist_and_the_claim_names_both():
    for name in paper.PAPER.parts:
        parts = name.split(".")[1:]
        assert callable(functools.reduce(getattr, parts, papyrax))
    claim = dataclasses.asdict(paper.PAPER.claim)
    assert claim["method"] == "MALA"
    assert claim["baseline"] == "linear attention"
