import doctest
import json
import math
import os
import stat

import pytest

from papyrax.train import files, numbers
from papyrax.train.files import to_json, write_atomic


def test_text_and_bytes(tmp_path):
    write_atomic(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()
    write_atomic(str(tmp_path / "a"), b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomic(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_file_is_readable_as_any_other(tmp_path):
    write_atomic(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes[0] == modes[1]


def test_json_is_strict_and_keeps_what_is_not_finite():
    def refuse(constant):
        raise ValueError(constant)

    text = to_json({"a": [1.5, math.nan, (math.inf, -math.inf)], "b": True, "c": "é"})
    data = json.loads(text, parse_constant=refuse)
    assert data == {"a": [1.5, "NaN", ["Infinity", "-Infinity"]], "b": True, "c": "é"}
    assert math.isnan(float(data["a"][1]))
    assert float(data["a"][2][1]) == -math.inf
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        [[]],
        {"a": {}, "b": [], "c": [{}]},
        [1, "two", None, True, 0.1],
        {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [{"c": "[ x,\n y ]"}]},
        "é",
        -1.5e-300,
    ],
)
def test_json_is_read_as_it_was_written(data):
    assert json.loads(to_json(data)) == data
    assert json.loads(to_json(data, indent=2)) == data
    line = to_json(data, indent=None)
    assert json.loads(line) == data
    assert line.count("\n") == 1


def test_json_puts_a_list_of_numbers_on_a_line():
    assert to_json({"y": [[1, 2], [3, 4]]}) == '{\n "y": [\n  [1, 2],\n  [3, 4]\n ]\n}\n'


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError):
        to_json({"a": object()})


@pytest.mark.parametrize("module", [files, numbers])
def test_doctests(module):
    done = doctest.testmod(module)
    assert done.attempted >= 2
    assert not done.failed
