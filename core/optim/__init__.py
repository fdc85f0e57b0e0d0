"""Optax transformations: `scale_by_x`, the rule alone, beside `x`, ready to use."""

from .adahessian import AdahessianState, adahessian, scale_by_adahessian
from .bilevel import BoRep, BoRepState, adjoint_hypergradient, bo_rep, hypergradient
from .block_constrained import (
    active_set,
    proximal_block_step,
    select_proximal_block,
    two_metric_step,
)
from .block_coordinate import block_step, select_block, select_block_quadratic
from .block_partition import (
    cyclic_block,
    partition_coordinates,
    sample_from_partition,
    select_from_partition,
)
from .clipping import RadiusState, coordinate_clip, diminishing_radius
from .curvature import CurvaturePlan, curvature_plan, wants_curvature
from .federated import (
    FederatedOptimizer,
    FederatedState,
    fedavg,
    fedprox,
    fedsam,
    fedspeed,
)
from .fused import FusedOptimizer, fused_adahessian
from .gns_newton import (
    GnsNewtonState,
    LocalOracle,
    gns_newton,
    local_oracle,
    scale_by_gns_newton,
)
from .group_envelope import (
    GroupEnvelopeState,
    group_envelope,
    group_envelope_prox,
    proximal_group_envelope,
)
from .kar import KarState, kar, scale_by_kar
from .layerwise import layerwise_scales, layerwise_sparsity
from .low_rank import low_rank_factors, low_rank_projection, lpgd
from .m_fac import MFacState, m_fac, scale_by_m_fac
from .matrix_recovery import (
    SubgmState,
    recovery_subgradient,
    subdifferential_init,
    subgm,
)
from .message_passing import forest_block, gaussian_belief_propagation, is_forest
from .online import (
    MirrorMap,
    OptimisticOmdState,
    entropic_mirror,
    euclidean_mirror,
    optimistic_omd,
    optimistic_omd_strongly_convex,
)
from .online_dynamic import DynamicOmdState, optimistic_omd_dynamic
from .online_newton import OptimisticNewtonState, optimistic_online_newton
from .perpgrad import perpgrad, scale_by_perpgrad
from .riemannian import GrassmannState, grassmann_sgd
from .saf import SafState, mesa_loss, saf_init, saf_loss, trajectory_loss
from .schedules import cosine_power_annealing
from .self_tuning import (
    SelfTuning,
    SelfTuningState,
    constrain_hyperparameters,
    perturb_hyperparameters,
    perturbation_entropy,
    self_tuning,
)
from .sharpness import sam, scale_by_sam
from .soft_shrinkage import iterative_soft_shrinkage, magnitude_masks
from .sophia import SophiaState, scale_by_sophia, sophia_g, sophia_h
from .tram import scale_by_tram, tram, tram_distance
from .udim import udim_inconsistency, udim_perturb

__all__ = [
    "AdahessianState",
    "BoRep",
    "BoRepState",
    "CurvaturePlan",
    "DynamicOmdState",
    "FederatedOptimizer",
    "FederatedState",
    "FusedOptimizer",
    "GnsNewtonState",
    "GrassmannState",
    "GroupEnvelopeState",
    "KarState",
    "LocalOracle",
    "MFacState",
    "MirrorMap",
    "OptimisticNewtonState",
    "OptimisticOmdState",
    "RadiusState",
    "SafState",
    "SelfTuning",
    "SelfTuningState",
    "SophiaState",
    "SubgmState",
    "active_set",
    "adahessian",
    "adjoint_hypergradient",
    "block_step",
    "bo_rep",
    "constrain_hyperparameters",
    "coordinate_clip",
    "cosine_power_annealing",
    "curvature_plan",
    "cyclic_block",
    "diminishing_radius",
    "entropic_mirror",
    "euclidean_mirror",
    "fedavg",
    "fedprox",
    "fedsam",
    "fedspeed",
    "forest_block",
    "fused_adahessian",
    "gaussian_belief_propagation",
    "gns_newton",
    "grassmann_sgd",
    "group_envelope",
    "group_envelope_prox",
    "hypergradient",
    "is_forest",
    "iterative_soft_shrinkage",
    "kar",
    "layerwise_scales",
    "layerwise_sparsity",
    "local_oracle",
    "low_rank_factors",
    "low_rank_projection",
    "lpgd",
    "m_fac",
    "magnitude_masks",
    "mesa_loss",
    "optimistic_omd",
    "optimistic_omd_dynamic",
    "optimistic_omd_strongly_convex",
    "optimistic_online_newton",
    "partition_coordinates",
    "perpgrad",
    "perturb_hyperparameters",
    "perturbation_entropy",
    "proximal_block_step",
    "proximal_group_envelope",
    "recovery_subgradient",
    "saf_init",
    "saf_loss",
    "sam",
    "sample_from_partition",
    "scale_by_adahessian",
    "scale_by_gns_newton",
    "scale_by_kar",
    "scale_by_m_fac",
    "scale_by_perpgrad",
    "scale_by_sam",
    "scale_by_sophia",
    "scale_by_tram",
    "select_block",
    "select_block_quadratic",
    "select_from_partition",
    "select_proximal_block",
    "self_tuning",
    "sophia_g",
    "sophia_h",
    "subdifferential_init",
    "subgm",
    "trajectory_loss",
    "tram",
    "tram_distance",
    "two_metric_step",
    "udim_inconsistency",
    "udim_perturb",
    "wants_curvature",
]
