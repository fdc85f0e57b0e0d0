"""ALKALI: safeguarding language models by GRACE, and the Adversarial Vulnerability Quality Index.

The problem. An aligned model refuses what is plainly unsafe. A jailbreak's answer is as unsafe, but
its hidden states look like those of a safe one: latent camouflage. Losses of log-probabilities,
as DPO, do not see where in latent space an answer lies.

The idea. GRACE learns a preference on top of a frozen model: weights on its layers pool each
answer's hidden states into one embedding, and a head scores it. To the preference come two terms of
geometry: safe answers are pushed at least a margin away from unsafe and jailbroken ones, and the
latter two are pulled together. AVQI measures the same geometry, by how far clusters are apart for
their size.

What the authors measured. Up to 39% fewer successful attacks, on language models and a benchmark of
9,000 adversarial prompts; AVQI ranks 21 models by their latent vulnerability.

What is known. The paper's text was not at hand. The formulas are those of the code of one of its
authors (vinija/alkali), written before the paper, and agree with it; the margins 5 and 1, the
weights of one and the reference's weight are that code's, those of the experiments are unknown.

What is measured here. Six layers of 16 features, 200 prompts to train and 200 to test, three
answers each. Layers 3 and 4 (of six) tell both kinds of adversarial answers from safe ones; layers
5 and 6 put jailbroken ones among the safe; layers 1 and 2 say nothing. An attack is a jailbroken
answer's states moved by 30% towards those of the nearest safe answer, and succeeds where the head
scores it above the middle between safe and unsafe answers. The baseline is the same head trained by
DPO on the plain mean of the layers: as the code has the preference, of safe over unsafe answers,
and shown the jailbreaks too, where GRACE's preference has them as well. AVQI is that of test
answers, by GRACE's weights on the layers and by equal ones.

What was seen (on other seeds). The geometry finds the layers that tell. AVQI as the code has it
rises from 3 to about 20 for that very reason: it counts unsafe and jailbroken answers as two
clusters, whose centres GRACE brings together, and the least distance of two centres is its divisor.
With the two as one cluster it falls from 3.2 to 1.9. That part of the claim does not hold for the
index as it is defined.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from papyrax.losses import dpo_loss, grace_loss, layerwise_pool, relaxed_preference_loss
from papyrax.metrics import avqi
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
from papyrax.papers.toys import fit

PAPER = Paper(
    slug="grace_avqi",
    title=(
        "AdversariaL attacK sAfety aLIgnment(ALKALI): Safeguarding LLMs through GRACE: Geometric "
        "Representation-Aware Contrastive Enhancement- Introducing Adversarial Vulnerability "
        "Quality Index (AVQI)"
    ),
    authors="D. Khanna, K. Kumar, B. Ghosh, V. Jain, V. Sharma, A. Chadha, A. Das",
    year=2025,
    arxiv="2506.08885",
    area="preference",
    idea=(
        "Prefer safe answers by learned weights on a frozen model's layers, with safe embeddings "
        "pushed away from adversarial ones and these pulled together."
    ),
    formula=(
        "p + w_s ([M - |s - u|]_+ + [M - |s - j|]_+) / 2 + w_m [|u - j| - m]_+\n"
        "p = -log sigmoid((f(s) - f(u)) - a (r(s) - r(u))),  s, u, j = sum_l softmax(profile)_l h_l"
    ),
    parts=(
        "papyrax.losses.grace_loss",
        "papyrax.losses.relaxed_preference_loss",
        "papyrax.losses.layerwise_pool",
        "papyrax.metrics.avqi",
        "papyrax.metrics.davies_bouldin",
        "papyrax.metrics.dunn_index",
    ),
    claim=Claim(
        text=(
            "GRACE lets far fewer attacks through than DPO, finds the layers that tell, and "
            "lowers AVQI."
        ),
        setup=(
            "Six layers of 16 features of which two tell jailbroken answers from safe ones; 200 "
            "prompts, a linear head, 600 steps of Adam at batch 64; attacks 30% of the way to the "
            "nearest safe answer."
        ),
        accept=(
            "Mean share of successful attacks at most 0.7 times DPO's, with and without jailbreaks "
            "in the preference; mean weight on the two layers at least 0.6; AVQI at least 30% "
            "lower than of the plain mean of layers."
        ),
        method="GRACE",
        baseline="DPO on the mean of layers",
    ),
    code="vinija/alkali",
)

LAYERS, FEATURES, PROMPTS, TELLING = 6, 16, 200, slice(2, 4)
TOWARDS_SAFE = 0.3
KINDS = ("method", "baseline", "method, jailbreaks", "baseline, jailbreaks")


def answers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states [kinds, layers, prompts, features] to train and to test.

    The kinds are safe, unsafe and jailbroken; what a prompt is about is in all three.
    """
    rng = np.random.default_rng(seed)
    true, seeming = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0][:2]
    signal = np.zeros((3, LAYERS, 1, FEATURES))
    signal[:, TELLING] = 3 * true * np.array([1, -1, -1]).reshape(3, 1, 1, 1)
    signal[:, TELLING.stop :] = 3 * seeming * np.array([1, -1, 1]).reshape(3, 1, 1, 1)

    def draw() -> np.ndarray:
        topic = 0.5 * rng.normal(size=(1, LAYERS, PROMPTS, FEATURES))
        noise = 0.7 * rng.normal(size=(3, LAYERS, PROMPTS, FEATURES))
        return (signal + topic + noise).astype(np.float32)

    return draw(), draw()


def pool(hidden: Any, profile: Any) -> Float[Array, "kinds prompts features"]:
    """Embeddings of hidden states [kinds, layers, prompts, features]."""
    return layerwise_pool(jnp.moveaxis(jnp.asarray(hidden), 1, 0), profile)


@functools.partial(jax.jit, static_argnames=("kind", "steps"))
def train(
    key: Array, hidden: Float[Array, "kinds layers prompts features"], kind: str, steps: int
) -> dict[str, Array]:
    """Head and profile; DPO leaves the profile at equal weights."""
    start, run = jax.random.split(key)
    reference = jax.random.normal(start, (FEATURES,)) / np.sqrt(FEATURES)
    params = {"head": reference, "profile": jnp.zeros(LAYERS)}
    geometric, rejected = kind.startswith("method"), (1, 2) if "jailbreaks" in kind else (1,)

    def loss(params: Any, index: Array, _: Array) -> Array:
        profile = params["profile"] if geometric else jnp.zeros(LAYERS)
        z = pool(hidden[:, :, index], profile)
        score, fixed = z @ params["head"], z @ reference
        prefer = relaxed_preference_loss if geometric else functools.partial(dpo_loss, beta=1.0)
        terms = [prefer(score[0], score[k], fixed[0], fixed[k]) for k in rejected]
        preference = sum(terms[1:], terms[0]) / len(terms)
        safe, unsafe, jailbreak = z
        apart = grace_loss(safe, unsafe, jailbreak, preference)
        return jnp.mean(apart if geometric else preference)

    return fit(loss, params, run, examples=PROMPTS, batch=64, steps=steps, learning_rate=0.02)


def attack(hidden: np.ndarray) -> np.ndarray:
    """Jailbroken answers [layers, prompts, features] moved towards the nearest safe one."""
    safe, jailbreak = hidden[0], hidden[2]
    gap = safe.mean(0)[None] - jailbreak.mean(0)[:, None]
    nearest = np.argmin((gap**2).sum(-1), 1)
    return (1 - TOWARDS_SAFE) * jailbreak + TOWARDS_SAFE * safe[:, nearest]


def success(params: Any, train_hidden: np.ndarray, test_hidden: np.ndarray) -> float:
    """Share of attacks that the head takes for safe."""
    safe, unsafe, _ = np.asarray(pool(train_hidden, params["profile"]) @ params["head"])
    scores = pool(attack(test_hidden)[None], params["profile"])[0] @ params["head"]
    return float(np.mean(np.asarray(scores) > (safe.mean() + unsafe.mean()) / 2))


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim; "full" trains for 2,000 steps."""
    all_seeds = seed_range(seed, seeds)
    steps = 600 if budget == "quick" else 2000
    asr: dict[str, list[float]] = {kind: [] for kind in KINDS}
    weights: list[np.ndarray] = []
    index: dict[tuple[bool, str], list[float]] = {
        (one, kind): [] for one in (False, True) for kind in ("method", "baseline")
    }
    for i, s in enumerate(all_seeds):
        seen, unseen = answers(s)
        for j, kind in enumerate(KINDS):
            progress((i + j / len(KINDS)) / seeds, f"seed {s}: {kind}")
            params = train(jax.random.key(s), jnp.asarray(seen), kind, steps)
            asr[kind].append(success(params, seen, unseen))
            if kind == "method":
                weights.append(np.asarray(jax.nn.softmax(params["profile"]), float))
            if kind in ("method", "baseline"):
                z = pool(unseen, params["profile"])
                for one in (False, True):
                    index[one, kind].append(float(avqi(*z, one_adversarial_cluster=one)))
    progress(1.0, "done")
    mass = tuple(float(w[TELLING].sum()) for w in weights)

    def attacks(name: str, more: str = "") -> Measure:
        method, baseline = asr["method" + more], asr["baseline" + more]
        return Measure(
            name=name,
            method=tuple(method),
            baseline=tuple(baseline),
            accept="mean at most 0.7 times the baseline's",
            holds=float(np.mean(method)) <= 0.7 * float(np.mean(baseline)),
            better="lower",
        )

    def vulnerability(name: str, one: bool) -> Measure:
        method, baseline = index[one, "method"], index[one, "baseline"]
        return Measure(
            name=name,
            method=tuple(method),
            baseline=tuple(baseline),
            accept="mean at most 0.7 times the baseline's",
            holds=float(np.mean(method)) <= 0.7 * float(np.mean(baseline)),
            better="lower",
        )

    measures = (
        attacks("share of successful attacks"),
        attacks("share of successful attacks, jailbreaks in the preference", ", jailbreaks"),
        Measure(
            name="weight on the two layers that tell",
            method=mass,
            accept="mean at least 0.6",
            holds=float(np.mean(mass)) >= 0.6,
        ),
        vulnerability("AVQI with one adversarial cluster", True),
        vulnerability("AVQI", False),
    )
    figure = Figure(
        title="Where GRACE looks",
        x_label="layer",
        y_label="weight",
        lines=(Line("GRACE", tuple(range(1, LAYERS + 1)), tuple(tuple(w) for w in weights)),),
    )
    return Result(PAPER.slug, budget, all_seeds, measures, figure)
