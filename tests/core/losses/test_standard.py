"""Standard losses against their formulas in NumPy, and optax's that are handed on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import losses
from papyrax.losses._from_optax import FROM_OPTAX


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7, 5)) * 2, rng.integers(0, 5, 7)
    return z, y, softmax(z), np.eye(5)[y]


def close(got, want):
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-11, atol=1e-13)


COUNTS = np.array([50, 20, 7, 3, 1])


def test_formulas(data):
    z, y, p, q = data
    p_y = (p * q).sum(-1)
    with jax.enable_x64(True):
        x = jnp.asarray(z)
        close(losses.focal_loss(x, y, focusing=1.5), -((1 - p_y) ** 1.5) * np.log(p_y))
        close(losses.mae_loss(x, y), np.abs(p - q).sum(-1))
        close(losses.brier_loss(x, y), ((p - q) ** 2).sum(-1))
        reverse = -(p * np.where(q > 0, 0.0, -4.0)).sum(-1)
        got = losses.symmetric_cross_entropy(
            x, y, forward_weight=0.3, reverse_weight=2.0, log_zero=-4.0
        )
        close(got, -0.3 * np.log(p_y) + 2 * reverse)
        margins = 0.5 * COUNTS**-0.25
        close(
            losses.ldam_loss(x, y, COUNTS, scale=3.0),
            -np.log((softmax(3 * (z - q * margins)) * q).sum(-1)),
        )
        adjusted = softmax(z + 0.7 * np.log(COUNTS / COUNTS.sum()))
        close(
            losses.logit_adjusted_cross_entropy(x, y, COUNTS, strength=0.7),
            -np.log((adjusted * q).sum(-1)),
        )


def test_relatives_in_optax(data):
    z, y, *_ = data
    with jax.enable_x64(True):
        x = jnp.asarray(z)
        xent = optax.softmax_cross_entropy_with_integer_labels(x, y)
        for same in (
            losses.focal_loss(x, y, focusing=0.0),
            losses.label_smoothing_cross_entropy(x, y, label_smoothing=0.0),
            losses.logit_adjusted_cross_entropy(x, y, COUNTS, strength=0.0),
            losses.ldam_loss(x, y, COUNTS, max_margin=0.0, scale=1.0),
            losses.symmetric_cross_entropy(x, y, forward_weight=1.0, reverse_weight=0.0),
        ):
            close(same, xent)
        soft = optax.smooth_labels(jax.nn.one_hot(y, 5, dtype=x.dtype), 0.2)
        got = losses.label_smoothing_cross_entropy(x, y, label_smoothing=0.2)
        close(got, optax.softmax_cross_entropy(x, soft))
        # Two classes: the softmax of (0, z) is the sigmoid of z.
        pair = jnp.stack([jnp.zeros(7), x[:, 0]], -1)
        want = optax.sigmoid_focal_loss(x[:, 0], jnp.asarray(y % 2, x.dtype))
        close(losses.focal_loss(pair, y % 2), want)


def test_absent_classes_are_left_out(data):
    z, y, *_ = data
    kept = np.array([0, 2, 4])
    where = jnp.isin(jnp.arange(5), kept)[None]
    present = np.isin(y, kept)
    with jax.enable_x64(True):
        x, labels = jnp.asarray(z), np.searchsorted(kept, np.where(present, y, 0))
        for name in ("focal_loss", "mae_loss", "brier_loss", "label_smoothing_cross_entropy"):
            loss = getattr(losses, name)
            close(loss(x, y, where=where), np.where(present, loss(x[:, kept], labels), 0))


def test_one_class_alone_costs_nothing():
    x, y = jnp.ones((2, 1)), jnp.zeros(2, jnp.int32)
    for name in ("focal_loss", "mae_loss", "brier_loss", "symmetric_cross_entropy"):
        loss = getattr(losses, name)
        assert loss(x, y).tolist() == [0.0, 0.0]
        assert jax.grad(lambda x, loss=loss: loss(x, y).sum())(x).tolist() == [[0.0], [0.0]]


def test_pinball_is_minimized_by_the_quantile():
    y = np.random.default_rng(1).normal(size=1001)
    with jax.enable_x64(True):
        grid = jnp.linspace(-2, 2, 401)
        for q in (0.1, 0.5, 0.9):
            total = losses.pinball_loss(
                jnp.broadcast_to(grid[:, None], (401, 1001)),
                jnp.broadcast_to(y, (401, 1001)),
                quantile=q,
            ).sum(-1)
            assert abs(grid[total.argmin()] - np.quantile(y, q)) <= 0.011
        r = np.linspace(-3, 3, 13)
        huber = losses.pinball_loss(jnp.zeros(13), jnp.asarray(r), quantile=0.5, huber_delta=0.8)
        close(huber, optax.huber_loss(jnp.zeros(13), jnp.asarray(r), delta=0.8) / 0.8 / 2)


def test_general_robust_loss_has_its_relatives_as_limits():
    r = np.linspace(-4, 4, 41)
    s = (r / 1.3) ** 2
    named = {
        2.0: s / 2,
        1.0: np.sqrt(s + 1) - 1,
        0.0: np.log1p(s / 2),
        -2.0: 2 * s / (s + 4),
        -np.inf: 1 - np.exp(-s / 2),
        0.7: 1.3 / 0.7 * ((s / 1.3 + 1) ** 0.35 - 1),
    }
    with jax.enable_x64(True):
        x, y = jnp.zeros(41), jnp.asarray(r)

        def f(a):
            return losses.general_robust_loss(x, y, shape=a, scale=1.3)

        for a, want in named.items():
            close(f(a), want)
        for a in (2.0, 0.0):  # continuous in the shape, and so is the derivative
            np.testing.assert_allclose(f(a - 1e-7), named[a], atol=1e-5)
        g = jax.grad(lambda a: f(a).sum())
        np.testing.assert_allclose(g(0.0), (f(1e-4) - f(-1e-4)).sum() / 2e-4, rtol=1e-6)
        np.testing.assert_allclose(f(-1e7), named[-np.inf], atol=1e-6)


@pytest.mark.parametrize("name", FROM_OPTAX)
def test_optax_is_handed_on(name):
    assert getattr(losses, name) is getattr(optax.losses, name)
    assert name in dir(losses)
    assert name not in losses.__all__, "ours would hide it"


def test_unknown_names_are_unknown():
    with pytest.raises(AttributeError, match="has no attribute 'cross_entropy_of_nothing'"):
        _ = losses.cross_entropy_of_nothing


OF_LABELS = {
    "stablemax": losses.stablemax_cross_entropy,
    "comp_sum": losses.comp_sum_loss,
    "focal": losses.focal_loss,
    "label_smoothing": losses.label_smoothing_cross_entropy,
    "brier": losses.brier_loss,
    "ldam": lambda z, y, **k: losses.ldam_loss(z, y, COUNTS, scale=1.0, **k),
    "ldr_l1": lambda z, y, **k: losses.ldr_kl(z, y, normalization="l1", **k),
    "ldr_softplus": lambda z, y, **k: losses.ldr_kl(z, y, normalization="softplus", **k),
    "z": losses.z_loss,
    "spherical": losses.spherical_softmax_cross_entropy,
}


@pytest.mark.parametrize("loss", OF_LABELS.values(), ids=OF_LABELS)
def test_what_is_masked_counts_for_nothing_and_what_is_wrong_shows(data, loss):
    """Padding may hold any label and any score; elsewhere a wrong one makes the loss NaN."""
    z, y = data[0][:6].astype(np.float32), np.array([0, 3, 1, 2, 4, 2])
    there, classes = np.array([1, 1, 0, 0, 0, 0], bool), np.array([1, 1, 0, 1, 1], bool)

    @jax.jit
    def run(z, y, mask):
        f = lambda z: loss(z, y, where=mask)  # noqa: E731
        return f(z), jax.grad(lambda z: f(z).sum())(z)

    mask = there[:, None] & classes
    want, slope = run(z, y, mask)
    assert np.all(want[:2] != 0)
    assert np.all(slope[:2][:, classes] != 0)
    padded, labels = np.where(mask, z, np.nan), np.where(there, y, [0, 0, -100, -1, 5, 255])
    got, gradient = run(padded, labels, mask)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(gradient, slope)
    assert not np.any(got[2:])
    assert not np.any(gradient[~mask])

    everywhere = np.ones_like(mask)
    wrong = run(z, np.array([0, -1, -100, 5, 255, 4]), everywhere)[0]
    np.testing.assert_array_equal(np.isnan(wrong), [0, 1, 1, 1, 1, 0])
    z[[1, 3], [0, 2]] = np.nan
    np.testing.assert_array_equal(np.isnan(run(z, y, everywhere)[0]), [0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(np.isnan(jax.jit(loss)(z, y)), [0, 1, 0, 1, 0, 0])


def test_labels_of_one_byte_tell_more_classes_apart_than_they_can_name():
    z = jnp.asarray(np.random.default_rng(1).normal(size=(2, 300)), jnp.float32)
    for dtype in (np.int8, np.uint8):
        y = np.array([3, 100])
        got = losses.label_smoothing_cross_entropy(z, jnp.asarray(y, dtype))
        np.testing.assert_array_equal(got, losses.label_smoothing_cross_entropy(z, y))


def test_a_robust_loss_is_finite_for_any_outlier():
    x, y = jnp.array([1e12, 1e20, 1e30]), jnp.zeros(3)
    want = {1.0: x, 0.0: 2 * np.log(np.asarray(x, np.float64)) - np.log(2), -2.0: [2, 2, 2]}
    for shape, values in want.items():
        f = lambda x, a=shape: losses.general_robust_loss(x, y, shape=a)  # noqa: E731
        got, slope = jax.jit(lambda x, f=f: (f(x), jax.grad(lambda x: f(x).sum())(x)))(x)
        np.testing.assert_allclose(got, values, rtol=1e-5)
        assert np.isfinite(slope).all()


def test_hyper_parameters_may_be_traced():
    z, y = jnp.array([[1.0, 0.0], [-1.0, 2.0]]), jnp.array([0, 0])
    calls = (
        lambda a: losses.pinball_loss(z, -z, huber_delta=a),
        lambda a: losses.binary_kl_norm_loss(z, -z, clip=a),
        lambda a: losses.madacos(z / 2, y, median_probability=a, class_constant=100 * a),
        lambda a: losses.multiscale_consistency_loss(z[:, None], clip=a, threshold=a),
        lambda a: losses.comp_sum_regret_bound(z, order=a, classes=3),
    )
    traced = jax.jit(lambda a: [call(a) for call in calls])(np.float32(0.3))
    known = jax.jit(lambda: [call(0.3) for call in calls])()
    for got, want in zip(traced, known):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    # The order of comp-sum losses can be learnt from cross-entropy on.
    slope = jax.jit(jax.grad(lambda a: losses.comp_sum_loss(z[:1], y[:1], order=a)[0]))(1.0)
    np.testing.assert_allclose(slope, -(np.log1p(np.exp(-1)) ** 2) / 2, rtol=1e-5)
