"""Errors of verification against loops and scikit-learn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_curve

from papyrax import metrics


def test_errors():
    rng = np.random.default_rng(0)
    match = rng.random(60) < 0.4
    s = np.round(rng.normal(size=60) + match, 1)  # with ties
    with jax.enable_x64(True):
        got = jax.jit(metrics.verification_errors)(s, match)
        eer = jax.jit(metrics.equal_error_rate)
        for t, far, frr in zip(*map(np.asarray, got), strict=True):
            np.testing.assert_allclose(far, np.mean(s[~match] >= t))
            np.testing.assert_allclose(frr, np.mean(s[match] < t))
        np.testing.assert_array_equal(got.thresholds, np.sort(s))
        far, tar, _ = roc_curve(match, s, drop_intermediate=False)
        # Where the lines between the points of the curve meet far = 1 - tar.
        place = np.linspace(0, 1, 200001)
        curve = np.interp(place, far + 1e-12 * np.arange(len(far)), 1 - tar)
        want = place[np.argmin(np.abs(curve - place))]
        np.testing.assert_allclose(eer(s, match), want, atol=2e-5)
        apart = np.where(match, 1.0, -1.0)
        assert eer(apart, match) == 0
        assert eer(-apart, match) == 1
        # Scores that tell nothing; and no pairs of one kind.
        np.testing.assert_allclose(eer(0 * s, match), 0.5)
        assert eer(s, np.zeros(60, bool)) == 0
        few = metrics.verification_errors(jnp.asarray(s), match, jnp.array([-9.0, 9.0]))
        assert few.false_accept.tolist() == [1, 0]
        assert few.false_reject.tolist() == [0, 1]
