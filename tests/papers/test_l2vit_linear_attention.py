"""The pieces of the reproduction, and verdicts that can fail; nothing long is trained."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import papyrax
from papyrax.papers import l2vit_linear_attention as paper
from papyrax.papers import toys
from papyrax.papers.catalog import missing_parts


def judged(accuracy, linear=(0.1, 0.1, 0.1), softmax=(0.1, 0.2, 0.4)):
    return {"accuracy": accuracy, "linear": np.array(linear), "softmax": np.array(softmax)}


def test_reproduce_reports_what_training_gives(monkeypatch):
    made = []

    def fit(make, loss, evaluate, seeds, batches, held_out, *, learning_rate):
        assert batches[0].shape == (2, 4 * 23, 50, 8, 8)
        made.append(make)
        return [judged(0.7 if len(made) == 1 else 0.8) for _ in seeds]

    monkeypatch.setattr(toys, "fit_modules", fit)
    result = paper.reproduce(seed=100, seeds=2)
    assert result.holds
    assert result.measures[0].method == (0.8, 0.8)
    nets = [jax.eval_shape(lambda make=make: nnx.state(make(nnx.Rngs(0)))) for make in made]
    assert ["norm2" in net["block"] for net in nets] == [False, True]
    assert papyrax.papers.Result.from_json(result.to_json()) == result
    assert missing_parts(paper.PAPER) == ()


def test_wrong_numbers_fail():
    def verdicts(method, baseline):
        found = {"method": [method], "baseline": [baseline]}
        return [m.holds for m in paper._result("quick", (0,), found).measures]

    assert verdicts(judged(0.8), judged(0.7)) == [True, True]
    assert verdicts(judged(0.8), judged(0.795)) == [False, True]
    assert verdicts(judged(0.8, linear=(0.1, 0.2, 0.4)), judged(0.7)) == [True, False]
    assert verdicts(judged(0.8, softmax=(0.1, 0.1, 0.1)), judged(0.7)) == [True, False]


def test_linear_attention_does_not_sharpen_and_softmax_does():
    net = paper.Net(False, nnx.Rngs(0))
    x = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    top = nnx.jit(paper.largest_weights)(net, x)
    np.testing.assert_allclose(top["linear"], top["linear"][0], rtol=1e-5)
    assert np.all(np.diff(np.asarray(top["softmax"])) > 0)


class Small(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(1, momentum=0.0, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))[..., 0]


def test_modules_are_fitted_seed_by_seed_with_their_statistics():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 60, 16, 2)).astype(np.float32)
    loss = lambda m, x, y: jnp.mean(jnp.square(m(x) - y))  # noqa: E731
    y = x @ np.array([1.0, -2.0], np.float32)
    got = toys.fit_modules(
        Small,
        loss,
        lambda m, x, y: (loss(m, x, y), m.norm.var[...]),
        (3, 4),
        (x, y),
        (x[:, 0], y[:, 0]),
        learning_rate=0.2,
    )
    assert len(got) == 2
    for error, var in got:
        assert error < 0.6 < np.mean(np.square(y))
        assert var != 1
    assert got[0][0] != got[1][0]


def test_batches_of_digits_leave_a_third_out():
    (x, y), (held_x, held_y) = toys.digit_batches((0, 1), 2)
    assert x.shape == (2, 46, 50, 8, 8)
    assert y.shape == (2, 46, 50)
    assert held_x.shape == (2, 599, 8, 8)
    images, labels = toys.digits()
    seen = {a.tobytes() for a in x[0].reshape(-1, 64)}
    unseen = [a.tobytes() not in seen for a in held_x[0].reshape(-1, 64)]
    assert np.mean(unseen) > 0.99
    where = {a.tobytes(): b for a, b in zip(images, labels)}
    assert all(where[a.tobytes()] == b for a, b in zip(held_x[1].reshape(-1, 64), held_y[1]))
