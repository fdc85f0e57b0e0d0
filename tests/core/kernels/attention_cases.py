"""Inputs on which implementations of attention are compared with the dense float64 reference."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from composition import relative_error

from papyrax.kernels.flash_attention import Config, Inputs, Masks, attention
from papyrax.kernels.flash_attention.reference import forward as reference

# Compiled once and run once on small arrays: compiling is what takes time.
FAST = {"xla_backend_optimization_level": 0}
LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}


@dataclasses.dataclass(frozen=True)
class Scene:
    """Shapes (batch, key heads, group, queries, keys, dim, value dim) and options."""

    shape: tuple[int, ...] = (2, 2, 2, 13, 17, 5, 7)
    bias: tuple[int, ...] | None = None
    mask: tuple[int, ...] | None = None
    masks: dict[str, Any] = dataclasses.field(default_factory=dict)
    blocks: tuple[int, int] = (8, 8)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def config(self, implementation: str) -> Config:
        blocks = None if implementation == "xla" else self.blocks
        options = {"scale": 0.37, "blocks": blocks, "implementation": implementation}
        return Config(**(options | self.options))

    def draw(self, dtype: Any) -> tuple[Inputs, Masks, Inputs, Inputs, Any, Any]:
        """x, masks, two tangents of x, a cotangent (out, logsum) and its tangent; in float64."""
        rng = np.random.default_rng(self.seed)
        b, k, g, t, s, h, e = self.shape

        def normal(*shape: int) -> Any:
            # Rounded to `dtype`, so that all dtypes start from the same numbers.
            return jnp.asarray(rng.standard_normal(shape), dtype)

        def inputs() -> Inputs:
            bias = None if self.bias is None else normal(*self.bias)
            return Inputs(normal(b, k, g, t, h), normal(b, k, s, h), normal(b, k, s, e), bias)

        def cotangent() -> Any:
            logsum = jnp.promote_types(dtype, jnp.float32)
            return normal(b, k, g, t, e), normal(b, k, g, t).astype(logsum)

        masks = {n: jnp.asarray(m) for n, m in self.masks.items()}
        if self.mask is not None:
            mask = rng.random(self.mask) < 0.4
            mask.reshape(-1, *self.mask[-2:])[0, 0] = False  # a row that sees nothing
            masks["mask"] = jnp.asarray(mask)
        return inputs(), Masks(**masks), inputs(), inputs(), cotangent(), cotangent()


def i32(*x: Any) -> np.ndarray:
    return np.asarray(x, np.int32)


SEGMENTS = {
    "query_segments": i32([0] * 5 + [1] * 8, [0] * 3 + [1] * 3 + [4] * 7),
    "key_segments": i32([0] * 9 + [1] * 8, [0] * 2 + [1] * 13 + [2] * 2),
}
LENGTHS = {"query_lengths": i32(5, 13), "key_lengths": i32(0, 11)}
SCENES = {
    "plain": Scene(),
    "one tile": Scene(blocks=(128, 128), bias=(2, 2, 2, 13, 17)),
    "causal, more keys": Scene(options={"causal": True}, bias=(1, 2, 2, 1, 17)),
    "causal, more queries": Scene((1, 1, 3, 21, 9, 4, 4), options={"causal": True}),
    "window": Scene(options={"window": (5, 2)}, bias=(2, 1, 1, 13, 17)),
    "left window, causal": Scene(options={"window": (3, None), "causal": True}),
    "cap": Scene(options={"cap": 1.5, "causal": True}, bias=(1, 1, 1, 13, 17)),
    "lengths": Scene(masks=LENGTHS, bias=(2, 1, 1, 1, 17)),
    "segments": Scene(masks=SEGMENTS, options={"causal": True}),
    "mask": Scene(mask=(2, 1, 1, 13, 17)),
    "mask of heads": Scene(mask=(1, 2, 2, 13, 17), bias=(1, 2, 2, 13, 1)),
    "offset": Scene(options={"causal": True}, masks={"offset": np.int32(-4)}),
    "dropout": Scene(
        options={"dropout": 0.3},
        masks={"seed": i32(7, 11), "origin": i32(3, 50)},
        bias=(1, 1, 1, 1, 17),
    ),
    "one query": Scene((2, 2, 1, 1, 9, 3, 2), bias=(2, 2, 1, 1, 9)),
    "one key": Scene((1, 1, 1, 9, 1, 3, 2)),
}


def kernels(forward: Any, second_tangent: bool = True) -> Any:
    """`run(x, x', x*, g, g')`: what F, J, B, H and K give through JAX's transformations."""

    def parts(x: Inputs) -> Any:
        y = forward(x)
        return y.out, y.logsum

    def pull(x: Inputs, g: Any) -> Inputs:
        return jax.vjp(parts, x)[1](g)[0]

    def run(x: Inputs, x_dot: Inputs, x_star: Inputs, g: Any, g_dot: Any) -> dict[str, Any]:
        out, logsum = parts(x)
        found = {"out": out, "logsum": jnp.where(logsum == -jnp.inf, 0, logsum)}
        found["J"] = jax.jvp(parts, (x,), (x_dot,))[1]
        found["B"], found["H"] = jax.jvp(pull, (x, g), (x_dot, g_dot))
        if second_tangent:
            push = lambda x: jax.jvp(parts, (x,), (x_star,))[1]  # noqa: E731
            found["K"] = jax.jvp(push, (x,), (x_dot,))[1]
        return found

    return run


def expected(scene: Scene, dtype: Any, second_tangent: bool) -> dict[str, Any]:
    """What the dense reference gives in float64, with the inputs rounded to `dtype`."""
    x, masks, *rest = scene.draw(dtype)
    plain = dataclasses.replace(scene.config("xla"), implementation=None)
    run = kernels(lambda x: reference(x, masks, config=plain), second_tangent)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (x, *rest))
    return jax.jit(run, compiler_options=FAST)(*wide)


@functools.cache
def expected_of(name: str, dtype: str, second_tangent: bool) -> dict[str, Any]:
    """The same for a scene of `SCENES`, which several implementations are compared with."""
    return expected(SCENES[name], dtype, second_tangent)


def check(
    scene: str | Scene,
    implementation: str,
    dtype: str,
    second_tangent: bool = False,
    limit: float | None = None,
) -> None:
    """Assert that every kernel is within the limit of its dtype of the reference in float64."""
    with jax.enable_x64(True):
        look_up = expected_of if isinstance(scene, str) else expected
        want = look_up(scene, dtype, second_tangent)
        scene = SCENES[scene] if isinstance(scene, str) else scene
        x, masks, *rest = scene.draw(dtype)
        config = scene.config(implementation)
        run = kernels(lambda x: attention(x, masks, config), second_tangent)
        got = jax.jit(run, compiler_options=FAST)(x, *rest)
        for name in want:
            for leaf, ideal in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name])):
                assert bool(jnp.isfinite(leaf).all()), f"{name} is not finite"
                # What vanishes in exact arithmetic is compared with what was summed.
                floor = max(float(jnp.linalg.norm(jnp.ravel(w))) for w in jax.tree.leaves(want))
                error = relative_error(leaf, ideal, floor=1e-3 * floor)
                assert error < (limit or LIMITS[dtype]), f"{name}: {error}"
