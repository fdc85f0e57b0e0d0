"""SuSana Distancia is all you need: enforcing class separability in metric learning.

The problem. A prototypical network is trained on whether the nearest prototype is the right one.
That says little on how the embeddings of a class lie: wide classes that touch are good enough.

The idea. Two further losses. One is minus the logarithm of a score of the nearest neighbours of
every example, which grows as neighbours of one's class come closer, those of others go away, and
there are more of the first. The other is a triplet loss with the prototypes of the classes as
positive and negative.

What the authors measured. About two points of accuracy over metric methods for few shots on
miniImageNet.

What is measured here. The separability that the title is about: digits, episodes of five of six
classes, and the silhouette of all examples of these classes, and their mean radius by the mean
distance of their centres.

What was seen beside it (on other seeds). With a margin of 0.5, as in the authors' code, the
Proto-Triplet loss adds 0.004 to the silhouette, with the margin of 1 used here 0.030.

What did not reproduce. The accuracy for classes not trained on: the silhouette of the four classes
held out is the same for all three (0.19 on other seeds), and in the catalogue's trial accuracy with
few shots was one to four points lower with the first loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from papyrax.losses import icnn_loss, pairwise_squared_euclidean, prototype_triplet_loss
from papyrax.papers import (
    Budget,
    Claim,
    Figure,
    Line,
    Measure,
    Paper,
    Progress,
    Result,
    seed_range,
    silent,
)
from papyrax.papers.toys import Layers, digits, mlp, mlp_init

PAPER = Paper(
    slug="icnn_proto_triplet",
    title=(
        "SuSana Distancia is all you need: Enforcing class separability in metric learning via "
        "two novel distance-based loss functions for few-shot image classification"
    ),
    authors=(
        "M. Mendez-Ruiz, J. Gonzalez-Zapata, I. Reyes-Amezcua, D. Flores-Araiza, "
        "F. Lopez-Tiro, A. Mendez-Vazquez, G. Ochoa-Ruiz"
    ),
    year=2023,
    arxiv="2305.09062",
    area="metric_loss",
    idea=(
        "Train embeddings of few-shot episodes by a score of their nearest neighbours, or by "
        "triplets with prototypes, so that classes come apart."
    ),
    formula=(
        "L_icnn = -log( ((same + different) / 2 + purity) / 2 )\n"
        "L_triplet = [d(x, c_y) - min_{k != y} d(x, c_k) + margin]_+"
    ),
    parts=("papyrax.losses.icnn_loss", "papyrax.losses.prototype_triplet_loss"),
    claim=Claim(
        text="Both losses bring the classes of the embedding further apart.",
        setup=(
            "Digits, six random classes, perceptron 64-64-32, 400 episodes of five classes with "
            "five shots and ten queries each; cross-entropy of the prototypes, its mean with the "
            "ICNN loss, and its sum with half the Proto-Triplet loss, of margin 1."
        ),
        accept=(
            "Mean silhouette of the six classes at least 0.05 above the prototypes' alone with "
            "ICNN and 0.015 with Proto-Triplet; mean radius by distance of centres with ICNN at "
            "most 0.9 times theirs."
        ),
        method="ICNN",
        baseline="prototypes alone",
    ),
)

WAYS, SHOTS, QUERIES, CLASSES = 5, 5, 10, 6
ARMS = ("ICNN", "Proto-Triplet", "prototypes alone")


def episodes(seed: int, count: int) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "classes"]]:
    """Numbers of examples [episodes, ways, shots + queries], and the classes they are from."""
    rng = np.random.default_rng(seed)
    _, labels = digits()
    classes = rng.permutation(10)[:CLASSES]
    members = {int(c): np.flatnonzero(labels == c) for c in classes}

    def one() -> list[np.ndarray]:
        chosen = rng.choice(classes, WAYS, replace=False)
        return [rng.choice(members[int(c)], SHOTS + QUERIES, replace=False) for c in chosen]

    return np.array([one() for _ in range(count)]), classes


@functools.partial(jax.jit, static_argnames="arm")
def train(
    key: Array, x: Float[Array, "examples 64"], rows: Int[Array, "episodes ways size"], arm: str
) -> Layers:
    """The encoder after all episodes."""
    tx = optax.adam(1e-3)
    params = mlp_init(key, (64, 64, 32))
    everyone = jnp.repeat(jnp.arange(WAYS), SHOTS + QUERIES)
    asked = jnp.repeat(jnp.arange(WAYS), QUERIES)

    def loss(params: Layers, rows: Array) -> Array:
        z = mlp(params, x[rows.reshape(-1)])
        by_class = z.reshape(WAYS, SHOTS + QUERIES, -1)
        prototypes = jnp.mean(by_class[:, :SHOTS], 1)
        queries = by_class[:, SHOTS:].reshape(WAYS * QUERIES, -1)
        logits = -pairwise_squared_euclidean(queries, prototypes)
        base = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, asked))
        if arm == "ICNN":
            return (base + jnp.mean(icnn_loss(z, everyone, reach=SHOTS + QUERIES))) / 2
        if arm == "Proto-Triplet":
            triplets = prototype_triplet_loss(queries, asked, prototypes, margin=1.0)
            return base + jnp.mean(triplets) / 2
        return base

    def step(carry: tuple, rows: Array) -> tuple:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), rows)[0][0]


def separability(z: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Silhouette, and the mean radius of the classes by the mean distance of their centres."""
    from sklearn.metrics import silhouette_score

    groups = [z[labels == c] for c in np.unique(labels)]
    centres = np.stack([g.mean(0) for g in groups])
    radius = np.mean([np.linalg.norm(g - m, axis=1).mean() for g, m in zip(groups, centres)])
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1)
    distance = apart[np.triu_indices(len(groups), 1)].mean()
    return float(silhouette_score(z, labels)), float(radius / distance)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains on 1,600 episodes rather than 400."""
    all_seeds = seed_range(seed, seeds)
    count = 400 if budget == "quick" else 1600
    x, labels = digits()
    drawn = [episodes(s, count) for s in all_seeds]
    rows = jnp.stack([jnp.asarray(r) for r, _ in drawn])
    keys = jnp.stack([jax.random.key(s) for s in all_seeds])
    found: dict[str, np.ndarray] = {}
    for i, arm in enumerate(ARMS):
        progress(i / len(ARMS), f"all seeds: {arm}")
        learn = jax.vmap(lambda k, r, a=arm: train(k, jnp.asarray(x), r, a))
        z = np.asarray(jax.vmap(lambda p: mlp(p, jnp.asarray(x)))(learn(keys, rows)))
        seen = [np.isin(labels, classes) for _, classes in drawn]
        found[arm] = np.array(
            [separability(e[mine], labels[mine]) for e, mine in zip(z, seen, strict=True)]
        )
    progress(1.0, "done")
    icnn, triplet, base = (found[arm] for arm in ARMS)
    gain, other = (float(np.mean(a[:, 0] - base[:, 0])) for a in (icnn, triplet))
    measures = (
        Measure(
            name="silhouette with ICNN",
            method=tuple(icnn[:, 0]),
            baseline=tuple(base[:, 0]),
            accept="mean at least 0.05 above the baseline's",
            holds=gain >= 0.05,
        ),
        Measure(
            name="silhouette with Proto-Triplet",
            method=tuple(triplet[:, 0]),
            baseline=tuple(base[:, 0]),
            accept="mean at least 0.015 above the baseline's",
            holds=other >= 0.015,
        ),
        Measure(
            name="radius by distance of centres with ICNN",
            method=tuple(icnn[:, 1]),
            baseline=tuple(base[:, 1]),
            accept="mean at most 0.9 times the baseline's",
            holds=np.mean(icnn[:, 1]) <= 0.9 * np.mean(base[:, 1]),
            better="lower",
        ),
    )
    figure = Figure(
        title="Separability of the trained classes",
        x_label="seed",
        y_label="silhouette",
        lines=tuple(Line(arm, all_seeds, (tuple(found[arm][:, 0]),)) for arm in ARMS),
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
