"""Loss functions, one value per example, by what they learn from."""

from .classification import (
    log_stablemax,
    stablemax,
    stablemax_cross_entropy,
    stablemax_cross_entropy_with_targets,
)
from .comp_sum import (
    comp_sum_loss,
    comp_sum_regret_bound,
    generalized_cross_entropy,
    smooth_adversarial_comp_sum_loss,
)
from .label_dro import (
    AldrKlState,
    aldr_kl,
    aldr_kl_init,
    ldr_kl,
)
from .spherical import (
    spherical_softmax_cross_entropy,
    taylor_softmax_cross_entropy,
    z_loss,
)

__all__ = [
    "AldrKlState",
    "aldr_kl",
    "aldr_kl_init",
    "comp_sum_loss",
    "comp_sum_regret_bound",
    "generalized_cross_entropy",
    "ldr_kl",
    "log_stablemax",
    "smooth_adversarial_comp_sum_loss",
    "spherical_softmax_cross_entropy",
    "stablemax",
    "stablemax_cross_entropy",
    "stablemax_cross_entropy_with_targets",
    "taylor_softmax_cross_entropy",
    "z_loss",
]
