"""Properties of losses: looked for in float64 on sampled scores of three classes, or two."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from .entries import Choice, Regression

DISTRIBUTIONS = {
    2: ((0.7, 0.3), (0.55, 0.45), (0.1, 0.9)),
    3: ((0.5, 0.3, 0.2), (0.45, 0.35, 0.2), (0.8, 0.15, 0.05), (0.4, 0.3, 0.3), (0.2, 0.36, 0.44)),
}
OUTCOMES, CHANCES = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.35, 0.25, 0.2, 0.2])
UNKNOWN = "–"


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
