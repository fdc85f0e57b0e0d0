"""Declarations for naive Bayes."""

import numpy as np

from contracts.case import Bad, Case
from papyrax.metrics import NaiveBayes, naive_bayes_head, naive_bayes_init, naive_bayes_update


def batch(rng):
    return {"features": rng.normal(size=(6, 3)), "labels": np.array([0, 1, 0, 1, 1, 0])}


def update(fn, features, labels):
    return fn(naive_bayes_init(3, 2, dtype=np.float32), features, labels)


def head(fn, features, labels, counts=None):
    state = naive_bayes_update(naive_bayes_init(3, 2), features, labels)
    state = state if counts is None else state._replace(counts=counts)
    return fn(state)


def init(fn, x, features=3, classes=2):
    state = fn(features, classes)
    return naive_bayes_head(NaiveBayes(*(x.sum() + leaf for leaf in state)))


CASES = [
    Case(
        "papyrax.metrics.naive_bayes_init",
        arrays=lambda rng: {"x": rng.normal(size=4)},
        call=init,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("features: got", {"features": 0}), Bad("classes: got", {"classes": 0})),
    ),
    Case(
        "papyrax.metrics.naive_bayes_update",
        arrays=batch,
        wrt=("features",),
        call=update,
        differentiable=False,  # statistics are constants
        keeps_dtype=False,
        bad=(
            Bad("features: got shape", {"features": np.zeros((6, 2))}),
            Bad("features: got dtype", {"features": np.zeros((6, 3), np.int32)}),
            Bad("labels: got dtype", {"labels": np.zeros(6)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
        ),
    ),
    Case(
        "papyrax.metrics.naive_bayes_head",
        arrays=batch,
        wrt=("features",),
        call=head,
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("state: got", {"counts": np.zeros(3)}),),
    ),
]
