"""Evaluation measures; nothing here is trained on."""

from .calibration import (
    Reliability,
    adaptive_calibration_error,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_bins,
    top_k_accuracy,
)
from .cluster_geometry import (
    avqi,
    davies_bouldin,
    dunn_index,
)
from .clustering import (
    adjusted_mutual_information,
    adjusted_rand_index,
    clustering_accuracy,
    normalized_mutual_information,
)
from .collapse import nlm_alignment, softmax_collapse
from .factuality import (
    green_score,
)
from .naive_bayes import (
    NaiveBayes,
    naive_bayes_head,
    naive_bayes_init,
    naive_bayes_update,
)
from .neural_collapse import (
    frame_distance,
    nearest_centre_agreement,
    self_duality_distance,
    within_class_variability,
)
from .out_of_distribution import (
    maximum_concept_matching_score,
    neglabel_score,
)
from .ranking import (
    hit_at_k,
    label_propensities,
    map_at_r,
    ndcg_at_k,
    precision_at_k,
    propensity_scored_precision_at_k,
    r_precision,
    recall_at_k,
)
from .representation import (
    alignment,
    rankme,
    tolerance,
    uniformity,
    utilization,
)
from .retrieval import (
    RetrievalScores,
    retrieval_scores,
    threshold_inconsistency,
)
from .roc import grouped_roc_auc, relative_improvement, roc_auc
from .verification import (
    VerificationErrors,
    equal_error_rate,
    verification_errors,
)

__all__ = [
    "NaiveBayes",
    "Reliability",
    "RetrievalScores",
    "VerificationErrors",
    "adaptive_calibration_error",
    "adjusted_mutual_information",
    "adjusted_rand_index",
    "alignment",
    "avqi",
    "brier_score",
    "classwise_calibration_error",
    "clustering_accuracy",
    "davies_bouldin",
    "dunn_index",
    "equal_error_rate",
    "expected_calibration_error",
    "frame_distance",
    "green_score",
    "grouped_roc_auc",
    "hit_at_k",
    "label_propensities",
    "map_at_r",
    "maximum_calibration_error",
    "maximum_concept_matching_score",
    "naive_bayes_head",
    "naive_bayes_init",
    "naive_bayes_update",
    "ndcg_at_k",
    "nearest_centre_agreement",
    "negative_log_likelihood",
    "neglabel_score",
    "nlm_alignment",
    "normalized_mutual_information",
    "precision_at_k",
    "propensity_scored_precision_at_k",
    "r_precision",
    "rankme",
    "recall_at_k",
    "relative_improvement",
    "reliability_bins",
    "retrieval_scores",
    "roc_auc",
    "self_duality_distance",
    "softmax_collapse",
    "threshold_inconsistency",
    "tolerance",
    "top_k_accuracy",
    "uniformity",
    "utilization",
    "verification_errors",
    "within_class_variability",
]
