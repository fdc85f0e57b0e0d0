"""The pieces of the reproduction, and verdicts that can fail; nothing long is trained."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import papyrax
from papyrax.papers import polarized_self_attention as paper
from papyrax.papers import toys
from papyrax.papers.catalog import missing_parts


def test_scenes_are_digits_under_one_light():
    digits = toys.digits()[0].reshape(-1, 8, 8)
    seen, true, gain = paper.scenes(np.random.default_rng(0), digits, 20)
    known = {d.tobytes() for d in digits}
    corners = [true[:, i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8)]
    assert all(np.ascontiguousarray(d).tobytes() in known for c in corners for d in c)
    for s, t, g in zip(seen, true, gain):
        slope, _ = np.polyfit(t.ravel(), s.ravel(), 1)
        np.testing.assert_allclose(slope, g, atol=0.02)


def test_test_digits_are_unseen(monkeypatch):
    # Every digit is one number, so that scenes show which digits they hold.
    ids = np.arange(300, dtype=np.float32)
    monkeypatch.setattr(toys, "digits", lambda: (np.tile(ids[:, None], 64), ids))
    (_, train), (_, test), gains = paper.tasks((0, 1), 4, 8, 30)
    assert train.shape == (2, 4, 8, 16, 16)
    assert test.shape == (2, 30, 16, 16)
    assert len(gains) == 2
    for a, b in zip(train, test):
        assert not set(np.unique(a)) & set(np.unique(b))


def run(error):
    return {"error": np.float32(error), "each": np.full(600, error)}


def test_reproduce_reports_what_training_gives(monkeypatch):
    errors, made = iter((0.02, 0.01, 0.011)), []

    def fit(make, loss, evaluate, seeds, batches, held_out, *, learning_rate):
        error = next(errors)
        made.append(make)
        return [run(error) for _ in seeds]

    monkeypatch.setattr(toys, "fit_modules", fit)
    result = paper.reproduce(seed=100, seeds=2)
    assert result.holds
    assert papyrax.papers.Result.from_json(result.to_json()) == result
    assert [line.name for line in result.figure.lines] == ["parallel", "sequential", "without"]
    np.testing.assert_allclose(result.measures[3].method, 1 / 6 + 1 / (9 * paper.DIM))
    assert missing_parts(paper.PAPER) == ()
    sizes = [
        sum(a.size for a in jax.tree.leaves(jax.eval_shape(lambda m=m: nnx.state(m(nnx.Rngs(0))))))
        for m in made
    ]
    assert sizes[0] < sizes[1] == sizes[2]


def test_wrong_numbers_fail():
    gains = [np.linspace(0.2, 1, 600)]

    def verdicts(without, parallel, sequential, added=0.17):
        runs = {"without": without, "parallel": parallel, "sequential": sequential}
        found = {kind: [run(error)] for kind, error in runs.items()}
        return [m.holds for m in paper._result("quick", (0,), found, gains, added).measures]

    assert verdicts(0.02, 0.01, 0.011) == [True] * 4
    assert verdicts(0.02, 0.017, 0.015) == [False, True, True, True]
    assert verdicts(0.02, 0.015, 0.017) == [True, False, True, True]
    assert verdicts(0.02, 0.006, 0.01) == [True, True, False, True]
    assert verdicts(0.02, 0.01, 0.01, added=0.3) == [True, True, True, False]


def test_judge_tells_the_error_of_each_image():
    net = lambda x: x  # noqa: E731
    seen, true = jnp.zeros((3, 2, 2)), jnp.ones((3, 2, 2)) * jnp.arange(3.0)[:, None, None]
    got = paper.judge(net, seen, true)
    np.testing.assert_allclose(got["each"], [0, 1, 4])
    np.testing.assert_allclose(got["error"], 5 / 3, rtol=1e-6)
