"""GREEN against its definition, example by example."""

import numpy as np

from papyrax.metrics import green_score


def test_green():
    rng = np.random.default_rng(0)
    matched, errors = rng.integers(0, 4, 30), rng.integers(0, 2, (30, 6))
    got = green_score(matched.astype(np.float32), errors.astype(np.float32))
    want = [m / (m + e.sum()) if m else 0.0 for m, e in zip(matched, errors)]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert 0 in want
