"""RankMe: assessing pretrained self-supervised representations by their rank.

The problem. Hyper-parameters of self-supervised training are chosen by the accuracy of a probe on
labelled data, which is what the method wants to do without.

The idea. Embeddings that fail tend to fail by losing dimensions. The effective rank of a matrix of
embeddings, the exponential of the entropy of its singular values, needs no labels, no training
and no parameters; among runs of one method take the one of the largest.

What the authors measured. Chosen by RankMe, models of VICReg, SimCLR and DINO are within half a
point to a point of those chosen by labels, and rank goes with accuracy within a method.

What is measured here. VICReg on digits with six weights of its covariance term, which is what keeps
dimensions from being lost: the rank correlation of RankMe of the projector's outputs with the
accuracy of a linear probe on the encoder's, and the accuracy of the run that RankMe chooses against
the mean of the runs, which is what choosing at random gives.

What did not reproduce. RankMe does not see every collapse. With a variance term of weight 0 or
1 all embeddings shrink to a point and a probe finds 20 to 70% of classes, but what is left of
them has all directions alike: RankMe, which does not see scale, gives 18 to 31, as much as the
best runs or more (other seeds). And the largest is not the best for ever: at a covariance weight of
16 the rank is 28 to 32 and the accuracy up to two points below that of weight 4 or 1. So the
sweep is one of the covariance weight within the method's working range, 0 to 4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import vicreg_loss
from papyrax.metrics import rankme
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
from papyrax.papers.toys import augment, digits, fit, mlp, mlp_init

PAPER = Paper(
    slug="rankme",
    title=(
        "RankMe: Assessing the downstream performance of pretrained self-supervised "
        "representations by their rank"
    ),
    authors="Q. Garrido, R. Balestriero, L. Najman, Y. LeCun",
    year=2023,
    arxiv="2210.02885",
    area="self_supervised",
    idea="The effective rank of the embeddings chooses between runs of one method without labels.",
    formula="RankMe(Z) = exp(-sum_k p_k log p_k),  p_k = s_k(Z) / sum_j s_j(Z) + epsilon",
    parts=("papyrax.metrics.rankme",),
    claim=Claim(
        text="Rank goes with probe accuracy, and choosing by it costs little against labels.",
        setup=(
            "Digits, VICReg with perceptrons 64-128-64 and 64-64-64, 210 steps at batch 128, "
            "covariance weights 0, 0.01, 0.1, 0.3, 1 and 4; ridge classifier on half the examples."
        ),
        accept=(
            "Mean over seeds: rank correlation at least 0.5; accuracy of the chosen run at most "
            "0.02 below the best and at least 0.01 above the mean of the runs."
        ),
        method="chosen by RankMe",
        baseline="chosen at random",
    ),
    venue="ICML 2023",
)

WEIGHTS = (0.0, 0.01, 0.1, 0.3, 1.0, 4.0)


@functools.partial(jax.jit, static_argnames="steps")
def train(
    key: Array, weight: Float[Array, ""], x: Float[Array, "examples 64"], steps: int
) -> tuple[Float[Array, "examples 64"], Float[Array, ""]]:
    """Outputs of the encoder, and RankMe of the projector's, for a weight of the covariance."""
    first, second, run = jax.random.split(key, 3)
    params = (mlp_init(first, (64, 128, 64)), mlp_init(second, (64, 64, 64)))

    def encode(params: tuple, x: Array) -> Array:
        return jax.nn.relu(mlp(params[0], x))

    def loss(params: tuple, index: Array, key: Array) -> Array:
        views = (augment(k, x[index]) for k in jax.random.split(key))
        z, other = (mlp(params[1], encode(params, view)) for view in views)
        return jnp.mean(vicreg_loss(z, other, covariance_weight=weight))

    params = fit(loss, params, run, examples=len(x), batch=128, steps=steps, learning_rate=1e-3)
    features = encode(params, x)
    return features, rankme(mlp(params[1], features))


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of a ridge classifier, trained on even examples, on odd ones."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifier())
    return float(probe.fit(features[::2], labels[::2]).score(features[1::2], labels[1::2]))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains four times as long."""
    all_seeds = seed_range(seed, seeds)
    x, labels = digits()
    steps = 210 if budget == "quick" else 840
    weights = jnp.array(WEIGHTS)
    ranks, scores = [], []
    for i, s in enumerate(all_seeds):
        progress(i / seeds, f"seed {s}: VICReg with {len(WEIGHTS)} weights")
        sweep = jax.vmap(lambda k, w: train(k, w, jnp.asarray(x), steps), in_axes=(None, 0))
        features, rank = sweep(jax.random.key(s), weights)
        ranks.append(np.asarray(rank, float))
        scores.append(np.array([accuracy(f, labels) for f in np.asarray(features)]))
    progress(1.0, "done")
    together = [correlation(r, a) for r, a in zip(ranks, scores, strict=True)]
    chosen = np.array([a[np.argmax(r)] for r, a in zip(ranks, scores, strict=True)])
    best, mean = np.max(scores, 1), np.mean(scores, 1)
    measures = (
        Measure(
            name="rank correlation of RankMe with probe accuracy",
            method=tuple(together),
            accept="mean >= 0.5",
            holds=float(np.mean(together)) >= 0.5,
        ),
        Measure(
            name="probe accuracy",
            method=tuple(chosen),
            baseline=tuple(mean),
            accept="mean at most 0.02 below the best run's and at least 0.01 above the baseline's",
            holds=np.mean(best - chosen) <= 0.02 and np.mean(chosen - mean) >= 0.01,
        ),
    )
    # By the place in the sweep, so that the seeds share their x.
    figure = Figure(
        title="Runs of a sweep",
        x_label="covariance weight (number of the run)",
        y_label="share of the largest in the sweep",
        lines=tuple(
            Line(name, tuple(range(len(WEIGHTS))), tuple(tuple(r / np.max(r)) for r in rows))
            for name, rows in (("RankMe", ranks), ("probe accuracy", scores))
        ),
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
