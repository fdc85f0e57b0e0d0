"""Steps of small runs, for the tests of the step."""

import functools
import json

import engine
import jax
import jax.numpy as jnp
import numpy as np

from papyrax.train import build, sharding
from papyrax.train import config as C

SGD = C.Optimizer("sgd", 0.1)


@functools.cache
def _built(text):
    config = C.from_json(json.loads(text))
    return build(config, spec=engine.digits())


def built(**changes):
    """A run of `engine.small` with these changes, made once."""
    return _built(str(engine.small(**changes)))


def start(run, seed=0):
    """The state before the first step."""
    return run.init(jax.random.key(seed))


def step(run, state, batch, refresh=False):
    """One step; the state that was given stays usable."""
    kept = jax.tree.map(jnp.copy, state)
    return run.train_step(refresh)(kept, sharding.put(batch, run.mesh))


def close(a, b, rtol=1e-5, atol=1e-6):
    """Every array of one tree near that of the other."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def differs(a, b):
    """Whether any array of one tree is not that of the other."""
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
