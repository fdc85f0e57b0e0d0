"""Learning-rate schedules."""

from typing import Any

import jax.numpy as jnp
import optax

from ..numerics import accumulation_dtype, check_count, check_range, safe_divide


def cosine_power_annealing(
    init_value: Any,
    decay_steps: int,
    *,
    end_value: Any = 0.0,
    power: Any = 10.0,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """Between cosine and exponential decay: down faster at the start, slower at the end.

        value(t) = end + (init - end) (p^c - 1) / (p - 1),   c = (1 + cos(pi t / T)) / 2

    Power p = 1 is cosine annealing; larger ones are lower everywhere between the ends. After
    `warmup_steps` from 0 to the first value, t counts from there to T = decay_steps - warmup_steps,
    and what follows has the last value.

    Args:
      init_value: the largest value.
      decay_steps: how many steps, those to warm up included.
      end_value: the last value.
      power: p, 1 or more; the authors take 2 for CIFAR-10 and 10 for ImageNet.
      warmup_steps: steps to rise linearly, fewer than `decay_steps`.

    Returns:
      A schedule, from the number of steps so far [] to a value [].

    Raises:
      ValueError: naming the argument that is out of range.

    Source: sharpDARTS: Faster and More Accurate Differentiable Architecture Search,
    arXiv 1903.09900, cosine power annealing; ahundt/sharpDARTS cnn/cosine_power_annealing.py,
    which counts epochs from 1, and stretches what they have of the curve to reach both ends. With
    a warm-up it does not: all but that, which there begins at the last value, is as here.

    >>> schedule = cosine_power_annealing(0.1, 100, power=10.0)
    >>> [round(float(schedule(t)), 4) for t in (0, 50, 100)]
    [0.1, 0.024, 0.0]
    """
    check_range("init_value", init_value, 0)
    check_range("end_value", end_value, 0)
    check_range("power", power, 1)
    check_count(decay_steps=decay_steps)
    check_range("warmup_steps", warmup_steps, 0, decay_steps, open_high=True)

    def schedule(count: Any) -> Any:
        dtype = accumulation_dtype(count)
        t = jnp.asarray(count, dtype)
        warm = safe_divide(t, jnp.asarray(warmup_steps, dtype), fill=1.0)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        c = (1 + jnp.cos(jnp.pi * done)) / 2
        # (p^c - 1) / (p - 1) loses its digits near p = 1, where it is c.
        log_p = jnp.log(jnp.asarray(power, dtype))
        u = safe_divide(jnp.expm1(c * log_p), jnp.expm1(log_p))
        value = end_value + (init_value - end_value) * jnp.where(log_p > 0, u, c)
        return jnp.where(t < warmup_steps, warm * init_value, value)

    return schedule
