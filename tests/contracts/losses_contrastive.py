"""Declarations for the losses over two views of a batch."""

import numpy as np

import papyrax
from contracts.case import Bad, Case
from contracts.losses_metric import BAD, labelled

BATCH, FEATURES = 5, 4


def two(first, second):
    def arrays(rng):
        x = rng.normal(size=(BATCH, FEATURES))
        return {first: x, second: x + 0.5 * rng.normal(size=(BATCH, FEATURES))}

    return arrays


def views(name, *bad, first="view1", second="view2", label="", static=None, wrt=None, **more):
    return Case(
        f"papyrax.losses.{name}",
        two(first, second),
        wrt or (first, second),
        static=static or {},
        label=label,
        bad=(
            Bad(f"{first}: got dtype", {first: np.zeros((BATCH, FEATURES), np.int32)}),
            Bad(f"{second}: got shape", {second: np.zeros((BATCH + 1, FEATURES))}),
            *bad,
        ),
        **more,
    )


T = (
    Bad("temperature", {"temperature": 0.0}),
    Bad("temperature", {"temperature": np.ones(BATCH + 2)}),
)
ENGINE = (Bad("ring", {"ring": True}), Bad("chunk_size", {"chunk_size": -1}))
PAIR = {"first": "first", "second": "second"}

CASES = [
    Case(
        "papyrax.losses.supervised_contrastive_loss",
        labelled,
        ("embeddings",),
        bad=(*BAD, Bad("temperature", {"temperature": -1.0})),
    ),
    views("nt_xent_loss", *T, *ENGINE),
    views("nt_xent_loss", label="chunked", static={"chunk_size": 4}),
    views(
        "model_aware_contrastive_loss",
        *T[:1],
        *ENGINE,
        Bad("alignment_weight", {"alignment_weight": 1.0}),
        Bad("initial_alignment", {"initial_alignment": -1.0}),
        static={"temperature": 0.5},
        # The temperature and the weights are constants for the gradient, not for the value.
        finite_differences=False,
        tolerance=4e-2,
    ),
    views(
        "decoupled_contrastive_loss",
        *T,
        *ENGINE,
        Bad("weight_scale", {"weight_scale": 0.0}),
        tolerance=3e-2,
    ),
    views(
        "symmetric_info_nce_loss",
        *T,
        *ENGINE,
        Bad("label_smoothing", {"label_smoothing": 2.0}),
        **PAIR,
    ),
    views("siglip_loss", *ENGINE, **PAIR),
    Case(
        "papyrax.losses.info_nce_loss",
        lambda rng: {
            **two("queries", "keys")(rng),
            "negatives": rng.normal(size=(BATCH, 3, FEATURES)),
        },
        ("queries", "keys", "negatives"),
        bad=(
            *T,
            Bad("negatives: got shape", {"negatives": np.zeros((BATCH, 3, FEATURES + 1))}),
            Bad("keys: got shape", {"keys": np.zeros((BATCH + 1, FEATURES))}),
        ),
    ),
    Case(
        "papyrax.losses.decoupled_softmax_loss",
        lambda rng: {
            **two("queries", "keys")(rng),
            "labels": np.array([0, 0, 1, 2, 3], np.int32),
            "key_labels": np.array([0, 0, 1, 1, 2], np.int32),
        },
        ("queries", "keys"),
        bad=(
            *T,
            Bad("keys: got shape", {"keys": np.zeros((BATCH, FEATURES + 1))}),
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
        ),
    ),
    views(
        "vicreg_loss",
        Bad("epsilon", {"epsilon": 0.0}),
        Bad("variance_weight", {"variance_weight": -1.0}),
    ),
    views("barlow_twins_loss", Bad("epsilon", {"epsilon": 0.0}), tolerance=4e-2),
    Case(
        "papyrax.losses.negative_cosine_loss",
        two("predictions", "targets"),
        ("predictions",),
        bad=(
            Bad("predictions: got dtype", {"predictions": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("targets: got shape", {"targets": np.zeros((BATCH, FEATURES + 1))}),
        ),
    ),
    Case(
        "papyrax.losses.sinkhorn_assignment",
        lambda rng: {"scores": rng.uniform(-1, 1, size=(BATCH, FEATURES))},
        ("scores",),
        static={"temperature": 0.3},
        bad=(
            Bad("scores: got shape", {"scores": np.zeros(3)}),
            Bad("where: got shape", {"where": np.ones(BATCH + 1, bool)}),
            Bad("where: got dtype", {"where": np.ones(BATCH)}),
            Bad("iterations", {"iterations": 0}),
            Bad("temperature", {"temperature": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.sinkhorn_assignment",
        lambda rng: {
            "scores": rng.uniform(-1, 1, size=(BATCH, FEATURES)),
            "where": np.arange(BATCH) % 3 > 0,
        },
        ("scores",),
        label="masked",
        static={"temperature": 0.3},
    ),
    views(
        "swav_loss",
        Bad("temperature", {"temperature": 0.0}),
        first="scores1",
        second="scores2",
        static={"temperature": 0.5, "assignment_temperature": 0.5},
        # The assignments are constants for the gradient, not for the value.
        finite_differences=False,
    ),
    Case(
        "papyrax.losses.swav_loss",
        lambda rng: {
            **two("scores1", "scores2")(rng),
            "crops": rng.normal(size=(2, BATCH, FEATURES)),
            "queues": rng.normal(size=(2, 3, FEATURES)),
        },
        ("scores1", "scores2", "crops"),
        static={"temperature": 0.5, "assignment_temperature": 0.5},
        label="crops",
        rows=None,
        finite_differences=False,
        bad=(
            Bad("crops: got shape", {"crops": np.zeros((2, BATCH + 1, FEATURES))}),
            Bad("queues: got shape", {"queues": np.zeros((3, 3, FEATURES))}),
        ),
    ),
]


def anchors(rng):
    return {
        "differences": rng.uniform(-2, 0, (BATCH, 4)),
        "temperature": rng.uniform(0.2, 1, BATCH),
    }


def step(fn, view1, view2, index, **static):
    state = papyrax.losses.isogclr_init(9, temperature=0.3)
    loss, _ = fn(state, view1, view2, index, **static)
    return loss


def halves(fn, first, second, index, second_index, **static):
    states = (papyrax.losses.isogclr_init(9, temperature=0.3),) * 2
    loss, _ = fn(states, first, second, index, second_index, **static)
    return loss


CASES += [
    views(
        "hard_contrastive_loss", Bad("hard_share", {"hard_share": 0.0}), static={"hard_share": 0.5}
    ),
    views("simple_contrastive_loss", Bad("negative_weight", {"negative_weight": -1.0})),
    views("relative_penalty", Bad("temperature", {"temperature": 0.0})),
    Case(
        "papyrax.losses.robust_global_contrastive_loss",
        anchors,
        ("differences", "temperature"),
        bad=(
            Bad("differences: got shape", {"differences": np.zeros(BATCH)}),
            Bad("temperature: got shape", {"temperature": np.ones(BATCH + 1)}),
            Bad("rho", {"rho": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.isogclr_init",
        lambda rng: {},
        static={"examples": 5},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(Bad("examples", {"examples": 0}), Bad("temperature", {"temperature": 0.0})),
    ),
    Case(
        "papyrax.losses.isogclr_loss",
        lambda rng: {
            **two("view1", "view2")(rng),
            "index": np.array([0, 2, 8, 3, 1], np.int32),
        },
        ("view1", "view2"),
        call=step,
        # Its value is not what its gradient is the gradient of.
        finite_differences=False,
        bad=(
            Bad("index", {"index": np.zeros(3, np.int32)}),
            Bad("rho", {"rho": -1.0}),
            Bad("averaging", {"averaging": 0.0}),
            Bad("temperature_range", {"temperature_range": (0.5, 0.1)}),
        ),
    ),
    Case(
        "papyrax.losses.isogclr_two_tower_loss",
        lambda rng: {
            **two("first", "second")(rng),
            "index": np.array([0, 2, 8, 3, 1], np.int32),
            "second_index": np.array([4, 5, 0, 6, 7], np.int32),
        },
        ("first", "second"),
        call=halves,
        static={"temperature_range": (0.05, 0.7)},
        finite_differences=False,
        bad=(
            Bad("first: got dtype", {"first": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((BATCH + 1, FEATURES))}),
            Bad("index", {"index": np.zeros(3, np.int32)}),
            Bad("second_index", {"second_index": np.zeros(BATCH)}),
            Bad("momentum", {"momentum": 0.0}),
            Bad("learning_rate", {"learning_rate": 0.0}),
        ),
    ),
]
