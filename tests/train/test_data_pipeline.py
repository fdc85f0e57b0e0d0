"""Batches by position: order, shards, epochs, states, masks and randomness."""

import concurrent.futures
import functools
import hashlib
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.train import data
from papyrax.train.data import pipeline as pipeline_lib
from papyrax.train.errors import UserError


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return functools.partial(data.load, data_dir=tmp_path_factory.mktemp("data"))


def ids(batches) -> list[np.ndarray]:
    """What tells the examples of wine apart: their first standardised number and all others."""
    return [row.tobytes() for batch in batches for row in batch["inputs"]]


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def take(pipeline, count):
    return [next(pipeline) for _ in range(count)]


def test_an_epoch_gives_every_example_once_in_another_order_than_the_next(load):
    pipeline = load("wine", batch_size=71)
    assert pipeline.batches_per_epoch == 2
    first, second = ids(take(pipeline, 2)), ids(take(pipeline, 2))
    assert len(set(first)) == 142
    assert set(first) == set(second)
    assert first != second
    in_order = ids(load("wine", batch_size=71, shuffle=False, epochs=1))
    assert set(in_order) == set(first)
    assert in_order != first


def test_the_order_is_drawn_from_the_seed_and_the_epoch(load):
    orders = [ids(load("wine", batch_size=71, seed=seed, epochs=2)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    # Neither another seed nor a later epoch repeats an order, not even across the two.
    epochs = [tuple(o[half]) for o in orders[1:] for half in (slice(0, 142), slice(142, None))]
    assert len(set(epochs)) == 4


def test_an_order_is_uniform(load):
    """Mean place of every record over many epochs; its deviation is that of a uniform draw."""
    batches = load("wine", batch_size=71)._batches
    places = np.mean([np.argsort(batches.order(epoch)) for epoch in range(400)], axis=0)
    sigma = 142 / np.sqrt(12 * 400)
    assert abs(places - 70.5).max() < 4.5 * sigma
    assert 0.8 * sigma < places.std() < 1.2 * sigma


def test_processes_share_every_global_batch(load):
    whole = take(load("wine", batch_size=12, drop_remainder=False), 26)
    for count in (2, 3, 4):
        parts = [
            take(
                load(
                    "wine",
                    batch_size=12,
                    drop_remainder=False,
                    process_index=index,
                    process_count=count,
                ),
                26,
            )
            for index in range(count)
        ]
        for number, batch in enumerate(whole):
            rows = [part[number] for part in parts]
            assert {len(row["labels"]) for row in rows} == {12 // count}
            for key in batch:
                together = np.stack([row[key] for row in rows], 1)
                assert np.array_equal(together.reshape(batch[key].shape), batch[key])


def test_what_does_not_fill_a_batch_is_another_part_in_every_epoch(load):
    pipeline = load("wine", batch_size=100)
    assert pipeline.batches_per_epoch == 1
    assert set(ids([next(pipeline)])) != set(ids([next(pipeline)]))


@pytest.mark.parametrize("batch_size", [8, 36, 100])
@pytest.mark.parametrize("process_count", [1, 4])
def test_an_evaluation_counts_every_example_once_with_one_shape(load, batch_size, process_count):
    traces = []

    @jax.jit
    def count(inputs, mask):
        traces.append(inputs.shape)
        return jnp.sum(mask), jnp.sum(jnp.where(mask[:, None], inputs, 0), 0)

    totals, seen = [], []
    for index in range(process_count):
        pipeline = load(
            "wine",
            split="test",
            batch_size=batch_size,
            shuffle=False,
            epochs=1,
            drop_remainder=False,
            process_index=index,
            process_count=process_count,
        )
        batches = list(pipeline)
        assert len(batches) == pipeline.batches_per_epoch == -(-36 // batch_size)
        totals += [count(batch["inputs"], batch["mask"]) for batch in batches]
        seen += ids([{"inputs": b["inputs"][b["mask"]]} for b in batches])
    assert len(traces) == 1
    assert sum(int(n) for n, _ in totals) == len(seen) == len(set(seen)) == 36
    everything = next(load("wine", split="test", batch_size=36))["inputs"]
    np.testing.assert_allclose(sum(s for _, s in totals), everything.sum(0), atol=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 9])
def test_a_state_gives_the_same_batches_within_and_across_epochs(load, stop):
    make = functools.partial(
        load,
        "digits",
        split="test",
        batch_size=80,
        seed=3,
        drop_remainder=False,
        transforms=[data.random_crop, data.random_flip],
    )
    expected = take(make(), 14)  # of 5 batches an epoch
    pipeline = make()
    take(pipeline, stop)
    state = json.loads(json.dumps(pipeline.get_state()))
    after = take(pipeline, 14 - stop)
    resumed = make()
    next(resumed)
    resumed.set_state(state)
    assert resumed.position == stop
    for batch, kept, other in zip(expected[stop:], after, take(resumed, 14 - stop), strict=True):
        assert same(batch, kept)
        assert same(batch, other)


def test_a_fresh_process_resumes(load):
    options = {"batch_size": 50, "seed": 7, "data_dir": str(load.keywords["data_dir"])}
    pipeline = data.load("digits", **options, transforms=[data.random_crop])
    take(pipeline, 27)
    code = f"""
import hashlib, json, sys
from papyrax.train import data
pipeline = data.load("digits", **{options!r}, transforms=[data.random_crop])
pipeline.set_state(json.loads(sys.argv[1]))
for _ in range(3):
    print(hashlib.sha256(next(pipeline)["inputs"].tobytes()).hexdigest())
"""
    found = subprocess.run(
        [sys.executable, "-c", code, json.dumps(pipeline.get_state())],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert found == [hashlib.sha256(b["inputs"].tobytes()).hexdigest() for b in take(pipeline, 3)]


def test_a_state_moves_to_another_number_of_processes(load):
    pipeline = load("digits", batch_size=64)
    take(pipeline, 30)
    state = pipeline.get_state()
    expected = next(pipeline)
    half = load("digits", batch_size=64, process_index=1, process_count=2)
    half.set_state(state)
    assert np.array_equal(next(half)["inputs"], expected["inputs"][1::2])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 32}, "batch_size"),
        ({"split": "test"}, "split"),
        ({"shuffle": False}, "shuffle"),
        ({"drop_remainder": False}, "drop_remainder"),
    ],
)
def test_a_state_of_other_batches_is_refused(load, change, word):
    state = load("digits", batch_size=64).get_state()
    other = load("digits", **{"batch_size": 64, **change})
    with pytest.raises(UserError, match=word):
        other.set_state(state)


def test_a_pipeline_ends_after_its_epochs_and_can_be_read_again(load):
    pipeline = load("iris", batch_size=30, epochs=2)
    first = list(pipeline)
    assert len(first) == 8
    assert list(pipeline) == []
    pipeline.seek(0)
    assert all(map(same, pipeline, first))
    ended = load("iris", batch_size=30, epochs=2)
    ended.set_state(pipeline.get_state())
    assert list(ended) == []


def test_workers_give_the_same_batches(load):
    make = functools.partial(load, "digits", batch_size=400, seed=5, transforms=[data.random_crop])
    expected = take(make(), 5)
    pipeline = make(num_workers=2)
    pipeline.seek(2)
    for batch, other in zip(expected[2:], pipeline, strict=False):
        assert same(batch, other)
    pipeline.close()


def test_threads_may_ask_for_any_batch(load):
    class Slow(pipeline_lib.Batches):
        """Lets other threads in whenever something is remembered."""

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            time.sleep(1e-4)

    make = functools.partial(load, "iris", batch_size=30, transforms=[data_noise])
    expected = take(make(), 40)
    batches = make()._batches
    batches.__class__ = Slow
    positions = np.random.default_rng(0).permutation(np.tile(np.arange(40), 5)).tolist()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(batches, positions))
    assert all(same(batch, expected[p]) for batch, p in zip(found, positions, strict=True))


def data_noise(example, rng):
    return {**example, "noise": rng.normal()}


def test_random_transforms_differ_by_place_and_epoch_and_not_by_process(load):
    def draw(example, rng):
        return {**example, "draw": rng.random()}

    def draw_int(example, rng):
        return {**example, "other": rng.random()}

    make = functools.partial(load, "iris", batch_size=60, transforms=[draw, draw_int])
    batches = take(make(), 4)
    draws = np.concatenate([b[k] for b in batches for k in ("draw", "other")])
    assert len(np.unique(draws)) == 480
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 480)
    part = next(make(process_index=2, process_count=3))
    assert np.array_equal(part["draw"], batches[0]["draw"][2::3])
    assert not np.array_equal(next(make(seed=1))["draw"], batches[0]["draw"])


def test_transforms_take_every_form(load):
    import grain

    class Twice(grain.transforms.Map):
        def map(self, example):
            return {**example, "inputs": 2 * example["inputs"]}

    class Noise(grain.transforms.RandomMap):
        def random_map(self, example, rng):
            return {**example, "noise": rng.normal(size=3).astype(np.float32)}

    def first_two(example, count=2):
        return {**example, "inputs": example["inputs"][:count]}

    pipeline = load("iris", batch_size=60, transforms=[Twice(), Noise(), first_two])
    assert pipeline.spec.features["inputs"].shape == (2,)
    assert pipeline.spec.features["noise"] == jax.ShapeDtypeStruct((3,), np.float32)
    plain = load("iris", batch_size=60)
    assert np.array_equal(next(pipeline)["inputs"], 2 * next(plain)["inputs"][:, :2])
    with pytest.raises(UserError, match="transforms: got 3"):
        load("iris", batch_size=60, transforms=[3])


def test_random_crop_and_flip_move_pixels_and_keep_them():
    image = np.arange(1.0, 65.0).reshape(8, 8, 1)
    rng = np.random.default_rng(0)
    shifts = set()
    for _ in range(200):
        found = data.random_crop({"inputs": image}, rng, padding=2)["inputs"]
        row, column = np.argwhere(found == 37.0)[0][:2]  # pixel (4, 4) is never cropped
        shift = (int(row) - 4, int(column) - 4)
        shifts.add(shift)
        rows = np.clip(np.array([max(0, shift[0]), 8 + min(0, shift[0])]), 0, 8)
        columns = np.array([max(0, shift[1]), 8 + min(0, shift[1])])
        inside = np.zeros((8, 8, 1), bool)
        inside[rows[0] : rows[1], columns[0] : columns[1]] = True
        moved = np.roll(image, shift, (0, 1))
        assert np.array_equal(found, np.where(inside, moved, 0))
    assert shifts == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    flips = [data.random_flip({"inputs": image}, rng)["inputs"] for _ in range(200)]
    mirrored = [np.array_equal(f, image[:, ::-1]) for f in flips]
    assert all(m or np.array_equal(f, image) for m, f in zip(mirrored, flips, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"process_count": 0}, "process_count"),
        ({"process_index": 1}, "process_index"),
        ({"batch_size": 9, "process_count": 2}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"image_size": 0}, "image_size"),
        ({"sequence_length": 0}, "sequence_length"),
    ],
)
def test_numbers_that_do_not_fit_are_named(load, options, word):
    with pytest.raises(ValueError, match=f"^{word}: got"):
        load("iris", **{"batch_size": 8, **options})


def test_importing_brings_in_neither_tensorflow_nor_any_data_library(tmp_path):
    code = """
import sys
import papyrax.train.data
heavy = {"tensorflow", "tensorflow_datasets", "grain", "sklearn", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
papyrax.train.data.load("iris", batch_size=8, data_dir=sys.argv[1])
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=120)
