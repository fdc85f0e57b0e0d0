"""Evaluation measures; nothing here is trained on."""

from .clustering import (
    adjusted_rand_index,
    clustering_accuracy,
    normalized_mutual_information,
)
from .collapse import nlm_alignment, softmax_collapse
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
)
from .retrieval import (
    RetrievalScores,
    retrieval_scores,
    threshold_inconsistency,
)

__all__ = [
    "RetrievalScores",
    "adjusted_rand_index",
    "alignment",
    "clustering_accuracy",
    "hit_at_k",
    "label_propensities",
    "map_at_r",
    "ndcg_at_k",
    "nlm_alignment",
    "normalized_mutual_information",
    "precision_at_k",
    "propensity_scored_precision_at_k",
    "r_precision",
    "rankme",
    "recall_at_k",
    "retrieval_scores",
    "softmax_collapse",
    "threshold_inconsistency",
    "tolerance",
    "uniformity",
]
