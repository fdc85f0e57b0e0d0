"""Declarations for the losses of a student and a slow teacher."""

import numpy as np

import papyrax
from contracts.case import Bad, Case

VIEWS, BATCH, TOKENS, WIDTH = 3, 2, 4, 5


def outputs(rng):
    student, teacher = (rng.normal(size=(n, BATCH, WIDTH)) for n in (VIEWS, VIEWS - 1))
    return {"student": student, "teacher": teacher}


def patches(rng):
    student, teacher = rng.normal(size=(2, BATCH, TOKENS, WIDTH))
    mask = np.arange(BATCH * TOKENS).reshape(BATCH, TOKENS) % 3 == 0
    return {"student": student, "teacher": teacher, "mask": mask}


def step(fn, student, teacher, **more):
    loss, _ = fn(papyrax.losses.dino_init(WIDTH), student, teacher, **more)
    return loss


def center(fn, student, teacher, **more):
    _, state = fn(papyrax.losses.dino_init(WIDTH), student, teacher, **more)
    return state.center


def embedded(rng):
    return {
        "anchors": rng.normal(size=(VIEWS, BATCH, WIDTH)),
        "targets": rng.normal(size=(BATCH, WIDTH)),
        "prototypes": rng.normal(size=(4, WIDTH)),
        "prior": np.array([0.4, 0.3, 0.2, 0.1]),
    }


def teaching(name, arrays, *bad):
    shape = (VIEWS, BATCH, WIDTH) if name == "dino_loss" else (BATCH, TOKENS, WIDTH)
    return Case(
        f"papyrax.losses.{name}",
        arrays,
        ("student",),
        call=step,
        rows=1 if name == "dino_loss" else 0,
        # Gentler than the teacher's temperature of 0.04, in bf16.
        static={"teacher_temperature": 0.5},
        bad=(
            Bad("student: got dtype", {"student": np.zeros(shape, np.int32)}),
            Bad("student: got shape", {"student": np.zeros(shape[1:])}),
            Bad("teacher: got shape", {"teacher": np.zeros((2, BATCH + 1, WIDTH))}),
            Bad("state.center", {n: np.zeros((*shape[:2], 3)) for n in ("student", "teacher")}),
            Bad("temperature", {"temperature": 0.0}),
            Bad("teacher_temperature", {"teacher_temperature": -1.0}),
            Bad("momentum", {"momentum": 2.0}),
            Bad("sinkhorn_iterations", {"sinkhorn_iterations": -1}),
            *bad,
        ),
    )


CASES = [
    Case(
        "papyrax.losses.dino_init",
        lambda rng: {},
        static={"prototypes": 5},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(Bad("prototypes", {"prototypes": 0}),),
    ),
    teaching(
        "dino_loss",
        outputs,
        Bad(
            "teacher: got no pair",
            {n: np.zeros((1, BATCH, WIDTH)) for n in ("student", "teacher")},
        ),
    ),
    teaching(
        "ibot_loss",
        patches,
        Bad("mask: got shape", {"mask": np.zeros((BATCH, 1), bool)}),
        Bad("mask: got dtype", {"mask": np.zeros((BATCH, TOKENS))}),
    ),
    Case(
        "papyrax.losses.ibot_loss",
        patches,
        call=center,
        label="center",
        static={"teacher_temperature": 0.5},
        differentiable=False,
        keeps_dtype=False,
    ),
    Case(
        "papyrax.losses.msn_loss",
        embedded,
        ("anchors", "prototypes"),
        static={"temperature": 0.5},
        rows=None,
        # The targets are constants for the gradient, not for the value.
        finite_differences=False,
        tolerance=4e-2,
        bad=(
            Bad("anchors: got dtype", {"anchors": np.zeros((VIEWS, BATCH, WIDTH), np.int32)}),
            Bad("anchors: got shape", {"anchors": np.zeros((BATCH, WIDTH))}),
            Bad("targets: got shape", {"targets": np.zeros((BATCH, WIDTH + 1))}),
            Bad("prototypes: got shape", {"prototypes": np.zeros((4, WIDTH + 1))}),
            Bad("prior: got shape", {"prior": np.ones(3)}),
            Bad("temperature", {"temperature": 0.0}),
            Bad("sharpening", {"sharpening": 0.0}),
            Bad("sinkhorn_iterations", {"sinkhorn_iterations": -1}),
            Bad("prior_weight", {"prior_weight": -1.0}),
        ),
    ),
]
