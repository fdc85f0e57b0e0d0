"""Loss functions, one value per example, by what they learn from.

What is wrong is to be seen: a NaN among the scores makes a loss NaN, and so does a label that is
none of the classes, -1 included (losses over a linear layer say what they take it for). What
`where` masks out counts for nothing: it may hold any label, such as the -100 of padding, and any
score.

Beside the names of `__all__` the room hands on what optax has (`FROM_OPTAX` lists it), such as
`papyrax.losses.softmax_cross_entropy_with_integer_labels`; optax is imported when one is used.
"""

from typing import Any

from ._from_optax import FROM_OPTAX, lookup
from .adaptive_margin import (
    madacos,
    madacos_parameters,
)
from .aggregate import (
    bag_level_loss,
    instance_level_loss,
    interpolated_bag_loss,
    private_bag_responses,
)
from .angles import (
    angular_loss,
    intra_pair_variance_loss,
    tuplet_margin_loss,
)
from .boundaries import (
    margin_loss,
    ranked_list_loss,
)
from .calibration import (
    correctness_aware_loss,
    mixup_ndcg_loss,
    mixup_ranking_loss,
)
from .calibrators import (
    TransformTemperature,
    VectorScaling,
    fit_temperature,
    fit_vector_scaling,
    transform_features,
    transform_temperature,
    transform_temperature_init,
)
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
from .confusion import (
    energy_confusion_loss,
)
from .contrastive import (
    decoupled_contrastive_loss,
    info_nce_loss,
    model_aware_contrastive_loss,
    nt_xent_loss,
    supervised_contrastive_loss,
)
from .diffusion_preference import (
    mapo_loss,
)
from .distillation import (
    PsKdState,
    SoftLabels,
    class_means,
    ferkd_labels,
    knowledge_distillation_loss,
    norm_direction_loss,
    ps_kd,
    ps_kd_init,
    ps_kd_weight,
)
from .domains import (
    hgp_penalty,
    hutchinson_penalty,
)
from .dual_head import (
    align_gradients,
    binary_kl_loss,
    binary_kl_norm_loss,
)
from .dynamic_margin import (
    DynamicMargin,
    dynamic_soft_margin_init,
    dynamic_soft_margin_loss,
)
from .early_learning import (
    LearningCurve,
    correct_labels,
    fit_learning_curve,
    learning_slowdown,
    multiscale_consistency_loss,
)
from .episodes import (
    icnn_loss,
    prototype_triplet_loss,
)
from .equiangular import (
    EquiangularBasis,
    equiangular_basis_loss,
    equiangular_basis_vectors,
    simplex_etf,
)
from .factored_layer import (
    FactoredLayer,
    factored_layer_condition,
    factored_layer_init,
    factored_layer_kernel,
    factored_layer_refresh,
    factored_spherical_step,
)
from .hard_negatives import (
    hard_negative_sigmoid_loss,
    hard_negative_triplet_loss,
)
from .hardness import (
    hard_contrastive_loss,
    relative_penalty,
    simple_contrastive_loss,
)
from .histograms import (
    fast_ap_loss,
    histogram_loss,
)
from .hyperbolic import (
    gaussian_pseudo_negatives,
    gyroplane_logits,
    hyperbolic_confusion_loss,
    hyperbolic_cross_entropy_loss,
    to_poincare,
)
from .imbalance import (
    conr_loss,
)
from .interpolation import (
    interpolated_contrastive_loss,
    interpolated_multi_similarity_loss,
    mix_features,
    mixed_pair_targets,
)
from .label_dro import (
    AldrKlState,
    aldr_kl,
    aldr_kl_init,
    ldr_kl,
)
from .landmarks import (
    landmark_distillation_loss,
)
from .latent_preference import (
    grace_loss,
    layerwise_pool,
    relaxed_preference_loss,
)
from .linear_label_dro import (
    linear_aldr_kl,
    linear_ldr_kl,
)
from .linear_softmax import (
    linear_softmax_cross_entropy,
)
from .linear_spherical import (
    linear_spherical_loss,
)
from .local_triplets import (
    attended_matches,
    local_triplet_loss,
)
from .loss_ensemble import (
    ensloss,
)
from .margins import (
    adacos_scale,
    arcface_loss,
    box_whisker_mask,
    cosface_loss,
    margin_cosines,
    unified_negative_pair_loss,
)
from .memory import (
    KeyQueue,
    key_queue_init,
    key_queue_nearest,
    key_queue_push,
    negative_interpolation,
    positive_extrapolation,
    score_info_nce_loss,
)
from .metric import (
    contrastive_loss,
    lifted_structure_loss,
    n_pair_loss,
    nca_loss,
)
from .mining import (
    distance_weighted_pairs,
    easy_hard_pairs,
    hard_pairs,
    histogram_pairs,
    margin_pairs,
)
from .multi_head import (
    bounded_temperature,
    multi_head_contrastive_loss,
)
from .multiplied_angles import (
    sphereface_loss,
)
from .noisy_labels import (
    ElrState,
    elr_init,
    elr_loss,
    elr_regularizer,
    nested_dropout,
    select_nested_width,
    small_loss_mask,
)
from .pair_weighting import (
    circle_loss,
    multi_similarity_loss,
    threshold_consistent_margin_loss,
)
from .pairs import (
    PairMasks,
    pair_masks,
)
from .penalties import (
    center_invariant_penalty,
    mini_batch_aware_l2,
    regular_face_penalty,
    slow_feedback_loss,
)
from .preference import (
    PreferencePairs,
    best_worst_pairs,
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    sequence_log_probability,
    simpo_loss,
)
from .proxies import (
    normalized_softmax_loss,
    p2s_grad_loss,
    proxy_anchor_loss,
    proxy_nca_loss,
)
from .pseudo_labels import (
    PseudoLabelBank,
    pseudo_label_bank_init,
    pseudo_label_bank_update,
    pseudo_label_centroids,
    pseudo_label_samples,
)
from .rankers import (
    adversarial_retriever_loss,
)
from .regions import (
    Matches,
    correspondence_loss,
    detcon_loss,
    foreground_background_loss,
    mutual_matches,
    reliable_matches,
    spatial_alignment_loss,
)
from .regression import (
    conditional_cs_divergence,
    cs_divergence,
    cs_information_bottleneck_loss,
    cs_mutual_information,
)
from .relations import (
    consistent_contrast_loss,
    relational_loss,
)
from .representation_calibration import (
    ClassGaussians,
    calibrate_gaussians,
    class_gaussians,
    individual_calibration_regularizer,
    local_outlier_factor,
    sample_gaussians,
)
from .robust_contrastive import (
    IsogclrState,
    isogclr_init,
    isogclr_loss,
    isogclr_two_tower_loss,
    robust_global_contrastive_loss,
)
from .self_distillation import (
    DinoState,
    dino_init,
    dino_loss,
    ibot_loss,
    msn_loss,
)
from .similarity import (
    pairwise_cosine,
    pairwise_dot,
    pairwise_euclidean,
    pairwise_lorentz,
    pairwise_poincare,
    pairwise_snr,
    pairwise_squared_euclidean,
)
from .smooth_ranks import (
    pnp_loss,
    smooth_ap_loss,
)
from .soft_pairs import (
    soft_contrastive_loss,
)
from .spectra import (
    coding_rate_loss,
    frossl_loss,
    mmcr_loss,
    wmse_loss,
)
from .spherical import (
    spherical_softmax_cross_entropy,
    spherical_softmax_of_moments,
    squared_error_of_moments,
    taylor_softmax_cross_entropy,
    taylor_softmax_of_moments,
    z_loss,
    z_loss_of_moments,
)
from .spread import (
    TicoState,
    alignment_uniformity_loss,
    koleo_loss,
    sigreg_loss,
    tico_init,
    tico_loss,
)
from .standard import (
    brier_loss,
    focal_loss,
    general_robust_loss,
    label_smoothing_cross_entropy,
    ldam_loss,
    logit_adjusted_cross_entropy,
    mae_loss,
    pinball_loss,
    symmetric_cross_entropy,
)
from .sub_centers import (
    center_merging_penalty,
    soft_triple_loss,
    sub_center_arcface_loss,
)
from .triplets import (
    triplet_loss,
)
from .two_towers import (
    cross_modal_alignment_loss,
    decoupled_softmax_loss,
    siglip_loss,
    symmetric_info_nce_loss,
)
from .views import (
    barlow_twins_loss,
    negative_cosine_loss,
    sinkhorn_assignment,
    swav_loss,
    vicreg_loss,
)

__all__ = [
    "AldrKlState",
    "ClassGaussians",
    "DinoState",
    "DynamicMargin",
    "ElrState",
    "EquiangularBasis",
    "FactoredLayer",
    "IsogclrState",
    "KeyQueue",
    "LearningCurve",
    "Matches",
    "PairMasks",
    "PreferencePairs",
    "PsKdState",
    "PseudoLabelBank",
    "SoftLabels",
    "TicoState",
    "TransformTemperature",
    "VectorScaling",
    "adacos_scale",
    "adversarial_retriever_loss",
    "aldr_kl",
    "aldr_kl_init",
    "align_gradients",
    "alignment_uniformity_loss",
    "angular_loss",
    "arcface_loss",
    "attended_matches",
    "bag_level_loss",
    "barlow_twins_loss",
    "best_worst_pairs",
    "binary_kl_loss",
    "binary_kl_norm_loss",
    "bounded_temperature",
    "box_whisker_mask",
    "brier_loss",
    "calibrate_gaussians",
    "center_invariant_penalty",
    "center_merging_penalty",
    "circle_loss",
    "class_gaussians",
    "class_means",
    "coding_rate_loss",
    "comp_sum_loss",
    "comp_sum_regret_bound",
    "conditional_cs_divergence",
    "conr_loss",
    "consistent_contrast_loss",
    "contrastive_loss",
    "correct_labels",
    "correctness_aware_loss",
    "correspondence_loss",
    "cosface_loss",
    "cross_modal_alignment_loss",
    "cs_divergence",
    "cs_information_bottleneck_loss",
    "cs_mutual_information",
    "decoupled_contrastive_loss",
    "decoupled_softmax_loss",
    "detcon_loss",
    "dino_init",
    "dino_loss",
    "distance_weighted_pairs",
    "dpo_loss",
    "dynamic_soft_margin_init",
    "dynamic_soft_margin_loss",
    "easy_hard_pairs",
    "elr_init",
    "elr_loss",
    "elr_regularizer",
    "energy_confusion_loss",
    "ensloss",
    "equiangular_basis_loss",
    "equiangular_basis_vectors",
    "factored_layer_condition",
    "factored_layer_init",
    "factored_layer_kernel",
    "factored_layer_refresh",
    "factored_spherical_step",
    "fast_ap_loss",
    "ferkd_labels",
    "fit_learning_curve",
    "fit_temperature",
    "fit_vector_scaling",
    "focal_loss",
    "foreground_background_loss",
    "frossl_loss",
    "gaussian_pseudo_negatives",
    "general_robust_loss",
    "generalized_cross_entropy",
    "grace_loss",
    "gyroplane_logits",
    "hard_contrastive_loss",
    "hard_negative_sigmoid_loss",
    "hard_negative_triplet_loss",
    "hard_pairs",
    "hgp_penalty",
    "histogram_loss",
    "histogram_pairs",
    "hutchinson_penalty",
    "hyperbolic_confusion_loss",
    "hyperbolic_cross_entropy_loss",
    "ibot_loss",
    "icnn_loss",
    "individual_calibration_regularizer",
    "info_nce_loss",
    "instance_level_loss",
    "interpolated_bag_loss",
    "interpolated_contrastive_loss",
    "interpolated_multi_similarity_loss",
    "intra_pair_variance_loss",
    "ipo_loss",
    "isogclr_init",
    "isogclr_loss",
    "isogclr_two_tower_loss",
    "key_queue_init",
    "key_queue_nearest",
    "key_queue_push",
    "knowledge_distillation_loss",
    "koleo_loss",
    "kto_loss",
    "label_smoothing_cross_entropy",
    "landmark_distillation_loss",
    "layerwise_pool",
    "ldam_loss",
    "ldr_kl",
    "learning_slowdown",
    "lifted_structure_loss",
    "linear_aldr_kl",
    "linear_ldr_kl",
    "linear_softmax_cross_entropy",
    "linear_spherical_loss",
    "local_outlier_factor",
    "local_triplet_loss",
    "log_stablemax",
    "logit_adjusted_cross_entropy",
    "madacos",
    "madacos_parameters",
    "mae_loss",
    "mapo_loss",
    "margin_cosines",
    "margin_loss",
    "margin_pairs",
    "mini_batch_aware_l2",
    "mix_features",
    "mixed_pair_targets",
    "mixup_ndcg_loss",
    "mixup_ranking_loss",
    "mmcr_loss",
    "model_aware_contrastive_loss",
    "msn_loss",
    "multi_head_contrastive_loss",
    "multi_similarity_loss",
    "multiscale_consistency_loss",
    "mutual_matches",
    "n_pair_loss",
    "nca_loss",
    "negative_cosine_loss",
    "negative_interpolation",
    "nested_dropout",
    "norm_direction_loss",
    "normalized_softmax_loss",
    "nt_xent_loss",
    "orpo_loss",
    "p2s_grad_loss",
    "pair_masks",
    "pairwise_cosine",
    "pairwise_dot",
    "pairwise_euclidean",
    "pairwise_lorentz",
    "pairwise_poincare",
    "pairwise_snr",
    "pairwise_squared_euclidean",
    "pinball_loss",
    "pnp_loss",
    "positive_extrapolation",
    "private_bag_responses",
    "prototype_triplet_loss",
    "proxy_anchor_loss",
    "proxy_nca_loss",
    "ps_kd",
    "ps_kd_init",
    "ps_kd_weight",
    "pseudo_label_bank_init",
    "pseudo_label_bank_update",
    "pseudo_label_centroids",
    "pseudo_label_samples",
    "ranked_list_loss",
    "regular_face_penalty",
    "relational_loss",
    "relative_penalty",
    "relaxed_preference_loss",
    "reliable_matches",
    "robust_global_contrastive_loss",
    "sample_gaussians",
    "score_info_nce_loss",
    "select_nested_width",
    "sequence_log_probability",
    "siglip_loss",
    "sigreg_loss",
    "simple_contrastive_loss",
    "simplex_etf",
    "simpo_loss",
    "sinkhorn_assignment",
    "slow_feedback_loss",
    "small_loss_mask",
    "smooth_adversarial_comp_sum_loss",
    "smooth_ap_loss",
    "soft_contrastive_loss",
    "soft_triple_loss",
    "spatial_alignment_loss",
    "sphereface_loss",
    "spherical_softmax_cross_entropy",
    "spherical_softmax_of_moments",
    "squared_error_of_moments",
    "stablemax",
    "stablemax_cross_entropy",
    "stablemax_cross_entropy_with_targets",
    "sub_center_arcface_loss",
    "supervised_contrastive_loss",
    "swav_loss",
    "symmetric_cross_entropy",
    "symmetric_info_nce_loss",
    "taylor_softmax_cross_entropy",
    "taylor_softmax_of_moments",
    "threshold_consistent_margin_loss",
    "tico_init",
    "tico_loss",
    "to_poincare",
    "transform_features",
    "transform_temperature",
    "transform_temperature_init",
    "triplet_loss",
    "tuplet_margin_loss",
    "unified_negative_pair_loss",
    "vicreg_loss",
    "wmse_loss",
    "z_loss",
    "z_loss_of_moments",
]


def __getattr__(name: str) -> Any:
    return lookup(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *FROM_OPTAX})
