"""Declarations for representation calibration."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import ClassGaussians

KEY = np.array([0, 1], np.uint32)


def rows(rng):
    return {"features": rng.normal(size=(6, 3)), "labels": np.array([0, 1, 0, 1, 1, 0])}


def statistics(rng):
    root = rng.normal(size=(4, 3, 3))
    return {
        "counts": rng.uniform(2, 9, 4),
        "means": rng.normal(size=(4, 3)),
        "covariances": root @ root.transpose(0, 2, 1),
    }


def calibrate(fn, counts, means, covariances, head=(True, True, False, False), **options):
    head = jnp.asarray(head)
    return fn(ClassGaussians(counts, means, covariances), head, neighbours=2, **options)


def sample(fn, counts, means, covariances, labels=None):
    labels = jnp.array([0, 3, 3]) if labels is None else labels
    return fn(jnp.asarray(KEY), ClassGaussians(counts, means, covariances), labels)


def individual(rng):
    return {"features": rng.normal(size=(4, 5)), "anchors": rng.normal(size=(4, 5))}


COVARIANCES = Bad("gaussians: got", {"covariances": np.ones((4, 3, 2))})
BAD_ROWS = (
    Bad("features: got dtype", {"features": np.zeros((6, 3), np.int32)}),
    Bad("labels: got dtype", {"labels": np.zeros(6)}),
    Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
)

CASES = [
    Case(
        "papyrax.losses.local_outlier_factor",
        arrays=rows,
        wrt=("features",),
        static={"neighbours": 2},
        differentiable=False,  # a statistic
        tolerance=5e-2,
        bad=(*BAD_ROWS, Bad("neighbours: got", {"neighbours": 0})),
    ),
    Case(
        "papyrax.losses.class_gaussians",
        arrays=rows,
        wrt=("features",),
        static={"classes": 2},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            *BAD_ROWS,
            Bad("classes: got", {"classes": 0}),
            Bad("where", {"where": np.ones(6, np.int32)}),
            Bad("where: got", {"where": np.ones(5, bool)}),
        ),
    ),
    Case(
        "papyrax.losses.calibrate_gaussians",
        arrays=statistics,
        wrt=("means",),
        call=calibrate,
        rows=None,
        differentiable=False,  # the choice of neighbours jumps
        keeps_dtype=False,
        tolerance=5e-2,
        bad=(
            COVARIANCES,
            Bad("head", {"head": np.ones(4, np.int32)}),
            Bad("head: got", {"head": np.ones(3, bool)}),
            Bad("strength: got", {"strength": 2.0}),
            Bad("dispersion: got", {"dispersion": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.sample_gaussians",
        arrays=statistics,
        wrt=("means",),
        call=sample,
        rows=None,
        differentiable=False,  # eigenvalues that meet have no derivative
        tolerance=5e-2,
        bad=(COVARIANCES, Bad("labels: got", {"labels": np.zeros(2)})),
    ),
    Case(
        "papyrax.losses.individual_calibration_regularizer",
        arrays=individual,
        wrt=("features",),
        bad=(
            Bad("features: got dtype", {"features": np.ones((4, 5), np.int32)}),
            Bad("anchors: got", {"anchors": np.ones((4, 4))}),
            Bad("weight: got", {"weight": -1.0}),
        ),
    ),
]
