"""Which examples come together: samplers as plain functions of numbers, on the host.

Every function is NumPy, returns numbers of examples, and gives the same for the same seed whatever
the machine. Nothing here reads data: index an array with what is returned, or give the function to
`papyrax.train.data.sampled`, which makes a grain data set of it.
"""

from .clients import (
    dirichlet_clients,
)
from .clusters import (
    balanced_clusters,
    cluster_batches,
    one_per_cluster_batches,
)
from .neighbours import (
    location_neighbours,
    neighbour_batches,
    similarity_neighbours,
)
from .samplers import (
    class_balanced_batches,
    hierarchical_batches,
)

__all__ = [
    "balanced_clusters",
    "class_balanced_batches",
    "cluster_batches",
    "dirichlet_clients",
    "hierarchical_batches",
    "location_neighbours",
    "neighbour_batches",
    "one_per_cluster_batches",
    "similarity_neighbours",
]
