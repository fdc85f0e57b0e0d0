"""Residual networks."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from papyrax.numerics import check
from papyrax.train.models.shared import check_image


class _Norm(nnx.Module):
    """Group normalization, or batch normalization whose running moments are model state."""

    def __init__(self, kind: str, channels: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        check(kind in ("group", "batch"), "norm", f"got {kind!r}, takes 'group' or 'batch'")
        self.kind = kind
        if kind == "group":
            groups = int(np.gcd(channels, max(channels // 4, 1)))
            self.norm: Any = nnx.GroupNorm(channels, groups, dtype=dtype, rngs=rngs)
        else:
            self.norm = nnx.BatchNorm(channels, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, train: bool) -> Array:
        if self.kind == "batch":
            return self.norm(x, use_running_average=not train)
        return self.norm(x)


class _Residual(nnx.Module):
    """Two 3x3 convolutions around a shortcut, normalized before each."""

    def __init__(
        self, into: int, out: int, stride: int, norm: str, *, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        conv = {"use_bias": False, "kernel_init": nnx.initializers.he_normal(), "dtype": dtype}
        self.norm1 = _Norm(norm, into, dtype=dtype, rngs=rngs)
        self.conv1 = nnx.Conv(into, out, (3, 3), stride, rngs=rngs, **conv)
        self.norm2 = _Norm(norm, out, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(out, out, (3, 3), rngs=rngs, **conv)
        self.project = (
            nnx.Conv(into, out, (1, 1), stride, rngs=rngs, **conv)
            if stride != 1 or into != out
            else None
        )

    def __call__(self, x: Array, train: bool) -> Array:
        h = nnx.relu(self.norm1(x, train))
        shortcut = x if self.project is None else self.project(h)
        h = self.conv1(h)
        h = self.conv2(nnx.relu(self.norm2(h, train)))
        return shortcut + h


class ResNet(nnx.Module):
    """A residual network with normalization before the convolutions.

    Args:
      shape: [height, width, channels] of one image.
      classes: number of outputs.
      widths: channels of each stage; every stage but the first halves the resolution.
      blocks: residual blocks of each stage.
      norm: "group", or "batch", whose running moments are kept as model state.
      stem: "small", a 3x3 convolution, or "large", 7x7 of stride 2 and a max-pool, for ImageNet.
      dtype: dtype of the computation.
      rngs: draws the parameters.

    Source: Identity Mappings in Deep Residual Networks, arXiv 1603.05027.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        blocks: Sequence[int] = (2, 2, 2),
        norm: Literal["group", "batch"] = "group",
        stem: Literal["small", "large"] = "small",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_image(shape)
        check(len(blocks) == len(widths), "blocks", f"got {blocks}, takes one number a width")
        check(stem in ("small", "large"), "stem", f"got {stem!r}, takes 'small' or 'large'")
        kernel, stride = ((3, 3), 1) if stem == "small" else ((7, 7), 2)
        self.stem = nnx.Conv(
            shape[-1], widths[0], kernel, stride, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.pool = stem == "large"
        stages = []
        into = widths[0]
        for stage, (width, number) in enumerate(zip(widths, blocks)):
            for block in range(number):
                step = 2 if stage > 0 and block == 0 else 1
                stages.append(_Residual(into, width, step, norm, dtype=dtype, rngs=rngs))
                into = width
        self.blocks = nnx.List(stages)
        self.norm = _Norm(norm, into, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(into, classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "B H W C"], *, train: bool = False, key: Any = None
    ) -> Float[Array, "B K"]:
        """Logits [batch, classes] of images [batch, height, width, channels]."""
        x = self.stem(inputs)
        if self.pool:
            x = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x, train)
        return self.head(nnx.relu(self.norm(x, train)).mean((1, 2)))
