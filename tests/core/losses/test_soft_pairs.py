"""Losses with soft targets, of a ranker and with made negatives, against loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from papyrax import losses, metrics


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_soft_contrastive():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 3))
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
    want = np.zeros(5)
    for i in range(5):
        for j in range(5):
            sizes = np.sqrt(sets[i].sum() * sets[j].sum())
            target = sets[i] @ sets[j] / sizes if sizes else 0
            p = sigmoid(unit(x)[i] @ unit(y)[j] / 0.3)
            want[i] -= (target * np.log(p) + (1 - target) * np.log(1 - p)) / 5
    run = jax.jit(losses.soft_contrastive_loss, static_argnames=("temperature", "chunk_size"))
    with jax.enable_x64(True):
        close(run(x, y, sets, temperature=0.3), want)
        close(run(x, y, 0.7 * sets, temperature=0.3, chunk_size=2), want)
        # Labels that share nothing: the same-class indicator, and no gradient to the labels.
        classes = np.array([0, 1, 0, 2, 1])
        same = classes[:, None] == classes
        logits = unit(x) @ unit(y).T / 0.3
        got = run(x, y, np.eye(3)[classes], temperature=0.3)
        close(got, np.mean(np.where(same, -np.log(sigmoid(logits)), np.log1p(np.exp(logits))), 1))
        total = lambda s: jnp.sum(run(x, y, s, temperature=0.3))  # noqa: E731
        assert not np.any(jax.grad(total)(np.eye(3)[classes]))


def test_soft_contrastive_over_devices():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 8, 3)).astype(np.float32)
    sets = rng.integers(0, 2, (8, 4)).astype(bool)
    want = losses.soft_contrastive_loss(x, y, sets)
    for ring in (False, True):
        loss = functools.partial(losses.soft_contrastive_loss, axis_name="d", ring=ring)
        split = [a.reshape(2, 4, -1) for a in (x, y, sets)]
        got = jax.vmap(loss, axis_name="d")(*split)
        np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-5)


def test_cross_modal_alignment():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 6, 3))
    s = unit(x) @ unit(y).T / 0.2
    near = np.diagonal(s)
    both = (np.log(np.exp(s).sum(1)) + np.log(np.exp(s).sum(0))) / 2
    run = jax.jit(losses.cross_modal_alignment_loss, static_argnames=("chunk_size",))
    with jax.enable_x64(True):
        for weight in (0.0, 0.1, 1.0):
            got = losses.cross_modal_alignment_loss(
                jnp.asarray(x), jnp.asarray(y), temperature=0.2, energy_weight=weight
            )
            close(got, (1 - weight) * both - near)
        close(run(x, y, temperature=0.2, chunk_size=4), (1 - 1e-3) * both - near)
        clip = losses.symmetric_info_nce_loss(jnp.asarray(x), jnp.asarray(y), temperature=0.2)
        close(clip, both - near)


def test_adversarial_retriever():
    rng = np.random.default_rng(3)
    s, f = rng.normal(size=(2, 4, 5))
    p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    q = np.exp(f / 2) / np.exp(f / 2).sum(1, keepdims=True)
    reward = np.log(sigmoid(f[:, :1] - f))
    distill = -(q * np.log(p)).sum(1)
    run = jax.jit(
        losses.adversarial_retriever_loss,
        static_argnames=("adversarial_weight", "temperature", "is_expectation", "is_summed"),
    )
    with jax.enable_x64(True):
        got = run(s, f, adversarial_weight=0.3, temperature=2.0)
        close(got, 0.3 * (p * reward).sum(1) + 0.7 * distill)
        got = run(s, f + 9, adversarial_weight=0.3, temperature=2.0, is_expectation=False)
        close(got, 0.3 * (reward * np.log(p)).sum(1) + 0.7 * distill)
        released = {"is_expectation": False, "is_summed": True, "temperature": 2.0}
        value = np.mean(run(s, f, adversarial_weight=0.3, **released))
        close(value, 0.3 * (reward * np.log(p)).sum() + 0.7 * distill.mean())
        # REINFORCE of the reward, exactly; the released term's gradient; none to the ranker.
        game = functools.partial(run, adversarial_weight=1.0)
        grad = jax.grad(lambda s: jnp.sum(game(s, f)))(s)
        close(grad, p * (reward - (p * reward).sum(1, keepdims=True)))
        grad = jax.grad(lambda s: jnp.sum(game(s, f, is_expectation=False)))(s)
        close(grad, reward - p * reward.sum(1, keepdims=True))
        assert not np.any(jax.grad(lambda f: jnp.sum(run(s, f)))(f))


def test_hard_negative_sigmoid():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 4, 3))
    n = rng.normal(size=(4, 2, 3))
    near = 3 * np.sum(unit(x) * unit(y), 1) - 0.5
    far = 3 * np.einsum("bf,bnf->bn", unit(x), unit(n)) - 0.5
    run = jax.jit(losses.hard_negative_sigmoid_loss)
    with jax.enable_x64(True):
        got = run(x, y, n, scale=3.0, bias=-0.5)
        close(got, -np.log(sigmoid(near)) - np.log(sigmoid(-far)).sum(1))
        close(run(x, y, n, scale=0.0, bias=0.0), np.full(4, 3 * np.log(2)))
        # With all other keys as negatives of every query it is SigLIP.
        others = np.stack([np.delete(y, i, 0) for i in range(4)])
        siglip = losses.siglip_loss(jnp.asarray(x), jnp.asarray(y), scale=3.0, bias=-0.5)
        close(losses.hard_negative_sigmoid_loss(x, y, others, scale=3.0, bias=-0.5), siglip)


def test_out_of_distribution_scores():
    rng = np.random.default_rng(5)
    x, texts, others = rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 3)), rng.normal(size=(5, 3))
    with jax.enable_x64(True):
        known, wrong = (np.exp(4 * unit(x) @ unit(t).T) for t in (texts, others))
        got = metrics.neglabel_score(*map(jnp.asarray, (x, texts, others)), scale=4.0)
        close(got, known.sum(-1) / (known.sum(-1) + wrong.sum(-1)))
        got = metrics.maximum_concept_matching_score(jnp.asarray(x), jnp.asarray(texts), scale=4.0)
        close(got, (known / known.sum(-1, keepdims=True)).max(-1))
