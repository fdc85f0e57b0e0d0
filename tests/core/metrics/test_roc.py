"""Areas under curves against scikit-learn and a count of all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from papyrax.metrics import grouped_roc_auc, relative_improvement, roc_auc


def test_ties_count_half():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 200) / 3, rng.random(200) < 0.3
    with jax.enable_x64(True):
        area = jax.jit(roc_auc)
        np.testing.assert_allclose(area(scores, positive), roc_auc_score(positive, scores))
        # Only the order counts.
        np.testing.assert_allclose(area(np.exp(scores), positive), area(scores, positive))
        assert area(scores, positive | True) == 0


def test_groups_are_ranked_apart():
    rng = np.random.default_rng(1)
    n, users = 300, 12
    scores, positive = rng.integers(0, 9, n) / 4, rng.random(n) < 0.4
    groups = rng.integers(0, users - 1, n)
    positive[groups == 3] = True  # a group without negatives does not count
    areas, sizes, clicks = [], [], []
    for u in range(users):
        s, p = scores[groups == u], positive[groups == u]
        if 0 < p.sum() < len(p):
            pairs = s[p][:, None] - s[~p]
            areas.append(((pairs > 0) + (pairs == 0) / 2).mean())
            sizes.append(len(p))
            clicks.append(p.sum())
    assert len(areas) == users - 2
    with jax.enable_x64(True):
        for weights, of in (("examples", sizes), ("positives", clicks)):
            got = grouped_roc_auc(scores, positive, groups, num_groups=users, weights=weights)
            np.testing.assert_allclose(got, np.average(areas, weights=of))
        one = grouped_roc_auc(scores, positive, 0 * groups, num_groups=2)
        np.testing.assert_allclose(one, roc_auc(scores, positive))


def test_improvement_over_chance():
    got = relative_improvement(jnp.array([0.6, 0.7, 0.9]), jnp.array([0.6, 0.6, 0.5]))
    np.testing.assert_allclose(got, [0, 1, 0], atol=1e-5)


def test_a_score_of_nan_is_not_the_best():
    scores, positive = jnp.array([jnp.nan, 0.2, 0.1, 0.4]), jnp.array([True, False, False, True])
    assert np.isnan(roc_auc(scores, positive))
    groups = jnp.array([0, 0, 1, 1])
    assert np.isnan(grouped_roc_auc(scores, positive, groups, num_groups=2))
