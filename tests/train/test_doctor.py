import copy
import json
import os
import pathlib
import stat
import sys
import types

import pytest

import papyrax
from papyrax.train import cli, machine
from papyrax.train.commands import doctor


@pytest.fixture(scope="module")
def found():
    """This machine, examined once."""
    return machine.examine()


@pytest.fixture
def altered(found, monkeypatch):
    """A copy of what was found, to be changed; the command sees it."""
    part = copy.deepcopy(found)
    part["libtpu"] = "0.1"
    monkeypatch.setattr(doctor, "examine", lambda: part)
    return part


def test_examine_finds_every_part_of_this_machine(found):
    broken = {name: part for name, part in found.items() if machine.failed(part)}
    assert not broken.keys() - {"aot"}
    versions = {row["name"]: row for row in found["versions"]}
    assert versions["papyrax"]["installed"] == papyrax.__version__
    assert {
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "tensorflow-datasets",
    } < (versions.keys())
    assert all(row["fits"] for row in versions.values())
    assert found["devices"]["computes"] is True
    assert sum(row["count"] for row in found["devices"]["devices"]) >= 1
    assert {row["name"] for row in found["extras"]} == set(machine.EXTRAS_SHOWN)
    assert 0 < found["system"]["memory"]["total"] < 1e15
    json.dumps(found)


def test_kernels_are_found_by_their_registries(found):
    rows = [row for row in found["kernels"] if row["operator"] == "flash_attention"]
    from papyrax.kernels import flash_attention

    assert {row["implementation"] for row in rows} == set(flash_attention.implementations())
    assert any(row["runs"] for row in rows)
    assert all(row["runs"] == (row["why_not"] is None) for row in rows)


def test_operators_that_are_broken_or_tell_nothing(tmp_path, monkeypatch):
    for name, text in {
        "broken_operator": "raise RuntimeError('no such\\nthing')",
        "silent_operator": "",
        "picky_operator": "def implementations(): return {'fast': 'needs a TPU', 'slow': None}",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    from papyrax import kernels

    monkeypatch.setattr(kernels, "__path__", [str(tmp_path)])
    rows = {(r["operator"], r["implementation"]): r["why_not"] for r in machine.kernels()}
    for name in tmp_path.iterdir():
        sys.modules.pop(f"papyrax.kernels.{name.name}", None)
    assert rows == {
        ("broken_operator", "all"): "RuntimeError: no such thing",
        ("picky_operator", "fast"): "needs a TPU",
        ("picky_operator", "slow"): None,
    }


def test_json_is_the_whole_answer(altered, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert altered.keys() | {"problems", "advice"} == answer.keys()
    assert answer["problems"] == []
    assert answer["versions"] == altered["versions"]


def test_tables(altered, capsys):
    altered["kernels"] = [
        {
            "operator": "op",
            "implementation": "fast",
            "backend": "gpu",
            "runs": True,
            "why_not": None,
        },
        {
            "operator": "op",
            "implementation": "tpu",
            "backend": "gpu",
            "runs": False,
            "why_not": "[x]",
        },
    ]
    altered["extras"] = [{"name": "train", "missing": ["rich"]}, {"name": "aot", "missing": []}]
    altered["datasets"] = ["digits", "photo/small"]
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in (
        papyrax.__version__,
        "runs on gpu",
        "no: [x]",
        "lacks rich",
        "digits, photo/small",
    ):
        assert part in text, part
    assert "pip install 'papyrax[train]'" in text
    assert "No problem found." in text


@pytest.mark.parametrize("part", ["devices", "kernels", "aot", "settings", "extras", "versions"])
def test_a_part_that_is_unknown_does_not_hide_the_others(altered, part, capsys):
    altered[part] = {"error": "OSError: [Errno 5] out of luck"}
    status = cli.main(["doctor"])
    text = capsys.readouterr().out
    assert "out of luck" in text
    assert "Folders" in text
    assert status == (1 if part == "devices" else 0)


def test_every_part_unknown(altered, capsys):
    for name in altered:
        altered[name] = {"error": "OSError: out of luck"}
    assert cli.main(["doctor"]) == 1
    assert cli.main(["doctor", "--json"]) == 1
    assert "JAX does not start" in capsys.readouterr().out


def executable(path: pathlib.Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins for Python are shell scripts")
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo driver talks; echo 'bad driver' >&2; exit 7", "status 7: bad driver"),
        ("exec sleep 30", "took too long to start"),
        ("kill -9 $$", "status -9"),
        (f"echo '{machine.ANSWER}not json'", "JSONDecodeError"),
    ],
)
def test_a_jax_that_fails_is_told(tmp_path, monkeypatch, script, why):
    monkeypatch.setattr(sys, "executable", executable(tmp_path / "python", script))
    parts = machine.examine(timeout=0.5)
    for name in ("devices", "kernels", "settings", "aot"):
        assert why in parts[name]["error"]
    assert not machine.failed(parts["versions"])
    assert any("JAX does not start" in line for line in doctor.problems(parts))
    list(doctor.advice(parts))


def test_a_python_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "FileNotFoundError" in machine.examine()["devices"]["error"]


def test_what_is_missing_or_too_old_is_a_problem(altered, monkeypatch, capsys):
    have = {"optax": "0.1.0", "flax": None}
    real = machine.installed
    monkeypatch.setattr(
        machine, "installed", lambda name: have[name] if name in have else real(name)
    )
    altered["versions"] = machine.versions()
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "optax: 0.1.0 is installed; papyrax needs >=" in text
    assert "flax: is not installed" in text
    assert "No problem" not in text


def test_extras_ask_for_what_they_name(monkeypatch):
    needs = {
        "papyrax": [
            "numpy>=1",
            'papyrax[plot]; extra == "all"',
            'jax[chip]; extra == "all"',
            'paint>=2; extra == "plot"',
        ],
        "jax": ['chip-driver; extra == "chip"', "numpy"],
    }
    have = {"papyrax": "1", "jax": "1", "numpy": "2", "paint": "1.5"}
    metadata = types.SimpleNamespace(get_all=lambda key: ["all", "plot"])
    monkeypatch.setattr(machine.importlib.metadata, "requires", needs.get)
    monkeypatch.setattr(machine.importlib.metadata, "metadata", lambda name: metadata)
    monkeypatch.setattr(machine, "installed", have.get)
    monkeypatch.setattr(machine, "EXTRAS_SHOWN", ("all", "plot", "gone"))
    assert machine.extras() == [
        {"name": "all", "missing": ["chip-driver", "paint>=2"]},
        {"name": "plot", "missing": ["paint>=2"]},
    ]


def test_folders_and_data_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPYRAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PAPYRAX_RESULTS", str(tmp_path))
    (data, results) = machine.folders()
    assert data["path"] == str(tmp_path / "data")
    assert (data["exists"], data["writable"], results["exists"]) == (False, True, True)
    assert machine.datasets() == []
    for place in ("digits/1.0.0", "text/long/2.0.0", ".preparing-1/wine/1.0.0"):
        folder = tmp_path / "data" / place
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "data" / "half" / "1.0.0").mkdir(parents=True)
    assert machine.datasets() == ["digits", "text/long"]
    assert not list(tmp_path.glob(".papyrax-*")), "a probe left its file"


def test_a_folder_that_cannot_be_written_is_a_problem(altered, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAPYRAX_DATA", str(tmp_path / "file" / "data"))
    altered["folders"] = machine.folders()
    assert cli.main(["doctor"]) == 1
    assert "cannot be written: set PAPYRAX_DATA" in capsys.readouterr().out


def on_gpu(found, **parts):
    settings = {**found["settings"], "platforms": None, "compilation_cache": "x", "x64": False}
    return {**found, "settings": settings, "nvidia": [], "gpu_plugins": [], **parts}


def test_advice_about_accelerators(found):
    cpu = {"platform": "cpu", "kind": "cpu", "count": 1, "memory": None}
    gpu = {"platform": "gpu", "kind": "H100", "count": 1, "memory": 8e10}
    devices = {"default": "cpu", "devices": [cpu], "processes": 1, "computes": True}
    base = on_gpu(found, devices=devices)
    card = ["H100, 580.1, 80 GiB"]

    def told(**parts):
        return " / ".join(doctor.advice({**base, **parts}))

    assert "no GPU found" in told()
    assert "has no plugin for it: pip install 'papyrax[cuda]'" in told(nvidia=card)
    assert "says why" in told(nvidia=card, gpu_plugins=["jax-cuda13-plugin"])
    forced = {**base["settings"], "platforms": "cpu"}
    assert "because JAX_PLATFORMS is cpu" in told(nvidia=card, settings=forced)
    assert "GPU" not in told(nvidia=card, devices={**devices, "devices": [gpu, cpu]})


def test_advice_about_settings_and_room(found):
    base = on_gpu(found)
    quiet = list(doctor.advice(base))
    settings = {**base["settings"], "compilation_cache": None, "x64": True}
    folders = [{"name": "data", "path": "/x", "exists": True, "writable": True, "free": 1.5e9}]
    loud = " / ".join(doctor.advice({**base, "settings": settings, "folders": folders}))
    assert "JAX_COMPILATION_CACHE_DIR" in loud
    assert "x64 is on" in loud
    assert "2 GB free in /x" in loud
    assert not [line for line in quiet if "x64" in line or "COMPILATION" in line]


def test_a_backend_that_starts_and_does_not_compute(altered, capsys):
    altered["devices"]["computes"] = {"error": "JaxRuntimeError: no ptxas"}
    assert cli.main(["doctor"]) == 1
    assert "does not compute on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 bytes"), (2_500, "2 kB"), (2.6e10, "26 GB"), (3.2e12, "3.2 TB")]
)
def test_sizes(count, text):
    assert doctor.size(count) == text


def test_memory_where_there_is_no_proc(monkeypatch):
    def missing(self, *args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", missing)
    assert machine._memory()["total"] > 1e8
