"""Declarations for the comp-sum losses."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_LABELS, BAD_WHERE, logits_labels, masked


def attacked(rng):
    arrays = logits_labels(rng)
    moved = arrays["logits"] + rng.normal(size=arrays["logits"].shape)
    return {**arrays, "adversarial_logits": moved}


CASES = [
    *(
        Case(
            "papyrax.losses.comp_sum_loss",
            logits_labels,
            ("logits",),
            static={"order": order},
            label=f"order {order}",
            bad=BAD_LABELS if order == 1.0 else (),
        )
        for order in (0.0, 1.0, 1.5)
    ),
    Case(
        "papyrax.losses.comp_sum_loss",
        masked,
        ("logits",),
        label="masked",
        bad=(*BAD_WHERE, Bad("order: got", {"order": -0.1})),
    ),
    Case(
        "papyrax.losses.generalized_cross_entropy",
        logits_labels,
        ("logits",),
        bad=(
            *BAD_LABELS,
            Bad("exponent: got", {"exponent": 1.1}),
            Bad("exponent: got", {"exponent": -0.1}),
        ),
    ),
    Case(
        "papyrax.losses.smooth_adversarial_comp_sum_loss",
        attacked,
        ("logits", "adversarial_logits"),
        bad=(
            *BAD_LABELS,
            Bad("adversarial_logits: got shape", {"adversarial_logits": np.zeros((4, 6))}),
            Bad("adversarial_logits: got dtype", {"adversarial_logits": np.zeros((4, 5), int)}),
            Bad("order: got", {"order": -1.0}),
            Bad("margin: got", {"margin": 0.0}),
            Bad("smoothness: got", {"smoothness": -1.0}),
        ),
    ),
    *(
        Case(
            "papyrax.losses.comp_sum_regret_bound",
            lambda rng: {"regret": rng.uniform(0.1, 1, (3,))},
            ("regret",),
            static={"order": order, "classes": 4},
            label=f"order {order}",
            bad=(
                Bad("regret: got dtype", {"regret": np.zeros(3, int)}),
                Bad("order: got", {"order": -1.0}),
                Bad("classes: got", {"classes": 1}),
            ),
        )
        for order in (0.5, 2.5)
    ),
]
