"""Declarations for the spherical family."""

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_LABELS, BAD_WHERE, logits_labels, masked


def family(name, *bad, **kwargs):
    return Case(
        f"papyrax.losses.{name}", logits_labels, ("logits",), bad=(*BAD_LABELS, *bad), **kwargs
    )


CASES = [
    family(
        "z_loss",
        Bad("sharpness: got", {"sharpness": 0.0}),
        Bad("eps: got", {"eps": 0.0}),
        static={"sharpness": 0.5, "threshold": 2.0},
    ),
    Case("papyrax.losses.z_loss", masked, ("logits",), label="masked", bad=BAD_WHERE),
    family("taylor_softmax_cross_entropy"),
    family("spherical_softmax_cross_entropy", Bad("eps: got", {"eps": -1.0})),
]
