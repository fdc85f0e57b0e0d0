"""Contrastive and hyperbolic losses against values and gradients of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded
from flax import nnx

from papyrax import losses, metrics
from papyrax.layers import Hallucinator
from papyrax.numerics import safe_normalize

ENTRIES = recorded("contrastive")


def check(name, function):
    entry = ENTRIES[name]
    static = entry.get("static", {})
    compare(entry, lambda **arrays: function(**arrays, **static))


def test_symmetric_info_nce():
    def mean_loss(first, second, scale, **static):
        return losses.symmetric_info_nce_loss(first, second, temperature=1 / scale, **static).mean()

    check("symmetric_info_nce_loss", mean_loss)


@pytest.mark.parametrize("name", ["elementwise", "one share"])
def test_feature_transformation(name, monkeypatch):
    """The code's shares and permutation, its moved query for the negatives too, its queue."""

    def mean_loss(queries, keys, queue, positive_share, negative_share, order, memory, temperature):
        shares = iter([positive_share, negative_share])
        monkeypatch.setattr(
            jax.random,
            "beta",
            lambda key, a, b, shape, dtype: jnp.broadcast_to(next(shares), shape),
        )
        monkeypatch.setattr(jax.random, "permutation", lambda key, x: x[order])
        q, k = losses.positive_extrapolation(KEY, queries, keys, elementwise=True)
        n = losses.negative_interpolation(KEY, queue, elementwise=True)
        pushed = losses.key_queue_push(losses.KeyQueue(queue, jnp.int32(0)), k)
        error = jnp.max(jnp.abs(pushed.keys - memory))
        near = jnp.sum(q * k, -1)
        loss = losses.score_info_nce_loss(near, q @ n.T, temperature=temperature).mean()
        return loss + jnp.where(error < 1e-12, 0, jnp.nan)

    KEY = jax.random.key(0)
    check(f"feature_transformation {name}", mean_loss)


def test_bounded_temperature():
    """Scaled cosines and the regularizer with 0.1; the code divides along the wrong axis."""

    def value(first, second, logits, low):
        t = losses.bounded_temperature(logits, low=low)
        cosines = jnp.sum(safe_normalize(first) * safe_normalize(second), -1)
        batch = logits.shape[1]
        regularizer = jnp.mean(batch / 2 * jnp.log(t) + 1 / t, -1)
        return jnp.mean(cosines[:, None] / t[:, :, None]) + 0.1 * jnp.sum(regularizer)

    check("bounded_temperature", value)


def split(several, labels):
    """The one of several that `labels` names, and the others."""
    own = jnp.take_along_axis(several, labels[:, None, None], 1)[:, 0]
    number = jnp.arange(several.shape[1] - 1)
    others = number[None] + (number[None] >= labels[:, None])
    return own, jnp.take_along_axis(several, others[..., None], 1)


def test_hard_negatives():
    def sigmoid(single, several, log_scale, labels, bias):
        keys, negatives = split(several, labels)
        return losses.hard_negative_sigmoid_loss(
            single, keys, negatives, scale=jnp.exp(log_scale), bias=bias[0]
        ).mean()

    def softmax(single, several, log_scale, labels):
        keys, negatives = split(several, labels)
        return losses.info_nce_loss(single, keys, negatives, temperature=jnp.exp(-log_scale)).mean()

    check("hard_negative_sigmoid_loss", sigmoid)
    check("info_nce_loss hard negatives", softmax)


@pytest.mark.parametrize("name", ["", " at a base", " riemannian"])
def test_to_poincare(name):
    check(f"to_poincare{name}", losses.to_poincare)


def test_hyperbolic_losses():
    def confusion(features, **static):
        # The code divides the sum over pairs of twice the loss by the batch.
        return losses.hyperbolic_confusion_loss(*jnp.split(features, 2), **static).mean()

    def cross_entropy(**arrays):
        return losses.hyperbolic_cross_entropy_loss(**arrays).mean()

    check("hyperbolic_confusion_loss", confusion)
    check("hyperbolic_cross_entropy_loss", cross_entropy)


@pytest.mark.parametrize(
    "name", ["pairwise_poincare", "pairwise_poincare matrix", "pairwise_lorentz"]
)
def test_distances(name):
    check(name, getattr(losses, name.split()[0]))


@pytest.mark.parametrize("name", ["", " plain"])
def test_hard_negative_triplet(name):
    def mean_loss(queries, keys, relevant, **static):
        return losses.hard_negative_triplet_loss(queries, keys, relevant > 0, **static).mean()

    check(f"hard_negative_triplet_loss{name}", mean_loss)


def test_hallucinator():
    entry = ENTRIES["hallucinator"]
    amount = entry["amount"]
    graph, state = nnx.split(Hallucinator(3, rngs=nnx.Rngs(0)))

    def mean_loss(queries, keys, queue, temperature, **layers):
        params = {
            name: {"kernel": layers[f"kernel_{i}"].T, "bias": layers[f"bias_{i}"]}
            for i, name in enumerate(("first", "second", "last"))
        }
        nnx.replace_by_pure_dict(state, params)
        made = nnx.merge(graph, state)(queries, keys, amount)
        both = jnp.concatenate([keys, keys])
        return losses.info_nce_loss(made, both, queue, temperature=temperature).mean()

    check("hallucinator", mean_loss)


def test_interclr():
    """The loss with the code's samples, which are those of a pool of `negatives`."""
    entry = ENTRIES["interclr"]

    def mean_loss(queries, bank, labels, index, positives, negatives, **static):
        del labels, index
        return losses.info_nce_loss(queries, bank[positives], bank[negatives], **static).mean()

    check("interclr", mean_loss)
    a = {k: np.asarray(v) for k, v in entry["arrays"].items()}
    bank = losses.PseudoLabelBank(a["bank"], a["labels"], np.zeros((5, 4)))
    count = a["negatives"].shape[1]
    _, drawn = losses.pseudo_label_samples(
        jax.random.key(0), bank, a["queries"], a["index"], negatives=50, pool=count
    )
    for got, want in zip(drawn, a["negatives"], strict=True):
        assert set(got.tolist()) == set(want.tolist())


def test_interclr_memory():
    entry = ENTRIES["interclr memory"]
    a = {k: np.asarray(entry[k]) for k in ("bank", "labels", "centroids", "keys", "index")}
    want = {k: np.asarray(v) for k, v in entry["value"].items()}
    with jax.enable_x64(True):
        bank = losses.PseudoLabelBank(a["bank"], a["labels"], a["centroids"])
        bank = losses.pseudo_label_centroids(bank)
        np.testing.assert_allclose(bank.centroids, want["centroids"], rtol=1e-10)
        for is_nearest in (False, True):
            new = losses.pseudo_label_bank_update(
                bank, a["keys"], a["index"], momentum=entry["momentum"], is_nearest=is_nearest
            )
            np.testing.assert_allclose(new.embeddings, want["embeddings"], rtol=1e-10)
            assert np.array_equal(new.labels, want["labels"]) == (not is_nearest)


@pytest.mark.parametrize("name", ["rankme", "rankme rank three"])
def test_rankme(name):
    check(name, metrics.rankme)
