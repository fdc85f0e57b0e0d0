"""Which examples a client of federated learning has."""

import numpy as np
from jaxtyping import Int

from ..numerics import check, check_integer, check_positive, check_rank
from .samplers import Seed, check_count


def dirichlet_clients(
    labels: Int[np.ndarray, "examples"],
    *,
    clients: int,
    concentration: float,
    examples_per_client: int | None = None,
    seed: Seed = 0,
) -> Int[np.ndarray, "clients examples_per_client"]:
    """Clients with equally many examples each, whose classes are as unlike as one sets.

        p_i ~ Dirichlet(concentration, ..., concentration),   class of an example of client i ~ p_i

    Small concentrations give clients of one or two classes, large ones clients that are alike. No
    example comes twice. In random order the clients take an example at a time; where a class is
    used up, those that are left share its probability in proportion, or evenly if it had all.

    Args:
      labels: the class of every example [examples].
      clients: how many clients.
      concentration: of the Dirichlet distribution; the literature has 0.1 to 1.
      examples_per_client: how many examples each; as many as there are for None.
      seed: of the draw.

    Returns:
      Numbers of examples [clients, examples_per_client].

    Raises:
      ValueError: if a shape, a dtype or a number does not fit.

    Source: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification, arXiv 1909.06335, Section 3; woodenchild95/FL-Simulator dataset.py fills clients
    alike, but gives a class that is used up a second time.

    >>> rows = dirichlet_clients(np.repeat([0, 1, 2], 20), clients=4, concentration=0.1)
    >>> rows.shape, len(np.unique(rows))
    ((4, 15), 60)
    """
    check_integer(labels=labels)
    check_rank("labels", labels, 1)
    check_count(clients=clients)
    check_positive(concentration=concentration)
    labels = np.asarray(labels)
    size = len(labels) // clients if examples_per_client is None else examples_per_client
    check_count(examples_per_client=size)
    check(
        size * clients <= len(labels),
        "examples_per_client",
        f"got {size} for {clients} clients, takes at most {len(labels) // clients}",
    )
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.nonzero(labels == c)[0]) for c in np.unique(labels)]
    left = np.array([len(own) for own in members])
    shares = rng.dirichlet(np.full(len(members), concentration), clients)
    out = np.empty((clients, size), np.int64)
    taken = np.zeros(clients, int)
    for i in rng.permutation(np.repeat(np.arange(clients), size)):
        chances = np.where(left > 0, shares[i], 0)
        chances = chances if chances.sum() > 0 else (left > 0).astype(float)
        c = rng.choice(len(members), p=chances / chances.sum())
        left[c] -= 1
        out[i, taken[i]] = members[c][left[c]]
        taken[i] += 1
    return out
