"""What the embedded sets hold."""

import doctest
import functools
import os
import pathlib
import sysconfig

import numpy as np
import pytest

from papyrax.train import data
from papyrax.train.data import pipeline as pipeline_lib
from papyrax.train.data import transforms


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return functools.partial(data.load, data_dir=tmp_path_factory.mktemp("data"))


def whole(load, name, split, **options):
    """A split as one batch, in its stored order."""
    count = load(name, split=split, batch_size=1, **options).spec.num_examples
    return next(load(name, split=split, batch_size=count, shuffle=False, **options))


def rows(array) -> set[bytes]:
    return {row.tobytes() for row in array}


@pytest.mark.parametrize(
    ("name", "shape", "classes", "train", "test"),
    [
        ("breast_cancer", (30,), 2, 456, 113),
        ("digits", (8, 8, 1), 10, 1438, 359),
        ("iris", (4,), 3, 120, 30),
        ("wine", (13,), 3, 142, 36),
    ],
)
def test_classifications(load, name, shape, classes, train, test):
    from sklearn import datasets

    pipeline = load(name, batch_size=4)
    spec = pipeline.spec
    assert (spec.name, spec.split, spec.task) == (name, "train", "classification")
    assert (spec.num_examples, spec.num_classes, spec.vocab_size) == (train, classes, None)
    batch = next(pipeline)
    assert batch.keys() == spec.features.keys() == {"inputs", "labels"}
    for key, feature in spec.features.items():
        assert batch[key].shape == (4, *feature.shape)
        assert batch[key].dtype == feature.dtype
    assert batch["inputs"].shape == (4, *shape)
    assert batch["inputs"].dtype == np.float32
    assert batch["labels"].dtype == np.int32

    parts = [whole(load, name, split) for split in ("train", "test")]
    assert [len(part["labels"]) for part in parts] == [train, test]
    inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    for label, count in enumerate(np.bincount(labels)):
        assert (parts[1]["labels"] == label).sum() == round(count / 5)
        assert (parts[0]["labels"] == label).sum() == count - round(count / 5)

    # Standardised over both splits, the rows are those of the original, which undoes our scaling.
    found = np.concatenate([part["inputs"].reshape(-1, inputs.shape[1]) for part in parts])
    found_labels = np.concatenate([part["labels"] for part in parts])
    varies = inputs.std(0) > 0
    mine, theirs = (z[:, varies] for z in (found, inputs))
    mine, theirs = ((z - z.mean(0)) / z.std(0) for z in (mine, theirs))
    distances = ((mine**2).sum(1)[:, None] + (theirs**2).sum(1)) - 2 * mine @ theirs.T
    nearest = distances.argmin(0)
    assert distances.min(0).max() < 1e-3
    assert np.array_equal(found_labels[nearest], labels)
    assert len(set(nearest)) >= len(labels) - 1  # two flowers of iris are alike
    if name == "digits":
        assert (found.min(), found.max()) == (0, 1)
    else:
        np.testing.assert_allclose(parts[0]["inputs"].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(parts[0]["inputs"].std(0), 1, atol=1e-4)


def test_labels_stay_with_their_inputs(load):
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    known = {(i / 16).astype(np.float32).tobytes(): y for i, y in zip(images, labels, strict=True)}
    for split in ("train", "test"):
        batch = whole(load, "digits", split)
        assert [known[i.tobytes()] for i in batch["inputs"]] == batch["labels"].tolist()


def test_diabetes_is_a_standardised_regression(load):
    train, test = (whole(load, "diabetes", split) for split in ("train", "test"))
    assert load("diabetes", batch_size=4).spec.task == "regression"
    assert train["inputs"].shape == (354, 10)
    assert test["inputs"].shape == (88, 10)
    assert train["labels"].dtype == np.float32
    for values in (train["inputs"], train["labels"]):
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), 1, atol=1e-4)
    # The inputs explain half of the labels' variance, as the original's do.
    weights = np.linalg.lstsq(train["inputs"], train["labels"], rcond=None)[0]
    assert 0.4 < np.mean((test["inputs"] @ weights - test["labels"]) ** 2) < 0.65
    assert not rows(train["inputs"]) & rows(test["inputs"])


def test_photo_patches_of_the_two_splits_share_no_pixel(load):
    from sklearn import datasets

    spec = load("photo_patches", batch_size=4).spec
    assert (spec.task, spec.num_classes) == ("images", None)
    assert list(spec.features) == ["inputs"]
    train, test = (whole(load, "photo_patches", s)["inputs"] for s in ("train", "test"))
    assert train.shape == (6100, 32, 32, 3)
    assert test.shape == (1300, 32, 32, 3)
    assert train.dtype == np.float32
    assert train.min() >= 0
    assert 0.9 < train.max() <= 1
    photos = np.stack(datasets.load_sample_images().images)
    left = {p[t : t + 32, :32].tobytes() for p in photos for t in range(0, 396, 8)}
    stored = rows(np.round(train * 255).astype(np.uint8))
    assert left <= stored
    right = {p[t : t + 32, 512:544].tobytes() for p in photos for t in range(0, 396, 8)}
    assert right <= rows(np.round(test * 255).astype(np.uint8))
    assert not right & stored


def test_python_source_is_cut_into_sequences_that_predict_every_byte_once(load):
    length = 1000
    spec = load("python_source", batch_size=4, sequence_length=length).spec
    assert (spec.task, spec.vocab_size) == ("language_model", 256)
    assert spec.num_examples == ((4 << 20) - 1) // length
    assert spec.features["inputs"].shape == spec.features["targets"].shape == (length,)
    batch = whole(load, "python_source", "test", sequence_length=length)
    assert batch["inputs"].dtype == batch["targets"].dtype == np.int32
    assert np.array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    text = held_out_text()
    starts = range(0, len(text) - length, length)
    assert rows(batch["inputs"].astype(np.uint8)) == {text[i : i + length] for i in starts}
    assert rows(batch["targets"].astype(np.uint8)) == {text[i + 1 : i + length + 1] for i in starts}


@functools.cache
def held_out_text() -> bytes:
    from papyrax.train.data import embedded

    return embedded.read_source(embedded.PythonSource.SIZES)["test"]


def test_documents_are_whole_files_of_one_split():
    from papyrax.train.data import embedded

    texts = embedded.read_source({"train": 1 << 20, "test": 1 << 18})
    assert {split: len(text) for split, text in texts.items()} == {
        "train": 1 << 20,
        "test": 1 << 18,
    }
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    library = {
        path.read_bytes().replace(b"\r\n", b"\n")
        for path in root.rglob("*.py")
        if "site-packages" not in path.parts
    }
    documents = {split: set(text.split(b"\0")[:-1]) for split, text in texts.items()}
    for split in documents.values():
        assert len(split) > 5
        assert split <= library
    assert {d for d in documents["train"] & documents["test"] if d} == set()


def test_splits_can_be_sliced(load):
    assert load("iris", batch_size=8, split="train[:25%]").spec.num_examples == 30
    both = load("iris", batch_size=8, split="train+test")
    assert both.spec.num_examples == 150


def test_doctests(load, monkeypatch):
    monkeypatch.setenv("PAPYRAX_DATA", os.fspath(load.keywords["data_dir"]))
    for module in (pipeline_lib, transforms):
        found = doctest.testmod(module, extraglobs={"np": np})
        assert found.attempted >= 3
        assert found.failed == 0
