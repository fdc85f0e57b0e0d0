"""Declarations for spherical losses over a linear layer, in chunks and in factors."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from contracts.losses_linear_softmax import BAD_LAYER, layer, with_bias
from papyrax.losses import (
    factored_layer_init,
    spherical_softmax_of_moments,
    taylor_softmax_of_moments,
)


def moments(rng):
    return {
        "mean": rng.normal(size=5),
        "variance": rng.uniform(0.5, 2, size=5),
        "label": rng.normal(size=5),
    }


def member(name, *bad, **kwargs):
    return Case(
        f"papyrax.losses.{name}",
        moments,
        ("mean", "variance", "label"),
        {"classes": 7, **kwargs},
        skip_extremes=dict.fromkeys(
            ("-1e4", "alternating +-1e4", "example times 1e4"), "variances are not negative"
        ),
        extremes=lambda a: {
            "logits of 1e4": {k: 1e4 ** (1 + (k == "variance")) * x for k, x in a.items()}
        },
        bad=(
            Bad("mean: got dtype", {"mean": np.zeros(5, np.int32)}),
            Bad("variance: got shape", {"variance": np.zeros(4)}),
            Bad("label: got shape", {"label": np.zeros(4)}),
            Bad("classes: got", {"classes": 0}),
            *bad,
        ),
    )


def over_a_layer(arrays, label, **settings):
    return Case(
        "papyrax.losses.linear_spherical_loss",
        arrays,
        tuple(k for k in arrays(np.random.default_rng(0)) if k != "labels"),
        settings,
        label=label,
        rows_in=("hidden", "labels"),
        bad=(*BAD_LAYER, Bad("loss: got", {"loss": "z_loss"})),
    )


def step(fn, kernel, hidden, labels, **settings):
    return fn(settings.pop("state", factored_layer_init(kernel)), hidden, labels, **settings)


def of_state(fn, kernel, **settings):
    return fn(settings.pop("state", factored_layer_init(kernel)), **settings)


def weights(rng):
    return {"kernel": rng.normal(size=(3, 7))}


def factored(name, call=of_state, **kwargs):
    return Case(
        f"papyrax.losses.{name}",
        weights,
        call=call,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        **kwargs,
    )


NO_STATE = (Bad("state: got", {"state": jnp.zeros((7, 3))}),)
CASES = [
    member("z_loss_of_moments", Bad("sharpness: got", {"sharpness": 0.0}), threshold=1.0),
    member("taylor_softmax_of_moments"),
    member("spherical_softmax_of_moments", Bad("eps: got", {"eps": 0.0})),
    member("squared_error_of_moments"),
    over_a_layer(layer, "Z", chunk_size=3),
    over_a_layer(with_bias, "Taylor, bias", loss=taylor_softmax_of_moments),
    over_a_layer(layer, "spherical", loss=spherical_softmax_of_moments, chunk_size=4),
    factored(
        "factored_layer_init",
        call=None,
        bad=(
            Bad("kernel: got dtype", {"kernel": np.zeros((3, 7), np.int32)}),
            Bad("kernel: got shape", {"kernel": np.zeros(3)}),
            Bad("kernel: got no classes", {"kernel": np.zeros((3, 0))}),
        ),
    ),
    factored("factored_layer_kernel", bad=NO_STATE),
    factored("factored_layer_condition", bad=NO_STATE),
    factored("factored_layer_refresh", bad=NO_STATE),
    Case(
        "papyrax.losses.factored_spherical_step",
        layer,
        static={"learning_rate": 0.1},
        call=step,
        rows_in=("hidden", "labels"),
        differentiable=False,
        keeps_dtype=False,
        bad=(
            *NO_STATE,
            Bad("hidden: got dtype", {"hidden": np.zeros((4, 3), np.int32)}),
            Bad("hidden: got shape", {"hidden": np.zeros((4, 2))}),
            Bad("labels: got dtype", {"labels": np.zeros(4)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("loss: got", {"loss": "z_loss"}),
        ),
    ),
]
