"""Distillation against the authors' code, closed forms and what the papers say of the losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from authors_code import compare, recorded
from scipy.special import expit, log_softmax, softmax

import papyrax.losses as losses

AUTHORS = recorded("distillation")
KD = jax.jit(losses.knowledge_distillation_loss)
NORM = jax.jit(losses.binary_kl_norm_loss)
ALIGN = jax.jit(losses.align_gradients)
PS_KD = jax.jit(losses.ps_kd)


@pytest.mark.parametrize(
    "name",
    [
        "knowledge_distillation_loss",
        "norm_direction_loss",
        "binary_kl_loss",
        "binary_kl_norm_loss",
        "landmark_distillation_loss",
    ],
)
def test_authors(name):
    entry = AUTHORS[name]
    loss = getattr(losses, name)
    # The clipped probability 1 - 1e-8 has nine digits; ours is exact.
    rtol = 1e-8 if name == "binary_kl_norm_loss" else 1e-10
    compare(entry, lambda **a: loss(**a, **entry.get("static", {})).mean(), rtol)


def test_authors_ps_kd():
    def mean_loss(logits, labels, past):
        state = losses.PsKdState(past)
        return PS_KD(state, logits, labels, jnp.arange(3), weight=0.3)[0].mean()

    compare(AUTHORS["ps_kd"], mean_loss)


def test_authors_align_gradients():
    entry = AUTHORS["align_gradients"]
    with jax.enable_x64(True):
        g, h = (jnp.asarray(np.asarray(v)) for v in entry["arrays"].values())
        # Two leaves, as in a network: one inner product over both.
        both = ALIGN([g[:2], g[2:]], [h[:2], h[2:]])
        np.testing.assert_allclose(jnp.concatenate(both), entry["value"], rtol=1e-12)
        np.testing.assert_allclose(ALIGN([g], [-h])[0], g - h, rtol=1e-12)


def rows(seed=0, shape=(6, 5), scale=2.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def test_knowledge_distillation():
    student, teacher = rows(0), rows(1)
    p, log_q = softmax(teacher / 3, -1), log_softmax(student / 3, -1)
    want = 9 * (p * (np.log(p) - log_q)).sum(-1)
    with jax.enable_x64(True):
        s, t = jnp.asarray(student), jnp.asarray(teacher)
        np.testing.assert_allclose(KD(s, t, temperature=3.0), want, rtol=1e-12)
        np.testing.assert_allclose(KD(t + 7, t), 0, atol=1e-12)
        # The paper's limit of high temperature: squared distance of centred logits.
        d = (student - teacher) - (student - teacher).mean(-1, keepdims=True)
        far = KD(s, t, temperature=1e4)
        np.testing.assert_allclose(far, (d**2).mean(-1) / 2, rtol=1e-3)
        # Classes that are not there are as if they never were.
        where = np.ones(5, bool)
        where[[1, 4]] = False
        got = KD(s, t, where=where[None])
        np.testing.assert_allclose(got, KD(s[:, where], t[:, where]), rtol=1e-12)
        absent = KD(s, t, where=np.zeros(5, bool)[None])
        np.testing.assert_array_equal(absent, 0)


def test_ps_kd_remembers_and_mixes():
    z, labels = jnp.asarray(rows(2), jnp.float32), jnp.array([0, 4, 1, 1, 2, 3])
    order = jnp.array([5, 0, 3, 1, 4, 2])
    state = losses.ps_kd_init(jnp.zeros(8, jnp.int32).at[order].set(labels), classes=5)
    xent = optax.softmax_cross_entropy_with_integer_labels(z, labels)
    first, state = PS_KD(state, z, labels, order, weight=0.7)
    np.testing.assert_allclose(first, xent, rtol=1e-5)
    np.testing.assert_allclose(state.predictions[order], softmax(z, -1), rtol=1e-5)
    np.testing.assert_array_equal(state.predictions[6:], np.eye(5)[[0, 0]])

    def mean(z):
        return PS_KD(state, z, labels, order, weight=0.3)[0].sum()

    other = jnp.asarray(rows(3), jnp.float32)
    want = softmax(other, -1) - 0.7 * np.eye(5)[labels] - 0.3 * state.predictions[order]
    np.testing.assert_allclose(jax.jit(jax.grad(mean))(other), want, atol=1e-5)
    # A uniform past is label smoothing.
    flat = losses.PsKdState(jnp.full((8, 5), 0.2))
    smooth = optax.softmax_cross_entropy(z, optax.smooth_labels(jnp.eye(5)[labels], 0.3))
    np.testing.assert_allclose(PS_KD(flat, z, labels, order, weight=0.3)[0], smooth, rtol=1e-5)


def test_norm_direction_pulls_short_features_and_turns_long_ones():
    means = jnp.array([[3.0, 0.0, 0.0], [0.0, 0.1, 0.0]])
    teacher = jnp.array([2.0, 1.0, 2.0])

    @jax.jit
    def loss(f, label=0):
        return losses.norm_direction_loss(f, teacher, jnp.asarray(label), means)

    slope = jax.jit(jax.grad(loss))
    short, long = jnp.array([0.5, -0.7, 0.2]), jnp.array([3.0, -4.0, 1.0])
    np.testing.assert_allclose(slope(short), [-1 / 3, 0, 0], atol=1e-6)
    assert abs(jnp.vdot(slope(long), long)) < 1e-6
    np.testing.assert_allclose(loss(jnp.array([0.0, 5.0, 0.0]), 1), 0, atol=1e-6)
    np.testing.assert_allclose(loss(jnp.array([0.0, 1.5, 0.0]), 1), 0.5, atol=1e-6)
    np.testing.assert_allclose(loss(jnp.array([-5.0, 0.0, 0.0])), 2, atol=1e-6)


def test_class_means():
    x, y = rows(4, (20, 3)), np.random.default_rng(5).integers(0, 4, 20)
    want = np.stack([x[y == k].mean(0) for k in range(4)] + [np.zeros(3)])
    np.testing.assert_allclose(
        jax.jit(losses.class_means, static_argnames="classes")(x, y, classes=5),
        want,
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_label_that_is_no_class_is_not_taken_for_one():
    x, means = jnp.ones((3, 2)), jnp.eye(2)
    y = np.array([0, -1, 2])
    np.testing.assert_array_equal(losses.class_means(2 * x, y, classes=2), [[2, 2], [0, 0]])
    loss = losses.norm_direction_loss(x, x, y, means)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True])


def test_binary_kl():
    student, teacher = rows(6), rows(7)

    def kl(p, q):
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    with jax.enable_x64(True):
        s, t = jnp.asarray(student), jnp.asarray(teacher)
        want = 4 * kl(expit(teacher / 2), expit(student / 2)).sum(-1)
        np.testing.assert_allclose(jax.jit(losses.binary_kl_loss)(s, t), want, rtol=1e-10)
        want = 4 * kl(0.5, expit((student - teacher) / 2)).sum(-1)
        np.testing.assert_allclose(NORM(s, t), want, rtol=1e-10)
        np.testing.assert_allclose(NORM(t, s), NORM(s, t), rtol=1e-12)
        slope = jax.jit(jax.grad(lambda s: NORM(s, t).sum()))(s)
        np.testing.assert_allclose(slope, np.tanh((student - teacher) / 4), rtol=1e-10)
        tiny = NORM(t + 1e-9, t)
        np.testing.assert_allclose(tiny, 5 * 1e-18 / 8, rtol=1e-4)
        curvature = jax.jit(jax.hessian(lambda s: losses.binary_kl_norm_loss(s, s * 0)))(t[0] * 0)
        np.testing.assert_allclose(curvature, np.eye(5) / 4, atol=1e-12)


def test_ferkd_labels():
    p = np.random.default_rng(8).dirichlet(np.full(4, 0.4), 30).astype(np.float32)
    y = np.random.default_rng(9).integers(0, 4, 30)
    adapt = jax.jit(losses.ferkd_labels)
    out = adapt(
        p, y, calibrate_below=0.7, discard_below=0.4, discard_above=0.95, label_smoothing=0.2
    )
    top = p.max(-1)
    unsure = top < 0.7
    assert 5 < unsure.sum() < 25
    np.testing.assert_allclose(out.targets[~unsure], p[~unsure], rtol=1e-5)
    want = 0.8 * np.eye(4)[y] + 0.05
    np.testing.assert_allclose(out.targets[unsure], want[unsure], rtol=1e-5)
    np.testing.assert_array_equal(out.keep, (top >= 0.4) & (top <= 0.95))
    np.testing.assert_allclose(adapt(p, y, calibrate_below=0).targets, p, rtol=1e-5)


def test_a_landmark_at_its_target_is_not_pulled():
    x, error = jnp.array([0.2, -0.1]), jnp.array([0.1, 0.0])
    loss = lambda p: losses.landmark_distillation_loss(p, x, x + error, x - error)  # noqa: E731
    np.testing.assert_array_equal(jax.grad(loss)(x), [0.0, 0.0])


def test_landmarks_are_driven_to_the_target():
    y = jnp.zeros(1)

    loss = jax.jit(losses.landmark_distillation_loss)
    derivative = jax.jit(jax.grad(lambda x: loss(x, y, y - 0.2, y + 0.1)))

    def slope(x):
        return float(derivative(np.array([x], np.float32))[0])

    assert loss(y, y, y + 1, y - 1) == 0
    # Left and right of the target alike.
    for x in (0.02, 0.07, 0.15, 0.3):
        np.testing.assert_allclose(slope(-x), -slope(x), rtol=1e-5)
    # Beyond both teachers; beyond the tolerant one; between; and close to the target.
    np.testing.assert_allclose(slope(0.3), 2 * 0.6 + 1.9 + 1.8, rtol=1e-5)
    np.testing.assert_allclose(slope(0.15), 2 * 0.3 + 0.45 + 1.8, rtol=1e-5)
    np.testing.assert_allclose(slope(0.07), 2 * 3 + 0.45 + 0.4, rtol=1e-5)
    np.testing.assert_allclose(slope(0.02), 2 * 3 + 0.4, rtol=1e-5)
    np.testing.assert_allclose(slope(0.01), 2 * 3, rtol=1e-5)
    # Teachers that make no errors leave the squared error.
    x = jnp.array([0.3, -0.2])
    right = loss(x, x * 0, x * 0, x * 0)
    np.testing.assert_allclose(right, 2 * jnp.mean(x**2), rtol=1e-6)
