"""Metric, contrastive and retrieval losses against their authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded

from papyrax import losses

ENTRIES = recorded("metric")
PLAIN = (
    "unified_negative_pair_loss",
    "unified_negative_pair_loss cosine",
    "spatial_alignment_loss",
    "foreground_background_loss",
    "adversarial_retriever_loss",
    "cross_modal_alignment_loss",
    "icnn_loss",
    "icnn_loss reach",
    "prototype_triplet_loss",
)


@pytest.mark.parametrize("name", PLAIN)
def test_value_and_gradient(name):
    entry = ENTRIES[name]
    loss = getattr(losses, name.split()[0])
    # The authors' maps are [height, width] where ours are [patches].
    maps = name == "foreground_background_loss"

    def mean(**arrays):
        if maps:
            arrays = {k: v.reshape(4, *v.shape[2:]) for k, v in arrays.items()}
        return jnp.mean(loss(**arrays, **entry["static"]))

    compare(entry, mean)


@pytest.mark.parametrize("name", ["posneg", "neg"])
def test_metrix(name):
    """Mixtures of positives, or of anchors without a positive, with negatives."""
    entry = ENTRIES[f"interpolated_contrastive_loss {name}"]
    static = entry["static"]
    anchor, first, second = (np.array(static[k]) for k in ("anchor", "first", "second"))
    share = static["share"]

    def mean(embeddings, labels):
        # The authors' distances are of unit vectors, of mixtures that are unit vectors anew.
        unit = embeddings / jnp.linalg.norm(embeddings, axis=1, keepdims=True)
        mixed = losses.mix_features(embeddings[first], embeddings[second], share)
        mixed = mixed / jnp.linalg.norm(mixed, axis=1, keepdims=True)
        distance = jnp.linalg.norm(unit[anchor] - mixed, axis=1)
        targets = losses.mixed_pair_targets(labels, labels[first], labels[second], share)
        targets = jnp.diagonal(targets[anchor])
        # One anchor of all pairs: "active" is over the batch there.
        return losses.interpolated_contrastive_loss(
            -distance[None], targets[None], margin=-0.5, reduction="active"
        )[0]

    compare(entry, mean)


def test_mutual_matches():
    """How much more alike the matches of an image of another place are than those of this one."""
    entry = ENTRIES["mutual_matches"]

    def likeness(x, y):
        matches = losses.mutual_matches(x, y)
        return jnp.sum(matches.similarity * matches.is_match) / jnp.sum(matches.is_match)

    def hinge(anchor, positive, negative):
        return jax.nn.relu(likeness(anchor, negative) - likeness(anchor, positive))

    compare(entry, hinge)
    x, y, z = (np.array(entry["arrays"][k]) for k in ("anchor", "positive", "negative"))
    count = jax.jit(lambda x, y: jnp.sum(losses.mutual_matches(x, y).is_match))
    counts = [int(count(x, other)) for other in (y, z)]
    assert counts == entry["scores"]


def test_correspondences():
    entry = ENTRIES["correspondence_loss"]
    features, (p, q) = map(np.array, (entry["features"], entry["probabilities"]))
    region = np.array(entry["mask"]) > 0.1
    region[np.argmax(region)] = False  # the authors leave out the first patch of the region
    # A patch may match those that are in its likeliest cluster, with more than a tenth.
    where = region[:, None] & (q[np.argmax(p, 0)] > 0.1)
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, features)
        # Nor do they match where the next candidate has a negative cosine.
        u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in features)
        cosines = np.where(where, u @ v.T, -1)
        where &= np.sort(cosines, 1)[:, -2:-1] > 0
        matches = jax.jit(losses.reliable_matches)(x, y, where)
        found = np.flatnonzero(matches.is_match)
        got = [[i, int(matches.partner[i]), float(matches.similarity[i])] for i in found]
        np.testing.assert_allclose(got, entry["triplets"], rtol=1e-10)
        compare(entry, lambda first, second: losses.correspondence_loss(first, second, matches))


def test_decoupled_softmax():
    entry = ENTRIES["decoupled_softmax_loss"]
    positive = np.array(entry["positive"])
    masks = losses.PairMasks(positive, ~positive)
    compare(
        entry,
        lambda queries, keys: jnp.mean(
            losses.decoupled_softmax_loss(queries, keys, masks, **entry["static"])
        ),
    )


@pytest.mark.parametrize(
    "name",
    [
        "isogclr_loss",
        "isogclr_loss libauc",
        "isogclr_loss one_temperature",
        "isogclr_two_tower_loss",
    ],
)
def test_isogclr(name):
    """Three steps: losses, gradients and what the state holds after each."""
    entry = ENTRIES[name]
    apply = getattr(losses, name.split()[0])
    halves = name == "isogclr_two_tower_loss"
    static = {**entry["static"], "temperature_range": tuple(entry["static"]["temperature_range"])}

    @jax.jit
    def step(state, view1, view2, index):
        # Their losses are sums over the two views of an example, ours means; those of two towers
        # are means over the two, but sums over the other examples.
        factor = len(index) - 1 if halves else 2

        def loss(view1, view2):
            values, new = apply(state, view1, view2, index, **static)
            return factor * jnp.mean(values), new

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(view1, view2)

    with jax.enable_x64(True):
        state = losses.isogclr_init(9, temperature=entry["temperature"])
        state = jax.tree.map(lambda x: x.astype(jnp.float64), state)
        state = state._replace(temperature=jnp.full(9, entry["temperature"]))
        state = (state, state) if halves else state
        for want in entry["steps"]:
            arrays = {k: jnp.asarray(np.array(v)) for k, v in want["arrays"].items()}
            (value, state), gradient = step(state, **arrays)
            np.testing.assert_allclose(value, want["value"], rtol=1e-10)
            for got, name in zip(gradient, ("view1", "view2")):
                np.testing.assert_allclose(got, want["gradient"][name], rtol=1e-10, atol=1e-12)
            flat = jax.tree.map(lambda *x: jnp.concatenate(x), *(state if halves else (state,)))
            got = flat._asdict() | {"mean": jnp.exp(flat.log_mean)}
            for name, values in want["state"].items():
                np.testing.assert_allclose(got[name], values, rtol=1e-10, atol=1e-14, err_msg=name)


def test_energy_confusion():
    """The logarithm over drawn pairs, those of one class and the others each weighted to one."""
    entry = ENTRIES["energy_confusion_loss"]
    labels = np.array(entry["labels"])
    drawn = np.zeros((len(labels), len(labels)), bool)
    drawn[tuple(np.transpose(entry["pairs"]))] = True
    same = labels[:, None] == labels[None]
    every = np.triu(np.ones_like(same), 1)

    def logarithm(embeddings):
        energy = 0.0
        for kind in (same, ~same):
            masks = losses.PairMasks(np.zeros_like(drawn), drawn & kind)
            mean = losses.energy_confusion_loss(embeddings, masks, logarithm=False)[0]
            # They halve the squared distance and divide by the number of all pairs of the kind.
            energy += mean / 2 * (drawn & kind).sum() / (every & kind).sum()
        return jnp.log(energy)

    compare(entry, logarithm)
