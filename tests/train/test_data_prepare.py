"""Preparing: once, whole, by several processes; other TFDS sets; and errors of one line."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from papyrax.train import data
from papyrax.train.errors import UserError


class FakeDigits(tfds.core.GeneratorBasedBuilder):
    """As MNIST in TFDS: PNG images and classes, two configs."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="plain"),
        tfds.core.BuilderConfig(name="varying"),
    ]

    def _info(self):
        size = (None, None, 3) if self.builder_config.name == "varying" else (28, 28, 1)
        features = {
            "image": tfds.features.Image(shape=size),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(60), "test": self._generate_examples(20)}

    def _generate_examples(self, count):
        for i in range(count):
            shape = (20 + i % 7, 30, 3) if self.builder_config.name == "varying" else (28, 28, 1)
            pixels = np.full(shape, i, np.uint8)
            yield i, {"image": Image.fromarray(pixels.squeeze()), "label": i % 10}


class FakeTexts(tfds.core.GeneratorBasedBuilder):
    """What has no place in a batch of numbers."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "length": np.int64, "score": np.float32}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("text", "score"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "a", "length": 1, "score": 0.5}


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for config in ("plain", "varying"):
        builder = FakeDigits(data_dir=root, config=config, file_format="array_record")
        builder.download_and_prepare()
    FakeTexts(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def message(call) -> str:
    """The error that a user sees: one line."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def run(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


# Embedded sets.


def test_a_set_is_prepared_once_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PAPYRAX_DATA", str(tmp_path / "deep" / "cache"))
    data.load("iris", batch_size=8)
    folder = tmp_path / "deep" / "cache" / "iris" / "1.0.0"
    assert capsys.readouterr() == (
        "",
        f"prepared iris (train 120, test 30) in {folder}\n",
    )
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    data.load("iris", batch_size=8)
    assert capsys.readouterr() == ("", "")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path.name for path in folder.parents[1].iterdir()] == ["iris"]


def test_the_default_folder_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("PAPYRAX_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    data.load("iris", batch_size=8)
    assert (tmp_path / ".cache/papyrax/data/iris/1.0.0").is_dir()


def test_two_processes_prepare_at_once(tmp_path):
    code = """
import hashlib, pathlib, sys, time
import grain, tensorflow_datasets, sklearn.datasets
from papyrax.train import data
from papyrax.train.data import embedded
root = pathlib.Path(sys.argv[1])
(root / sys.argv[2]).touch()
while not ((root / "a").exists() and (root / "b").exists()):
    time.sleep(0.001)
batch = next(data.load("digits", batch_size=1438, data_dir=root / "cache"))
print(hashlib.sha256(batch["inputs"].tobytes()).hexdigest())
"""
    both = [run(code, tmp_path, name) for name in ("a", "b")]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum(stderr.count("prepared digits") for _, stderr in outputs) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["digits"]
    assert [path.name for path in (tmp_path / "cache/digits").iterdir()] == ["1.0.0"]


def test_a_process_killed_while_preparing_leaves_nothing_in_the_way(tmp_path):
    code = """
import sys, time
from papyrax.train import data
from papyrax.train.data import embedded
whole = embedded.Digits._generate_examples
def slowly(self, columns):
    for i, record in enumerate(whole(self, columns)):
        if i == 700:
            sys.__stdout__.write("half\\n")
            sys.__stdout__.flush()
            time.sleep(600)
        yield record
embedded.Digits._generate_examples = slowly
data.load("digits", batch_size=8, data_dir=sys.argv[1])
"""
    process = run(code, tmp_path)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".preparing-")
    assert list(left.rglob("*digits*"))

    pipeline = data.load("digits", batch_size=1438, data_dir=tmp_path)
    assert len(np.unique(next(pipeline)["inputs"], axis=0)) == 1438
    assert left.exists()  # it may be of a process that is still at work
    os.utime(left, (time.time() - 7200,) * 2)
    data.load("iris", batch_size=8, data_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "iris"]


def test_a_failure_while_preparing_leaves_nothing(tmp_path, monkeypatch):
    from papyrax.train.data import embedded

    def fail(self, columns):
        yield from ()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(embedded.Iris, "_generate_examples", fail)
        text = message(lambda: data.load("iris", batch_size=8, data_dir=tmp_path))
    assert "No space left on device" in text
    assert "PAPYRAX_DATA" in text
    assert list(tmp_path.iterdir()) == []
    data.load("iris", batch_size=8, data_dir=tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PAPYRAX_DATA", str(tmp_path / "file" / "cache"))
    text = message(lambda: data.load("iris", batch_size=8))
    assert text == (
        f"{tmp_path}/file/cache: cannot hold prepared data: Not a directory; "
        "set PAPYRAX_DATA to another folder"
    )


def test_a_folder_without_permission(tmp_path):
    data.load("wine", batch_size=8, data_dir=tmp_path)  # what is imported is imported
    tmp_path.chmod(0o500)
    is_root = os.geteuid() == 0
    if is_root:  # who may write everywhere
        os.seteuid(65534)
    try:
        text = message(lambda: data.load("iris", batch_size=8, data_dir=tmp_path))
    finally:
        if is_root:
            os.seteuid(0)
    assert text == (
        f"{tmp_path}: cannot hold prepared data: Permission denied; "
        "set PAPYRAX_DATA to another folder"
    )
    data.load("wine", batch_size=8, data_dir=tmp_path)  # which needs no writing


@pytest.mark.parametrize("missing", ["sklearn", "PIL"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "sklearn":
        monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    name = {"sklearn": "iris", "PIL": "photo_patches"}[missing]
    text = message(lambda: data.load(name, batch_size=8, data_dir=tmp_path))
    assert text.startswith(f"{name}: cannot be prepared: ")
    assert "papyrax[train]" in text
    assert list(tmp_path.iterdir()) == []


SHARD = "iris-train.array_record-00000-of-00001"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (SHARD, lambda content: b""),
        (SHARD, lambda content: content[: len(content) // 2]),
        (SHARD, lambda content: content[:-1000]),
        (SHARD, lambda content: bytes(len(content))),
        (SHARD, None),
        ("dataset_info.json", lambda content: b"{"),
        ("dataset_info.json", None),
        ("features.json", lambda content: b"{}"),
        ("features.json", None),
    ],
)
def test_a_damaged_folder_is_named_and_can_be_deleted(tmp_path, file, change):
    data.load("iris", batch_size=8, data_dir=tmp_path)
    path = tmp_path / "iris" / "1.0.0" / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    text = message(lambda: list(data.load("iris", batch_size=8, epochs=1, data_dir=tmp_path)))
    assert text.startswith(f"{path.parent}: is damaged")
    assert text.endswith("; delete this folder")
    shutil.rmtree(path.parent)
    assert len(list(data.load("iris", batch_size=8, epochs=1, data_dir=tmp_path))) == 15


def test_a_damaged_record_is_found_when_it_is_read(tmp_path):
    data.load("digits", batch_size=8, data_dir=tmp_path)
    [path] = (tmp_path / "digits" / "1.0.0").glob("digits-train*")
    content = bytearray(path.read_bytes())
    content[100_000] ^= 255
    path.write_bytes(content)
    pipeline = data.load("digits", batch_size=8, epochs=1, data_dir=tmp_path)
    assert "is damaged" in message(lambda: list(pipeline))


# Sets of TFDS.


def test_a_prepared_tfds_set_is_read_by_name(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    for name in (
        "fake_digits",
        "fake_digits/plain",
        "fake_digits/plain:1.2.0",
        "fake_digits:1.*.*",
    ):
        pipeline = data.load(name, batch_size=60, shuffle=False)
        spec = pipeline.spec
        assert (spec.task, spec.num_examples, spec.num_classes) == ("classification", 60, 10)
        batch = next(pipeline)
        assert batch["inputs"].shape == (60, 28, 28, 1)
        assert batch["inputs"].dtype == np.float32
        assert batch["labels"].dtype == np.int32
        numbers = np.round(batch["inputs"][:, 0, 0, 0] * 255).astype(int)
        assert sorted(numbers) == list(range(60))
        assert np.array_equal(numbers % 10, batch["labels"])
    assert data.load("fake_digits", batch_size=4, split="test").spec.num_examples == 20


def test_tfds_is_read_without_tensorflow_or_the_builders_code(tfds_dir):
    code = """
import sys
from papyrax.train import data
batch = next(data.load("fake_digits", batch_size=8, data_dir=sys.argv[1]))
assert batch["inputs"].shape == (8, 28, 28, 1)
assert "tensorflow" not in sys.modules
"""
    process = run(code, tfds_dir)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


def test_images_that_vary_are_cut_and_resized(tfds_dir):
    text = message(lambda: data.load("fake_digits/varying", batch_size=8, data_dir=tfds_dir))
    assert "vary in shape" in text
    assert text.endswith("give image_size")
    pipeline = data.load("fake_digits/varying", batch_size=60, image_size=16, data_dir=tfds_dir)
    batch = next(pipeline)
    assert batch["inputs"].shape == (60, 16, 16, 3)
    values = np.round(batch["inputs"] * 255).astype(int)
    assert (values == values[:, :1, :1, :1]).all()
    assert sorted(values[:, 0, 0, 0]) == list(range(60))
    grey = data.load("fake_digits", batch_size=60, image_size=14, data_dir=tfds_dir)
    assert next(grey)["inputs"].shape == (60, 14, 14, 1)


def test_resizing_takes_the_central_square():
    from papyrax.train.data.transforms import resize

    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (resize(image, 20) == 200).all()
    image[:20] = 100
    halves = resize(image, 8)
    assert (halves[:3] == 100).all()
    assert (halves[5:] == 200).all()


def test_a_set_that_is_not_prepared_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    command = (
        'run, where tensorflow is installed too: python -c "import tensorflow_datasets as tfds; '
        "tfds.builder('mnist', file_format='array_record').download_and_prepare()\""
    )
    text = message(lambda: data.load("mnist", batch_size=8))
    assert text == f"mnist: is not prepared in {tmp_path}; {command}"
    code = re.search('"(.*)"', command)[1].replace(".download_and_prepare()", ".url_infos")
    process = run(code, TFDS_DATA_DIR=str(tmp_path))  # all but the download
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    text = message(lambda: data.load("mnist:3.0.1", batch_size=8, data_dir=tmp_path))
    assert f"tfds.builder('mnist:3.0.1', file_format='array_record', data_dir='{tmp_path}')" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "did you mean 'digits'"),
        ("minst", "'mnist'"),
        ("cifar-10", "'cifar10'"),
        ("python_sources", "'python_source'"),
        ("qqqqqqqq", "takes breast_cancer, diabetes"),
        ("", "takes breast_cancer"),
        ("../etc", "there is no data set"),
        ("a b:c d/e", "there is no data set"),
    ],
)
def test_an_unknown_name_is_met_with_close_ones(tmp_path, name, words):
    text = message(lambda: data.load(name, batch_size=8, data_dir=tmp_path))
    assert text.startswith(f"there is no data set {name!r}; ")
    assert words in text


def test_a_set_without_random_access_says_how(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "fake_digits", tmp_path / "fake_digits")
    path = tmp_path / "fake_digits/plain/1.2.0/dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    text = message(lambda: data.load("fake_digits/plain", batch_size=8, data_dir=tmp_path))
    assert text.startswith("fake_digits/plain: is prepared as tfrecord")
    assert f"delete {path.parent} and run, " in text
    assert f"data_dir='{tmp_path}/'" in text


def test_a_damaged_tfds_folder_is_named(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "fake_digits", tmp_path / "fake_digits")
    folder = tmp_path / "fake_digits/plain/1.2.0"
    (folder / "dataset_info.json").write_text("{")
    text = message(lambda: data.load("fake_digits/plain", batch_size=8, data_dir=tmp_path))
    assert text.startswith(f"{tmp_path / 'fake_digits'}")
    assert text.endswith("; delete this folder")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fake_texts", {}, "inputs 'text' are neither images nor numbers"),
        ("fake_digits", {"split": "valid"}, "has no split 'valid'; takes"),
        ("fake_digits", {"split": "train[:x]"}, "split 'train[:x]'"),
        ("fake_digits", {"split": "train[60:]"}, "is empty"),
        ("fake_digits", {"split": ""}, "has no split ''"),
        ("fake_digits", {"batch_size": 61}, "batch_size 61 is more than the 60 examples"),
        ("fake_digits", {"sequence_length": 8}, "takes no sequence_length"),
        ("iris", {"image_size": 8}, "takes no image_size"),
    ],
)
def test_options_that_do_not_fit_the_set(tfds_dir, name, options, words):
    text = message(lambda: data.load(name, **{"batch_size": 8, "data_dir": tfds_dir, **options}))
    assert words in text


def test_a_tfds_name_with_a_version_is_never_an_embedded_set(tmp_path):
    text = message(lambda: data.load("iris:2.1.0", batch_size=8, data_dir=tmp_path))
    assert "tfds.builder('iris:2.1.0'" in text
    assert list(pathlib.Path(tmp_path).iterdir()) == []
