"""Declarations for the memory of pseudo-labels."""

import jax
import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import PseudoLabelBank

EXAMPLES, FEATURES = 6, 3
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)
CENTROIDS = np.eye(3)


def spread(rng):
    # Far enough apart for half precision to order alike.
    x = np.repeat(np.eye(3), 2, 0)
    x[1::2] += 0.3 * np.roll(np.eye(3), 1, 1)
    return x


def bank_of(embeddings):
    return PseudoLabelBank(embeddings, LABELS, CENTROIDS.astype(embeddings.dtype))


def update(fn, memory, keys, index, **kwargs):
    return fn(bank_of(memory), keys, index, **kwargs)


def centroids(fn, memory, labels):
    return fn(bank_of(memory)._replace(labels=labels))


def samples(fn, memory, queries, index, key=None, **kwargs):
    key = jax.random.key(0) if key is None else key
    positive, negative = fn(key, bank_of(memory), queries, index, **kwargs)
    return positive, negative


def batch(name):
    return lambda rng: {
        "memory": spread(rng),
        name: spread(rng)[::2],
        "index": np.array([1, 4, 2], np.int32),
    }


PLAIN = {"rows": None, "differentiable": False, "keeps_dtype": False}

CASES = [
    Case(
        "papyrax.losses.pseudo_label_bank_init",
        lambda rng: {"embeddings": spread(rng), "labels": LABELS},
        static={"clusters": 4},
        bad=(
            Bad("embeddings: got shape", {"embeddings": np.zeros(3)}),
            Bad("labels: got dtype", {"labels": np.zeros(EXAMPLES)}),
            Bad("labels: got shape", {"labels": np.zeros(2, np.int32)}),
            Bad("clusters", {"clusters": 0}),
        ),
        **PLAIN,
    ),
    Case(
        "papyrax.losses.pseudo_label_centroids",
        lambda rng: {"memory": spread(rng), "labels": LABELS},
        call=centroids,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(EXAMPLES)}),
            Bad("labels: got shape", {"labels": np.zeros(2, np.int32)}),
        ),
        **PLAIN,
    ),
    Case(
        "papyrax.losses.pseudo_label_bank_update",
        batch("keys"),
        call=update,
        static={"momentum": 0.75},
        bad=(
            Bad("keys: got dtype", {"keys": np.zeros((3, FEATURES), np.int32)}),
            Bad("keys: got shape", {"keys": np.zeros((3, FEATURES + 1))}),
            Bad("index: got shape", {"index": np.zeros(2, np.int32)}),
            Bad("momentum", {"momentum": 2.0}),
        ),
        **PLAIN,
    ),
    Case(
        "papyrax.losses.pseudo_label_samples",
        batch("queries"),
        call=samples,
        static={"negatives": 4, "pool": 3},
        bad=(
            Bad("key: got dtype", {"key": np.zeros(2)}),
            Bad("queries: got shape", {"queries": np.zeros((3, FEATURES + 1))}),
            Bad("index: got dtype", {"index": np.zeros(3)}),
            Bad("negatives", {"negatives": 0}),
            Bad("pool: got 7", {"pool": EXAMPLES + 1}),
        ),
        **PLAIN,
    ),
]
