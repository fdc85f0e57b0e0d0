"""The losses of the guide: what each is for, and how it is called with scores and labels."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papyrax import losses


@dataclasses.dataclass(frozen=True)
class Choice:
    """A loss of scores and the class that is right.

    Attributes:
      name: in `papyrax.losses`.
      use: what it is for.
      call: from scores [batch, n] and labels [batch] to losses [batch]; after the state where there
        is one.
      scores: entries of a row of scores; one is a single score against zero.
      classes: how many labels there are.
      low, high: the range of a score.
      link: the probabilities that scores stand for, beside softmax and `exp(-loss)`.
      cost: whether `call` is timed on rows of 1000 classes; a function of two arrays of scores for
        losses of pairs.
      state: the state before anything is remembered, from scores and labels; each example has its
        own entry.
    """

    name: str
    use: str
    call: Callable[..., Any]
    scores: int = 3
    classes: int = 3
    low: float = -np.inf
    high: float = np.inf
    link: Callable[[Any], Any] | None = None
    cost: bool | Callable[[Any, Any], Any] = True
    state: Callable[[Any, Any], Any] | None = None

    def losses(self, z: Any, y: Any) -> Any:
        """The loss of scores and labels before anything is remembered."""
        return self.call(z, y) if self.state is None else self.call(self.state(z, y), z, y)


def plain(name: str, use: str, **settings: Any) -> Choice:
    """A loss that takes scores and labels and nothing else."""
    return Choice(name, use, lambda z, y: getattr(losses, name)(z, y), **settings)


def dense(name: str, use: str, **settings: Any) -> Choice:
    """A loss that takes scores and a distribution over the classes."""
    target = functools.partial(jax.nn.one_hot, dtype=float)
    return Choice(
        name,
        use,
        lambda z, y: getattr(losses, name)(z, target(y, z.shape[-1]).astype(z.dtype)),
        **settings,
    )


def pair(name: str, use: str, loss: Callable[[Any, Any], Any], **settings: Any) -> Choice:
    """A loss of the better and the worse of two, told which one is the better."""

    def call(z: Any, y: Any) -> Any:
        first = y == 0
        return loss(jnp.where(first, z[:, 0], z[:, 1]), jnp.where(first, z[:, 1], z[:, 0]))

    return Choice(name, use, call, 2, 2, cost=loss, **settings)


def identity(z: Any) -> Any:
    """The kernel whose logits are the inputs."""
    return jnp.eye(z.shape[-1], dtype=z.dtype)


def over_identity(name: str) -> Callable[[Any, Any], Any]:
    """A loss over a linear layer as one of the layer's outputs."""
    return lambda z, y: getattr(losses, name)(z, identity(z), y)


def rows(y: Any) -> Any:
    """The index of each example in a state as large as the batch."""
    return jnp.arange(len(y))


def counts(z: Any) -> Any:
    """Classes that are equally frequent."""
    return jnp.ones(z.shape[-1], z.dtype)


CLASSIFICATION = (
    plain("softmax_cross_entropy_with_integer_labels", "the default"),
    Choice(
        "linear_softmax_cross_entropy",
        "vocabularies whose logits do not fit in memory",
        over_identity("linear_softmax_cross_entropy"),
        cost=False,
    ),
    Choice(
        "linear_spherical_loss",
        "the same for the spherical family",
        over_identity("linear_spherical_loss"),
        cost=False,
    ),
    Choice(
        "factored_spherical_step",
        "the same where SGD trains the layer, in time without the number of classes",
        lambda z, y: losses.factored_spherical_step(
            losses.factored_layer_init(identity(z)), z, y, learning_rate=0.0
        )[0],
        cost=False,
    ),
    Choice(
        "linear_ldr_kl",
        "`ldr_kl` over such vocabularies",
        over_identity("linear_ldr_kl"),
        cost=False,
    ),
    dense("softmax_cross_entropy", "soft targets"),
    dense("poly_loss_cross_entropy", "more weight on what is almost right"),
    plain("multiclass_hinge_loss", "margins, no probabilities"),
    plain("multiclass_perceptron_loss", "online linear models"),
    plain(
        "multiclass_sparsemax_loss",
        "probabilities with exact zeros",
        link=lambda z: optax.projections.projection_simplex(z),
    ),
    plain("focal_loss", "many easy examples"),
    plain("label_smoothing_cross_entropy", "less confident predictions"),
    plain("brier_loss", "calibrated probabilities with bounded loss"),
    plain("comp_sum_loss", "a dial from cross-entropy to the mean error"),
    Choice(
        "smooth_adversarial_comp_sum_loss",
        "adversarially robust training",
        lambda z, y: losses.smooth_adversarial_comp_sum_loss(
            z, z + np.cos(np.arange(z.shape[-1])).astype(z.dtype), y
        ),
    ),
    plain("stablemax_cross_entropy", "long training after the data are learned"),
    dense("stablemax_cross_entropy_with_targets", "the same with soft targets"),
    plain("taylor_softmax_cross_entropy", "very many classes, few features"),
    plain("spherical_softmax_cross_entropy", "very many classes, few features"),
    plain("z_loss", "top-k accuracy, scores of any scale"),
    Choice(
        "ldam_loss",
        "long tails, margins",
        lambda z, y: losses.ldam_loss(z, y, counts(z)),
    ),
    Choice(
        "logit_adjusted_cross_entropy",
        "long tails, balanced accuracy",
        lambda z, y: losses.logit_adjusted_cross_entropy(z, y, counts(z)),
    ),
    plain("ldr_kl", "a margin and a temperature on cross-entropy"),
    plain("madacos", "embeddings for retrieval", low=-1.0, high=1.0),
    plain("correctness_aware_loss", "fitting a calibrator after training"),
    Choice(
        "ensloss",
        "two classes, small data",
        lambda z, y: losses.ensloss(z[:, 0], y, jax.random.key(0)),
        scores=1,
        classes=2,
    ),
    Choice(
        "ps_kd",
        "calibration without a teacher",
        lambda state, z, y: losses.ps_kd(state, z, y, rows(y), weight=0.5)[0],
        state=lambda z, y: losses.PsKdState(jnp.full_like(z, 1 / z.shape[-1])),
    ),
)
NOISY = (
    plain("mae_loss", "few classes, much noise"),
    plain("generalized_cross_entropy", "noise of an unknown rate"),
    plain("symmetric_cross_entropy", "noise, with cross-entropy's speed"),
    Choice(
        "elr_loss",
        "much noise, long training",
        lambda state, z, y: losses.elr_loss(state, z, y, rows(y))[0],
        state=lambda z, y: losses.ElrState(jnp.zeros_like(z)),
    ),
    Choice(
        "aldr_kl",
        "noise that differs between examples",
        lambda state, z, y: losses.aldr_kl(state, z, y, rows(y))[0],
        state=lambda z, y: losses.aldr_kl_init(len(y)),
    ),
    Choice(
        "linear_aldr_kl",
        "the same over vocabularies whose scores do not fit in memory",
        lambda z, y: losses.linear_aldr_kl(losses.aldr_kl_init(len(y)), z, identity(z), y, rows(y))[
            0
        ],
        cost=False,
    ),
)
PREFERENCE = (
    pair(
        "dpo_loss", "pairs and a reference model", lambda w, l: losses.dpo_loss(w, l, 0 * w, 0 * l)
    ),
    pair("ipo_loss", "pairs that nobody doubts", lambda w, l: losses.ipo_loss(w, l, 0 * w, 0 * l)),
    Choice(
        "kto_loss",
        "good and bad answers without pairs",
        lambda z, y: losses.kto_loss(z[:, 0], 0 * z[:, 0], y == 1, jnp.zeros((), z.dtype)),
        scores=1,
        classes=2,
    ),
    pair("orpo_loss", "fine-tuning in the same run", losses.orpo_loss, high=-1e-3),
    pair("simpo_loss", "pairs without a reference model", losses.simpo_loss),
    pair(
        "mapo_loss",
        "diffusion models without a reference model",
        lambda w, l: losses.mapo_loss(-w, -l),
        high=0.0,
    ),
)


@dataclasses.dataclass(frozen=True)
class Regression:
    """A loss of predictions [...] and targets [...], or of bags [..., size] and their responses."""

    name: str
    use: str
    bags: bool = False

    def call(self, predictions: Any, targets: Any) -> Any:
        """The loss at its defaults."""
        return getattr(losses, self.name)(predictions, targets)


REGRESSION = (
    Regression("squared_error", "the mean"),
    Regression("l2_loss", "the mean, half the square"),
    Regression("huber_loss", "some outliers"),
    Regression("log_cosh", "some outliers, smoothly"),
    Regression("pinball_loss", "quantiles and intervals"),
    Regression("general_robust_loss", "outliers, with a dial"),
    Regression("bag_level_loss", "only sums of responses are known", bags=True),
    Regression("instance_level_loss", "the same, with less variance", bags=True),
    Regression("interpolated_bag_loss", "between the two", bags=True),
)
WHOLE_BATCH = {
    "conr_loss": "rare targets, added to a loss of regression",
    "cs_information_bottleneck_loss": "outliers, compressed codes",
}


def per_example_classification() -> set[str]:
    """Every exported loss of scores and labels with one value an example, by its signature."""
    found = set()
    for name in losses.__all__:
        value = getattr(losses, name)
        if inspect.isclass(value):
            continue
        signature = inspect.signature(value)
        returned = signature.return_annotation
        first = getattr(returned, "__args__", (returned,))[0]
        takes = set(signature.parameters)
        if (
            takes & {"logits", "scores", "cosines", "hidden"}
            and takes & {"labels", "targets"}
            and getattr(first, "dim_str", None) in ("...", "batch")
            and name.removesuffix("_regularizer") == name
        ):
            found.add(name)
    return found
