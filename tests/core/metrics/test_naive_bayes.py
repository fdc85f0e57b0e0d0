"""Naive Bayes against densities of SciPy, and in batches against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
from authors_code import recorded
from scipy import stats

from papyrax.metrics import naive_bayes_head, naive_bayes_init, naive_bayes_update

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 40).astype(np.int32)
X = RNG.normal(size=(40, 5)) * RNG.uniform(0.5, 3, 5) + RNG.normal(size=(3, 5))[Y]
POINTS = RNG.normal(size=(7, 5))
update, head = jax.jit(naive_bayes_update), jax.jit(naive_bayes_head)


def log_posterior(x, kernel, bias):
    return jax.nn.log_softmax(x @ kernel + bias)


def test_posterior_equals_that_of_the_densities():
    priors = np.bincount(Y) / len(Y)
    means = np.stack([X[k == Y].mean(0) for k in range(3)])
    variance = sum(p * X[k == Y].var(0) for k, p in enumerate(priors)) + 1e-9
    joint = np.log(priors) + np.stack(
        [stats.norm(m, np.sqrt(variance)).logpdf(POINTS).sum(1) for m in means], 1
    )
    want = joint - np.logaddexp.reduce(joint, 1, keepdims=True)
    with jax.enable_x64(True):
        state = naive_bayes_update(naive_bayes_init(5, 3, jnp.float64), jnp.asarray(X), Y)
        np.testing.assert_allclose(log_posterior(POINTS, *head(state)), want, rtol=1e-10)


def test_authors():
    """Fitted to ten and then to fourteen examples."""
    data = {k: np.array(v) for k, v in recorded("naive_bayes", "metrics").items()}
    x, y, points = data["features"], data["labels"], data["points"]
    with jax.enable_x64(True):
        state = naive_bayes_init(4, 3, jnp.float64)
        for rows in (slice(0, 10), slice(10, None)):
            state = naive_bayes_update(state, jnp.asarray(x[rows]), y[rows])
        np.testing.assert_allclose(state.means, data["means"], rtol=1e-10)
        # They smooth the variance of each class, we the mean of the variances.
        variances = state.squares / state.counts[:, None] + 1e-9
        np.testing.assert_allclose(variances, data["variances"], rtol=1e-10)
        kernel, bias = head(state)
        joint = np.log(data["prior"]) + data["log_likelihood"]
        logits = points @ kernel + bias
        # Up to what is equal for all classes.
        ours, theirs = (a - a[:, :1] for a in (np.asarray(logits), joint))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(logits.argmax(1), data["predicted"])


def test_batches_of_any_split_give_the_whole():
    whole = update(naive_bayes_init(5, 3), X.astype(np.float32), Y)
    order = np.argsort(Y)  # the first batch has one class alone
    for split in ((13,), (1, 20)):
        state = naive_bayes_init(5, 3)
        for rows in np.split(order, split):
            state = update(state, X[rows].astype(np.float32), Y[rows])
        for got, want in zip(state, whole):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_scale_and_shift_of_the_features_do_not_matter():
    """Not even a shift that float32 just resolves, of which squares would cancel."""
    x = X.astype(np.float32)
    want = log_posterior(x, *head(update(naive_bayes_init(5, 3), x, Y)))
    for scale, shift in ((np.float32(50), 0.0), (RNG.uniform(0.1, 9, 5).astype(np.float32), 200.0)):
        moved = scale * x + np.float32(shift)
        kernel, bias = head(update(naive_bayes_init(5, 3), moved, Y))
        np.testing.assert_allclose(log_posterior(moved, kernel, bias), want, atol=5e-3)


def test_equal_priors_and_variances_are_nearest_means():
    y = np.repeat(np.arange(3, dtype=np.int32), 2)
    means = RNG.normal(size=(3, 4)).astype(np.float32)
    x = means[y] + np.tile([[1], [-1]], (3, 1)).astype(np.float32)
    points = 3 * RNG.normal(size=(200, 4)).astype(np.float32)
    kernel, bias = head(update(naive_bayes_init(4, 3), x, y))
    nearest = np.square(points[:, None] - means).sum(-1).argmin(1)
    np.testing.assert_array_equal((points @ kernel + bias).argmax(1), nearest)


def test_classes_without_examples_are_not_predicted():
    state = update(naive_bayes_init(5, 4), X.astype(np.float32), Y)
    kernel, bias = head(state)
    assert np.isfinite(kernel).all()
    assert (np.asarray(X @ kernel + bias).argmax(1) < 3).all()
    assert np.isfinite(head(naive_bayes_init(5, 4))[1]).all()
