"""HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction.

The problem. Attention sees the full context, at a quadratic cost; convolutions of large kernels see
it too, with many parameters and weights that do not depend on the input.

The idea. A slow network of the coordinates (MAGNet, a product of sines) makes a kernel W as large
as the image. Multiplied elementwise by the activations Z it depends on the context, and the product
acts on Z again:

    out_c = (Z_c * W_c) f(Z)_c      global: a matrix product a channel
    out_c = conv(Z_c, W_c)          local: a convolution a channel
    gate  = sigmoid(Z * W * Z)      two elementwise products, for channels and positions

No softmax, no residual connections, and as many parameters as the slow network has.

What the authors measured. Pixel-level sequential and two-dimensional image classification with
their network Terminator: better accuracy than convolutional and state-space models, fewer
parameters, and convergence in fewer epochs.

What is measured here. On the 8 x 8 digits, a network of one block with a global and a local
branch, instance standardization and no residual, against one with a residual 3 x 3 convolution and
as many parameters, trained alike, both with a linear head on the means of the quarters; and that
standardized features have mean zero.

What is left out. Four local branches, kernels that pooled activations modulate (one for a whole
batch, so an image's result would depend on the others). The slow-feedback loss needs several
blocks, of which there is one here; it, the recursive gated unit and the sign-momentum optimizer Kar
are in the library and are not measured. Nothing is said about large images.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from papyrax.attention import (
    hyper_zzw_elementwise,
    hyper_zzw_global,
    hyper_zzw_local,
    instance_standardize,
)
from papyrax.layers import MAGNet
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
    toys,
)

PAPER = Paper(
    slug="hyperzzw",
    title="HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction",
    authors="H. Zhang",
    year=2024,
    arxiv="2401.17948",
    area="attention",
    idea=(
        "A network of coordinates makes kernels as large as the image; multiplied by the "
        "activations they depend on the context, and the product acts on the activations."
    ),
    formula=(
        "out_c = (Z_c * W_c) f(Z)_c,  W = MAGNet(coordinates)\n"
        "MAGNet: h_0 = sin(F_0 c), h_i = sin(F_i c) * (A_i h_{i-1}) + P, W = A_out h"
    ),
    parts=(
        "papyrax.attention.hyper_zzw_global",
        "papyrax.attention.hyper_zzw_local",
        "papyrax.attention.hyper_zzw_elementwise",
        "papyrax.attention.instance_standardize",
        "papyrax.layers.MAGNet",
        "papyrax.layers.RecursiveGatedUnit",
        "papyrax.losses.slow_feedback_loss",
        "papyrax.optim.kar",
    ),
    claim=Claim(
        text=(
            "Context-dependent kernels of full size, without residuals, classify images pixel by "
            "pixel as well as convolutions with as many parameters."
        ),
        setup=(
            "8 x 8 digits, 1000 in training, 16 channels, one block of a global and a local "
            "branch, against a residual 3 x 3 convolution of 16 channels; Adam at 0.01 with "
            "cosine decay, 12 epochs of batches of 50 for both."
        ),
        accept=(
            "Test accuracy >= 0.93 and >= convolutions - 0.02 on every seed, with at most as many "
            "parameters. Mean of standardized features <= 1e-4 in size."
        ),
        method="HyperZZW",
        baseline="residual convolution",
    ),
    code="hyperevolnet/Terminator",
)

CHANNELS, HIDDEN, EPOCHS, BATCH, TRAIN, RATE = 16, 8, 12, 50, 1000, 1e-2


def quarters(x: Float[Array, "B H W C"]) -> Float[Array, "B 4*C"]:
    """Means over the quarters of each image."""
    b, h, w, c = x.shape
    return jnp.mean(x.reshape(b, 2, h // 2, 2, w // 2, c), axis=(2, 4)).reshape(b, 4 * c)


class Block(nnx.Module):
    """A global and a local branch, gated channels, and a mix of all."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.slow = MAGNet((size, size), CHANNELS, hidden=HIDDEN, layers=2, rngs=rngs)
        self.local = MAGNet((3, 3), CHANNELS, hidden=HIDDEN, layers=2, rngs=rngs)
        self.channels = MAGNet((CHANNELS,), 1, hidden=8, layers=1, rngs=rngs)
        self.mix = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)
        self.out = nnx.Linear(4 * CHANNELS, CHANNELS, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """The features [batch, height, width, channels] of the next block."""
        mixed = instance_standardize(self.mix(x))
        wide = hyper_zzw_global(x, self.slow()[None], mixed)
        near = jax.nn.gelu(instance_standardize(hyper_zzw_local(mixed, self.local())))
        means = jnp.mean(x, axis=(1, 2), keepdims=True)
        gate = jax.nn.sigmoid(hyper_zzw_elementwise(means, self.channels()[:, 0]))
        every = [wide, jax.nn.sigmoid(wide) * wide, near, gate * x]
        return self.out(jnp.concatenate(every, axis=-1))


class Hyper(nnx.Module):
    """A block between an embedding of pixels and a linear head of means over quarters."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = nnx.Linear(1, CHANNELS, rngs=rngs)
        self.block = Block(8, rngs=rngs)
        self.head = nnx.Linear(4 * CHANNELS, 10, rngs=rngs)

    def __call__(self, images: Float[Array, "B 8 8"]) -> Float[Array, "B 10"]:
        """Logits."""
        x = self.block(self.embed(images[..., None]))
        return self.head(quarters(jax.nn.gelu(x)))


class Convolutions(nnx.Module):
    """The baseline: the same ends around a residual convolution."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = nnx.Linear(1, CHANNELS, rngs=rngs)
        self.layer = nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4 * CHANNELS, 10, rngs=rngs)

    def __call__(self, images: Float[Array, "B 8 8"]) -> Float[Array, "B 10"]:
        """Logits."""
        x = self.embed(images[..., None])
        x = x + jax.nn.gelu(self.layer(x))
        return self.head(quarters(x))


def parameters(make: Callable[..., nnx.Module]) -> int:
    """How many numbers a module trains."""
    state = nnx.eval_shape(lambda: nnx.state(make(rngs=nnx.Rngs(0)), nnx.Param))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state))


def train(
    make: Callable[..., Any], seeds: tuple[int, ...], epochs: int
) -> Float[np.ndarray, "seeds epochs"]:
    """Test accuracy after every epoch."""
    images, labels = toys.digits()
    x, y = jnp.asarray(2 * images.reshape(-1, 8, 8) - 1), jnp.asarray(labels)
    tx = optax.adam(optax.cosine_decay_schedule(RATE, epochs * (TRAIN // BATCH)))
    graph, _ = nnx.split(make(rngs=nnx.Rngs(0)))

    def loss(params: Any, ids: Array) -> Array:
        out = nnx.merge(graph, params)(x[ids])
        return optax.softmax_cross_entropy_with_integer_labels(out, y[ids]).mean()

    # A step a call and not a scan, in whose body the CPU would use one core.
    @jax.jit
    def step(params: Any, state: Any, ids: Array) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, ids), state)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def accuracy(params: Any, ids: Array) -> Array:
        return jnp.mean(nnx.merge(graph, params)(x[ids]).argmax(-1) == y[ids])

    curves = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        params = nnx.state(make(rngs=nnx.Rngs(seed)))
        state, curve = tx.init(params), []
        for _ in range(epochs):
            for ids in rng.permutation(order[:TRAIN]).reshape(-1, BATCH):
                params, state = step(params, state, ids)
            curve.append(float(accuracy(params, order[TRAIN:])))
        curves.append(curve)
    return np.asarray(curves)


def reproduce(
    budget: Budget = "quick", seed: int = 0, *, seeds: int = 3, progress: Progress = silent
) -> Result:
    """Measure the claim on `seeds` seeds; "full" trains four times as long."""
    all_seeds, epochs = seed_range(seed, seeds), EPOCHS * (4 if budget == "full" else 1)
    progress(0.0, "HyperZZW, all seeds")
    ours = train(Hyper, all_seeds, epochs)
    progress(0.5, "residual convolution, all seeds")
    theirs = train(Convolutions, all_seeds, epochs)
    images = toys.digits()[0][:100].reshape(100, 8, 8, 1)
    means = []
    for s in all_seeds:
        weights = np.random.default_rng(s).normal(size=(1, CHANNELS)).astype(np.float32)
        features = instance_standardize(jnp.asarray(images @ weights))
        means.append(float(jnp.max(jnp.abs(jnp.mean(features, axis=(1, 2))))))
    progress(1.0, "done")
    return _result(budget, all_seeds, ours, theirs, means)


def _result(
    budget: Budget,
    seeds: tuple[int, ...],
    ours: Float[np.ndarray, "seeds epochs"],
    theirs: Float[np.ndarray, "seeds epochs"],
    means: list[float],
) -> Result:
    sizes = parameters(Hyper), parameters(Convolutions)
    last, other = ours[:, -1], theirs[:, -1]
    measures = (
        Measure(
            name="test accuracy on digits",
            method=tuple(last),
            baseline=tuple(other),
            accept="HyperZZW >= 0.93 and >= convolutions - 0.02 on every seed, with no more "
            "parameters",
            holds=bool(
                sizes[0] <= sizes[1] and np.all(last >= 0.93) and np.all(last >= other - 0.02)
            ),
        ),
        Measure(
            name="largest mean of a standardized channel",
            method=tuple(means),
            accept="<= 1e-4 on every seed",
            holds=max(means) <= 1e-4,
            better="lower",
        ),
    )

    def epochs_to(curves: np.ndarray) -> str:
        reached = [int(np.argmax(c >= 0.9)) + 1 if c.max() >= 0.9 else 0 for c in curves]
        return ", ".join(str(n) if n else "never" for n in reached)

    x = tuple(float(i + 1) for i in range(ours.shape[1]))
    lines = tuple(
        Line(name, x, tuple(map(tuple, curves)))
        for name, curves in ((PAPER.claim.method, ours), (PAPER.claim.baseline, theirs))
    )
    return Result(
        slug=PAPER.slug,
        budget=budget,
        seeds=seeds,
        measures=measures,
        figure=Figure("Digits, pixel by pixel", "epochs", "test accuracy", lines),
        notes=(
            f"Parameters: {sizes[0]} and {sizes[1]}. Epochs until 90 %: {epochs_to(ours)} "
            f"(HyperZZW); {epochs_to(theirs)} (convolutions)."
        ),
    )
