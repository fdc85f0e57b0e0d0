"""Which loss has which property, and what it costs: computed, and written as docs/losses.md.

    python benchmarks/losses_guide.py [--repeats N] [--write]

Properties are looked for in float64 on sampled scores of three classes (two for preferences). Costs
are processor time of value and gradient over that of optax's softmax cross-entropy right before and
after, in one process, medians. `--write` replaces docs/losses.md; without it the page is printed.
"""

import argparse
import dataclasses
import functools
import inspect
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from papyrax import losses
from papyrax.train.files import write_atomic

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "losses.md"
DISTRIBUTIONS = {
    2: ((0.7, 0.3), (0.55, 0.45), (0.1, 0.9)),
    3: ((0.5, 0.3, 0.2), (0.45, 0.35, 0.2), (0.8, 0.15, 0.05), (0.4, 0.3, 0.3), (0.2, 0.36, 0.44)),
}
OUTCOMES, CHANCES = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.35, 0.25, 0.2, 0.2])
UNKNOWN = "–"


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


def sample(count: int, width: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """Scores of several sizes [count, width] within a range."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, width))
    if np.isfinite(low) and np.isfinite(high):
        return rng.uniform(low, high, size=z.shape)
    z *= np.repeat([0.3, 1.0, 3.0, 10.0], -(-count // 4))[:count, None]
    return np.minimum(z, high) if np.isinf(low) and np.isfinite(high) else z


def yes(answer: bool) -> str:
    """How a table says it."""
    return "yes" if answer else "no"


def convex(fn: Callable[[Any], Any], values: Callable[[Any], Any], points: np.ndarray) -> bool:
    """No output of negative curvature at the points, or above its chords between them."""
    curvature = np.linalg.eigvalsh(np.asarray(jax.jit(jax.vmap(jax.hessian(fn)))(points)))
    others = np.random.default_rng(1).permutation(points)
    ends = np.stack([np.asarray(values(points)), np.asarray(values(others))])
    middle = np.asarray(values((points + others) / 2))
    bent = np.all(curvature >= -1e-7 * (1 + np.abs(curvature).max()))
    return bool(bent and np.all(middle <= ends.mean(0) + 1e-7 * (1 + np.abs(ends).max(0))))


def bounded(values: Callable[[Any], Any], width: int, low: float, high: float) -> bool:
    """The size of the loss does not grow from scores around 1e4 to scores around 1e6."""
    rng = np.random.default_rng(2)
    # Some entries stay zero, so that also losses of ratios are led to their poles.
    unit = rng.normal(size=(64, width)) * (rng.random((64, width)) < 0.7)
    near, far = (
        float(np.abs(np.asarray(values(np.clip(scale * unit, low, high)))).max())
        for scale in (1e4, 1e6)
    )
    return far <= 1.01 * near


def minimizers(choice: Choice, risk: Callable[[Any, Any], Any], q: np.ndarray) -> np.ndarray:
    """Scores of least conditional risk where the classes have probabilities `q`.

    `risk` gives value and gradient. All that random starts find within rounding of the best.
    """
    low, high = max(choice.low, -30.0), min(choice.high, 30.0)
    starts = np.clip(np.random.default_rng(3).normal(size=(6, choice.scores)), low, high)

    def both(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = risk(z, q)
        return float(value), np.asarray(slope, float)

    found = [
        scipy.optimize.minimize(
            both, z, jac=True, bounds=[(low, high)] * len(z), options={"ftol": 1e-14, "gtol": 1e-9}
        )
        for z in starts
    ]
    best = min(f.fun for f in found)
    return np.stack([f.x for f in found if f.fun <= best + 1e-7 * (1 + abs(best))])


def properties(choice: Choice) -> dict[str, str]:
    """What `choice` is: bounded, convex, symmetric, calibrated, proper."""
    labels = jnp.arange(choice.classes)
    width = choice.scores

    def each(z: Any) -> Any:
        """The losses of one row of scores with each label."""
        return jax.vmap(lambda y: choice.losses(z[None], y[None])[0])(labels)

    with jax.enable_x64(True):
        points = sample(64, width, choice.low, choice.high)
        values = jax.jit(jax.vmap(each))
        table = np.asarray(values(points))
        limited = np.isfinite(choice.low) and np.isfinite(choice.high)
        answer = {
            "bounded": "in range"
            if limited
            else yes(bounded(values, width, choice.low, choice.high))
        }
        # Where parts are held fixed, the gradient is not that of the value.
        along = np.random.default_rng(4).normal(size=points.shape)
        slope = jax.jit(jax.vmap(lambda z, d: jax.jvp(each, (z,), (d,))[1]))(points, along)
        h = 1e-6
        rise = (np.asarray(values(points + h * along)) - np.asarray(values(points - h * along))) / 2
        off = np.abs(rise / h - np.asarray(slope)) > 1e-3 * (1 + np.abs(np.asarray(slope)))
        if off.mean() > 0.05:
            return answer | dict.fromkeys(("convex", "symmetric", "calibrated", "proper"), UNKNOWN)
        answer["convex"] = yes(convex(each, values, points))
        total = table.sum(-1)
        answer["symmetric"] = yes(bool(np.ptp(total) <= 1e-6 * max(1, abs(total.mean()))))

        risk = jax.jit(jax.value_and_grad(lambda z, q: each(z) @ q))
        right, proper = [], []
        for q in map(np.asarray, DISTRIBUTIONS[choice.classes]):
            for z in minimizers(choice, risk, q):
                scores = np.append(0.0, z) if len(z) == 1 else z
                first, second = np.sort(scores)[::-1][:2]
                right.append(first - second > 1e-4 and scores.argmax() == q.argmax())
                # Probabilities by softmax, or those that the loss is the logarithm of.
                links = [jax.nn.softmax(scores), np.exp(-np.asarray(values(z[None]))[0])]
                links += [choice.link(jnp.asarray(scores))] if choice.link else []
                proper.append([np.abs(np.asarray(p) - q).max() < 2e-3 for p in links])
    answer["calibrated"] = yes(all(right))
    answer["proper"] = yes(bool(np.all(proper, axis=0).any()))
    return answer


def regression_properties(entry: Regression) -> dict[str, str]:
    """What a loss of predictions is: bounded, convex, even, and what prediction is best."""
    with jax.enable_x64(True):
        if entry.bags:
            width = 4

            def fn(z: Any) -> Any:
                return entry.call(z[None], jnp.ones(1))[0]
        else:
            width = 1

            def fn(z: Any) -> Any:
                return entry.call(z, jnp.zeros(1))[0]

        points = sample(64, width, -np.inf, np.inf)
        values = jax.jit(jax.vmap(fn))
        answer = {
            "bounded": yes(bounded(values, width, -np.inf, np.inf)),
            "convex": yes(convex(fn, values, points)),
        }
        if entry.bags:
            return answer | {"even": UNKNOWN, "best prediction": UNKNOWN}
        answer["even"] = yes(np.allclose(values(points), values(-points), rtol=1e-9))
        grid = np.linspace(0, 5, 5001)
        table = np.asarray(entry.call(*map(jnp.asarray, np.meshgrid(grid, OUTCOMES))))
        best = grid[np.argmin(CHANCES @ table)]
    named = {
        "mean": CHANCES @ OUTCOMES,
        "median": OUTCOMES[np.searchsorted(np.cumsum(CHANCES), 0.5)],
    }
    near = [name for name, value in named.items() if abs(best - value) < 2e-3]
    between = min(named.values()) < best < max(named.values())
    answer["best prediction"] = near[0] if near else "between" if between else "other"
    return answer


def inputs(name: str) -> str:
    """What a loss must be given."""
    parameters = inspect.signature(getattr(losses, name)).parameters.values()
    return ", ".join(p.name for p in parameters if p.default is p.empty)


def stateful(name: str) -> str:
    """Whether a loss takes a state and returns the next."""
    return yes("state" in inspect.signature(getattr(losses, name)).parameters)


def timed(entry: Choice | Regression) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Compiled value and gradient, and its arguments: 4096 rows of 1000."""
    batch, classes = 4096, 1000
    rng = np.random.default_rng(0)
    z, other = (jnp.asarray(rng.normal(size=(batch, classes)), jnp.float32) for _ in range(2))
    y = jnp.asarray(rng.integers(classes, size=batch), jnp.int32)
    if isinstance(entry, Regression):
        target = z[:, 0] if entry.bags else other
        fn, args = (lambda z, t: entry.call(z, t).sum()), (z, target)
        return jax.jit(jax.value_and_grad(fn)), args
    if not entry.cost:
        return None
    if callable(entry.cost):
        z, other = (-jnp.abs(x) for x in (z, other))  # log-probabilities
        return jax.jit(jax.value_and_grad(lambda w, l: entry.cost(w, l).sum(), (0, 1))), (z, other)
    if entry.scores == 1:
        z, y = z.reshape(-1, 1), jnp.asarray(rng.integers(2, size=batch * classes), jnp.int32)
    elif np.isfinite(entry.high):
        z = jnp.tanh(z)
    if entry.state is not None:
        fn = jax.value_and_grad(lambda z, y, state: entry.call(state, z, y).sum())
        return jax.jit(fn), (z, y, entry.state(z, y))
    return jax.jit(jax.value_and_grad(lambda z, y: entry.call(z, y).sum())), (z, y)


def seconds(fn: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """Processor time of one call, which other programs disturb less than wall time."""
    start = time.process_time()
    jax.block_until_ready(fn(*args))
    return time.process_time() - start


def costs(entries: tuple[Any, ...], repeats: int) -> dict[str, str]:
    """Time of each loss over that of optax's cross-entropy, the two in turn."""
    base = timed(CLASSIFICATION[0])
    assert base is not None
    seconds(*base)
    answer = {}
    for entry in entries:
        one = timed(entry)
        if one is None:
            answer[entry.name] = UNKNOWN
            continue
        seconds(*one)  # compiles
        ratios = []
        for _ in range(repeats):
            before, took, after = seconds(*base), seconds(*one), seconds(*base)
            ratios.append(2 * took / (before + after))
        ratio = statistics.median(ratios)
        answer[entry.name] = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return answer


def table(entries: tuple[Any, ...], found: dict[str, dict[str, str]], cost: dict[str, str]) -> str:
    """A table of losses in Markdown."""
    columns = [*next(iter(found.values()))]
    head = ["loss", "takes", *columns, "state", "cost", "for"]
    lines = [head, ["---"] * len(head)]
    for e in entries:
        row = [f"`{e.name}`", inputs(e.name), *found[e.name].values()]
        lines.append([*row, stateful(e.name), cost[e.name], e.use])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PAGE_TEXT = """# Which loss

<!-- Written by benchmarks/losses_guide.py; changes by hand are lost. -->

All are in `papyrax.losses`, at their defaults, and give one value an example. The answers are
computed, on {classes} classes and in float64, so a "yes" is what no sample contradicted:

- **bounded**: the loss stops growing with the scores; "in range" where the scores themselves are
  limited.
- **convex** in the scores: no negative eigenvalue of sampled Hessians, no chord below the
  function.
- **symmetric**: the sum over all labels is the same whatever the scores (Ghosh et al., arXiv
  1712.09482), which makes the minimum insensitive to uniform label noise.
- **calibrated**: with classes of given probabilities, the best scores are highest, and alone so,
  for the most likely class.
- **proper**: those scores also tell the probabilities, by softmax or by the loss's own link.
- **state**: takes what it remembers of each example, and returns it renewed.
- **cost**: processor time of value and gradient over that of optax's softmax cross-entropy, both
  at [4096, 1000], float32. Losses of single numbers and of pairs are given as many entries.

"{unknown}" stands where the question has no answer: the gradient is not that of the value (parts
are held fixed), or it is not measured. Losses that weigh classes by frequency are asked with
equal frequencies, stateful ones before they remember anything, `ps_kd` with uniform past
predictions, and the adversarial one with an attack that moves the scores by a constant.

## Classification

{classification}

## Noisy labels

{noisy}

## Preferences

The two scores are log-probabilities of two answers (negative denoising errors for `mapo_loss`),
the label says which one is preferred; references are zero.

{preference}

## Regression

**best prediction**: which of a skewed distribution is predicted at the least expected loss,
"between" mean and median or "other".

{regression}

Of whole batches (the last gives one value a batch), at a cost that grows with the square of their
size:

{whole}

## What costs more, and why

Cross-entropy takes one exponential an entry, two sums (one of them the largest entry) and one
logarithm an example. More than 1.5 times its cost takes a loss that needs more than that:

- `brier_loss` sums the squares of the probabilities beside the probabilities;
- `correctness_aware_loss` looks for the predicted class beside its probability;
- `smooth_adversarial_comp_sum_loss` reads two arrays of scores and sums exponentials of the one
  and squares of what separates them;
- targets of many classes (`softmax_cross_entropy`, `stablemax_cross_entropy_with_targets`, `ps_kd`,
  `elr_loss`, `poly_loss_cross_entropy`) are a second array to read, or to make, as large as the
  scores, and weigh a logarithm of every entry; `elr_loss` also makes, clips and normalizes its
  targets;
- `aldr_kl` takes a second softmax, at the temperature remembered, and its divergence;
- `multiclass_sparsemax_loss` sorts the scores, and `multiclass_hinge_loss` and
  `multiclass_perceptron_loss` look for the best wrong class;
- `ensloss` draws a random number an entry;
- losses of single numbers and of pairs take a logarithm or a root an entry, where a row of 1000
  classes has one: on batches of as many rows they cost a thousandth of what is given.

Arrays as large as the scores that a loss holds until its gradient is done cost their memory too:
the figures of those with targets of many classes, of `correctness_aware_loss` and of
`smooth_adversarial_comp_sum_loss` differ up to twofold between a quiet machine and a busy one.

Measured with jax {jax}, optax {optax} on {machine}, {device}, {cores} cores,
which other programs may have shared.
Losses over a linear layer have a [benchmark](../benchmarks/large_vocabulary.py) of their own.

## Large vocabularies on TPUs

Losses over a linear layer walk the classes in chunks of plain XLA. With
`implementation="pallas_tpu"` they are made of kernels that hold a tile of logits in a TPU's fast
memory and sum over classes and over examples in turn. Both are differentiable to second order. The
kernels were compiled for TPUs and run by an interpreter, but not on a TPU, so XLA is the default.
This is what the compiler for a v5e [expects](../benchmarks/large_vocabulary_tpu.py) of 4096
examples, 1024 features and 262,144 classes in bfloat16, whose logits would take 2048 MiB: millions
of cycles, and MiB beside inputs and results.

|  | XLA | kernels |
| --- | --- | --- |
| value | 41, 32 MiB | 20, 4 MiB |
| value and gradient | 102, 60 MiB | 87, 16 MiB |
| Hessian-vector product | 233, 104 MiB | 238, 34 MiB |
"""


def page(repeats: int) -> str:
    """The whole of docs/losses.md."""
    groups = {"classification": CLASSIFICATION, "noisy": NOISY, "preference": PREFERENCE}
    parts = {}
    for title, entries in groups.items():
        found = {e.name: properties(e) for e in entries}
        parts[title] = table(entries, found, costs(entries, repeats))
    found = {e.name: regression_properties(e) for e in REGRESSION}
    parts["regression"] = table(REGRESSION, found, costs(REGRESSION, repeats))
    lines = [["loss", "takes", "state", "for"], ["---"] * 4]
    lines += [[f"`{n}`", inputs(n), stateful(n), use] for n, use in WHOLE_BATCH.items()]
    return PAGE_TEXT.format(
        **parts,
        whole="\n".join("| " + " | ".join(line) + " |" for line in lines),
        unknown=UNKNOWN,
        classes="three (preferences: two)",
        jax=jax.__version__,
        optax=optax.__version__,
        machine=platform.machine(),
        cores=os.cpu_count(),
        device=jax.devices()[0].device_kind,
    )


def main() -> None:
    """Compute everything, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--write", action="store_true", help="replace docs/losses.md")
    a = parser.parse_args()
    text = page(a.repeats)
    if a.write:
        write_atomic(PAGE, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
