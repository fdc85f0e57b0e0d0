"""Losses that rank or weigh the examples of a batch, on eight devices and in chunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax import losses

DEVICES, LOCAL, D = 8, 2, 4
N = DEVICES * LOCAL


def batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    y = x + 0.7 * rng.normal(size=(N, D))
    y[9] = y[2]  # of equal negatives the ring has to choose the one that comes first
    relevant = rng.random((N, N)) < 0.2
    targets = 3 * rng.random((2, N))
    arrays = x, y, rng.integers(0, 4, N).astype(np.int32), relevant, *targets
    return tuple(map(jnp.asarray, arrays))


def ranking(x, y, labels, relevant, targets, guess, **more):
    """Losses that choose among the references, or count others than positives and negatives."""
    conr = functools.partial(losses.conr_loss, x, targets, guess, jnp.exp(targets), window=0.8)
    each = {
        "hard": losses.hard_contrastive_loss(x, y, hard_share=0.3, **more),
        "triplets": losses.hard_negative_triplet_loss(x, y, relevant, negatives=5, **more),
        "conr": conr(temperature=0.4, push=0.3, count_others=True, **more),
    }
    return each, {}


def by_engine(x, y, labels, relevant, targets, guess, **more):
    """The losses that take chunks and the ring, by name: one value an example, or one in all."""
    each, _ = ranking(x, y, labels, relevant, targets, guess, **more)
    state = losses.isogclr_init(N, temperature=0.3)
    each["simple"] = losses.simple_contrastive_loss(x, y, hard_share=0.3, **more)
    index = jnp.arange(len(x))
    each["isogclr"] = losses.isogclr_loss(state, x, y, index, **more)[0]
    each["two towers"] = losses.isogclr_two_tower_loss((state, state), x, y, index, **more)[0]
    each["macl"] = losses.model_aware_contrastive_loss(x, y, **more)
    a, b = (jnp.concatenate([z, z**2], 1) for z in (x, y))
    whole = {
        "cs_divergence": losses.cs_divergence(a, b, **more),
        "conditional": losses.conditional_cs_divergence(a, y, x, **more),
    }
    return each, whole


def gathered(x, y, labels, relevant, targets, guess, **more):
    """Those for which every device holds the embeddings of all."""
    p = jnp.cos(jnp.arange(5 * D, dtype=x.dtype)).reshape(5, D)
    t = 0.5 + 0.1 * jnp.cos(jnp.arange(4 * N, dtype=x.dtype)).reshape(2, 1, 2 * N)
    heads = (jnp.stack([z, jnp.sin(z)]) for z in (x, y))
    cosines = jnp.tanh(x @ p.T)
    out = {
        "relative": losses.relative_penalty(x, y, **more) @ jnp.sin(jnp.arange(N, dtype=x.dtype)),
        "heads": losses.multi_head_contrastive_loss(*heads, t, **more),
        "icnn": losses.icnn_loss(x, labels, neighbours=3, reach=6, **more),
        "madacos": losses.madacos(cosines, labels, others="median", **more),
        "ensloss": losses.ensloss(x[:, 0], labels % 2, jax.random.key(0), **more),
        "ar2": losses.adversarial_retriever_loss(x, y, is_summed=True, **more),
        "mixup": losses.mixup_ranking_loss(x, y, where=labels > 1, masking="batch", **more),
        "correct": losses.correctness_aware_loss(3 * x, labels, balance=True, **more),
        "small": losses.small_loss_mask(x[:, 0], forget_rate=0.4, **more) * x[:, 0],
    }
    _, mean = losses.gaussian_pseudo_negatives(jax.random.key(0), x, jnp.ones(D, x.dtype), **more)
    shared = {
        "adacos": losses.adacos_scale(x, labels, p, **more),
        "mean": mean[0],
        "information": losses.cs_mutual_information(x, y, normalize=True, **more),
    }
    return out, shared


def value_and_grad(run, x, y, rest):
    """All values, and the gradient of a weighted sum of them, in one program."""

    def total(x, y):
        each, whole = run(x, y, *rest)
        out = {**each, **{k: v[None] for k, v in whole.items()}}
        size = {k: jax.lax.stop_gradient(jnp.max(jnp.abs(v))) for k, v in out.items()}
        parts = [
            (1 + i) * jnp.cos(i + jnp.arange(len(v))) @ v / size[k]
            for i, (k, v) in enumerate(sorted(out.items()))
        ]
        return sum(parts), out

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, y)


def agree(got, want):
    (grads, values), (true_grads, true_values) = got, want
    for name, value in true_values.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
    for a, b in zip(grads, true_grads):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))))


def spread(run, **more):
    mesh = jax.make_mesh((DEVICES,), ("data",), (jax.sharding.AxisType.Auto,))
    return jax.shard_map(
        functools.partial(run, axis_name="data", **more),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=(P("data"), P()),
    )


@pytest.mark.parametrize("ring", [False, True], ids=["gathered", "ring"])
def test_devices_share_the_batch(ring):
    with jax.enable_x64(True):
        x, y, *rest = batch()
        got = value_and_grad(spread(by_engine, ring=ring), x, y, rest)
        agree(got, value_and_grad(by_engine, x, y, rest))


def test_chunks():
    with jax.enable_x64(True):
        x, y, *rest = batch()
        got = value_and_grad(functools.partial(ranking, chunk_size=5), x, y, rest)
        agree(got, value_and_grad(ranking, x, y, rest))


def test_devices_gather_the_batch():
    with jax.enable_x64(True):
        x, y, *rest = batch()
        agree(value_and_grad(spread(gathered), x, y, rest), value_and_grad(gathered, x, y, rest))
