"""Declarations for softmax attention in `papyrax.attention`."""

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from contracts.case import Bad, Case


def qkv(rng):
    return {
        "query": rng.normal(size=(2, 5, 4, 4)),
        "key": rng.normal(size=(2, 6, 2, 4)),
        "value": rng.normal(size=(2, 6, 2, 3)),
    }


def masked(rng):
    return {
        **qkv(rng),
        "bias": rng.normal(size=(1, 4, 5, 6)),
        "mask": rng.random((2, 1, 5, 6)) > 0.4,
    }


def packed(rng):
    return {
        **qkv(rng),
        "sinks": rng.normal(size=4),
        "query_seq_lengths": np.array([4, 5], np.int32),
        "key_value_seq_lengths": np.array([5, 0], np.int32),
        "query_segment_ids": np.array([[0, 0, 1, 1, 2], [0, 1, 1, 1, 3]], np.int32),
        "key_value_segment_ids": np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 2, 2, 3]], np.int32),
    }


def on_a_ring(fn, query, key, value, bias, mask, sinks, **kwargs):
    """Tokens split over two devices, the bias by queries and the mask by keys."""
    spec = PartitionSpec(None, "seq")
    pairs = PartitionSpec(None, None, "seq"), PartitionSpec(None, None, None, "seq")
    return jax.shard_map(
        lambda *x: fn(*x[:5], sinks=x[5], axis_name="seq", **kwargs),
        mesh=Mesh(np.array(jax.devices()[:2]), ("seq",)),
        in_specs=(spec, spec, spec, *pairs, PartitionSpec()),
        out_specs=spec,
    )(query, key, value, bias, mask, sinks)


def sequences(rng):
    return {
        "query": rng.normal(size=(2, 4, 4, 4)),
        "key": rng.normal(size=(2, 6, 2, 4)),
        "value": rng.normal(size=(2, 6, 2, 3)),
        "bias": rng.normal(size=(1, 4, 4, 6)),
        "mask": rng.random((2, 1, 1, 6)) > 0.3,
        "sinks": rng.normal(size=4),
    }


NAME = "papyrax.attention.dot_product_attention"
ALL = ("query", "key", "value")
BAD = (
    Bad("query", {"query": np.ones((5, 4))}),
    Bad("query", {"query": np.ones((2, 5, 4, 4), np.int32)}),
    Bad("key", {"key": np.ones((2, 6, 3, 4))}),
    Bad("key", {"key": np.ones((2, 6, 2, 3))}),
    Bad("value", {"value": np.ones((2, 5, 2, 3))}),
    Bad("bias", {"bias": np.ones((2, 3, 5, 6))}),
    Bad("bias", {"bias": np.ones((2, 4, 5, 6), bool)}),
    Bad("mask", {"mask": np.ones((2, 4, 5, 6), np.float64)}),
    Bad("mask", {"mask": np.ones((2, 4, 6, 5), bool)}),
    Bad("scale", {"scale": np.ones(3)}),
    Bad("query_seq_lengths", {"query_seq_lengths": np.ones(3, np.int32)}),
    Bad("key_value_seq_lengths", {"key_value_seq_lengths": np.ones(2)}),
    Bad("local_window_size", {"local_window_size": (1, 2, 3)}),
    Bad("local_window_size", {"local_window_size": -1}),
    Bad("key_value_segment_ids", {"query_segment_ids": np.ones((2, 5), np.int32)}),
    Bad("query_segment_ids", {"key_value_segment_ids": np.ones((2, 6), np.int32)}),
    Bad("logits_soft_cap", {"logits_soft_cap": 0.0}),
    Bad("sinks", {"sinks": np.ones(3)}),
    Bad("dropout_rate", {"dropout_rate": 1.0}),
    Bad("dropout_rng", {"dropout_rate": 0.5}),
    Bad("tiles", {"tiles": (64,)}),
    Bad("tiles", {"tiles": (64, 0)}),
    Bad("tiles", {"tiles": 64}),
    Bad("tiles", {"tiles": (8, 8), "implementation": "xla"}),
    Bad("implementation", {"implementation": "cudnn"}),
)

CASES = [
    Case(NAME, masked, (*ALL, "bias"), rows_in=(*ALL, "mask"), bad=BAD),
    Case(
        NAME,
        qkv,
        ALL,
        {"is_causal": True, "logits_soft_cap": 2.0, "return_lse": True},
        "lse",
        keeps_dtype=False,
    ),
    Case(NAME, packed, (*ALL, "sinks"), {"local_window_size": (2, 1)}, "packed", rows=None),
    Case(
        "papyrax.attention.ring_attention",
        sequences,
        (*ALL, "bias", "sinks"),
        {"is_causal": True},
        call=on_a_ring,
        rows_in=(*ALL, "mask"),
        bad=(
            Bad("bias", {"bias": np.ones((1, 4, 4, 4))}),
            Bad("bias", {"bias": np.ones((2, 4, 4, 6), np.int32)}),
            Bad("mask", {"mask": np.ones((2, 1, 1, 6))}),
            Bad("mask", {"mask": np.ones((2, 3, 1, 6), bool)}),
            Bad("dropout_rate", {"dropout_rate": -0.1}),
            Bad("dropout_rng", {"dropout_rate": 0.5}),
            Bad("tiles", {"tiles": (0, 4)}),
            Bad("query", {"query": np.ones((2, 4, 4, 4), np.int32)}),
            Bad("key", {"key": np.ones((2, 6, 3, 4))}),
            Bad("value", {"value": np.ones((2, 4, 2, 3))}),
            Bad("scale", {"scale": np.ones(3)}),
            Bad("query_seq_lengths", {"query_seq_lengths": np.ones(3, np.int32)}),
            Bad("key_value_seq_lengths", {"key_value_seq_lengths": np.ones(2)}),
            Bad("local_window_size", {"local_window_size": -1}),
            Bad("logits_soft_cap", {"logits_soft_cap": 0.0}),
            Bad("sinks", {"sinks": np.ones(3)}),
            Bad("implementation", {"implementation": "cudnn"}),
        ),
    ),
]
