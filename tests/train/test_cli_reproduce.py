import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import fakes
import pytest

from papyrax import papers
from papyrax.train import cli, measure, pool

FAKES = pathlib.Path(fakes.__file__)


def start(fake_papers, *arguments, **options):
    """`papyrax` in a process of its own, with the papers of the fake_papers."""
    environment = {k: v for k, v in os.environ.items() if k != "PAPYRAX_FAKES"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.Popen(
        [sys.executable, FAKES, fake_papers, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_records_what_a_reader_needs(fake_papers, results, capsys):
    assert cli.main(["reproduce", "good"]) == 0
    record = json.loads((results / "good.json").read_text())
    assert record["holds"] is True
    assert record["acceptance"] == "method >= 0.5"
    assert record["budget"] == "quick"
    assert record["seeds"] == [0, 1, 2]
    assert record["seconds"] >= 0
    assert set(record["versions"]) == {*measure.LIBRARIES, "python", "papyrax"}
    assert record["device"]["platform"] == "cpu"
    assert record["device"]["count"] >= 1
    assert record["commit"] is None or len(record["commit"].removesuffix("+changes")) == 40
    assert record["date"].endswith("+00:00")
    result = papers.Result.from_json(record)
    assert result.measures[0].method == (0.75,) * 3
    assert papers.recorded("good") == record
    assert papers.find("good").status == "reproduced"
    out, err = capsys.readouterr()
    assert "holds" in out
    assert "1 of 1 hold" in out
    assert "good" in err
    assert os.listdir(results) == ["good.json"]


def test_settings_reach_the_paper(fake_papers, results):
    argv = ["reproduce", "good", "--budget", "full", "--seeds", "2", "--seed", "5"]
    assert cli.main(argv) == 0
    record = json.loads((results / "good.json").read_text())
    assert (record["budget"], record["seeds"]) == ("full", [5, 6])


def test_failed_acceptance(fake_papers, capsys):
    assert cli.main(["reproduce", "bad"]) == 1
    out = capsys.readouterr().out
    assert "does not hold" in out
    assert "accepted if method >= 0.5" in out
    assert papers.find("bad").status == "implemented"


def test_a_crash_stops_nobody(fake_papers, results, capsys):
    assert cli.main(["reproduce", "--all"]) == 1
    assert sorted(fakes.calls(fake_papers)) == ["bad", "crash", "fine", "good"]
    out, err = capsys.readouterr()
    log = results / "crash.log"
    assert f"crash crashed\n  RuntimeError: no luck; see {log}\n" in out
    assert "Traceback" not in out + err
    assert "Traceback" in log.read_text()
    assert "RuntimeError: no luck\nat all" in log.read_text()
    assert "2 of 4 hold" in out
    assert not (results / "crash.json").exists()


def test_a_mended_crash_takes_its_log_away(fake_papers, results):
    assert cli.main(["reproduce", "crash"]) == 1
    fakes.write(
        fake_papers, "crash", body="value = 'mended'  # another length for the import cache"
    )
    fakes.forget("crash")
    assert cli.main(["reproduce", "crash"]) == 0
    assert os.listdir(results) == ["crash.json"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "returned int"),
        ("seeds += 1", "was asked for"),
        ("budget = 'full'", "was asked for"),
        ("sys.exit('sorry')", "sorry"),
    ],
)
def test_a_paper_that_breaks_its_contract_crashes(fake_papers, capsys, body, message):
    fakes.write(fake_papers, "crash", body=body)
    assert cli.main(["reproduce", "crash"]) == 1
    assert message in capsys.readouterr().out


def test_a_module_that_cannot_be_imported_crashes(fake_papers, capsys):
    (fake_papers / "good.py").write_text("import nothing_of_the_kind")
    assert cli.main(["reproduce", "good", "fine"]) == 1
    out = capsys.readouterr().out
    assert "ModuleNotFoundError: No module named 'nothing_of_the_kind'" in out
    assert "1 of 2 hold" in out


def test_resumes(fake_papers, capsys):
    assert cli.main(["reproduce", "good"]) == 0
    assert cli.main(["reproduce", "good", "fine"]) == 0
    assert fakes.calls(fake_papers) == ["good", "fine"]
    assert "good: holds, recorded before" in capsys.readouterr().err
    for other in (["--seeds", "2"], ["--seed", "1"], ["--budget", "full"]):
        assert cli.main(["reproduce", "good", *other]) == 0
    assert fakes.calls(fake_papers) == ["good", "fine", "good", "good", "good"]


def test_a_recorded_failure_still_fails(fake_papers):
    assert cli.main(["reproduce", "bad"]) == 1
    assert cli.main(["reproduce", "bad"]) == 1
    assert fakes.calls(fake_papers) == ["bad"]


def test_fresh_measures_again(fake_papers):
    assert cli.main(["reproduce", "good"]) == 0
    assert cli.main(["reproduce", "good", "--fresh"]) == 0
    assert fakes.calls(fake_papers) == ["good", "good"]


def test_another_acceptance_measures_again(fake_papers):
    assert cli.main(["reproduce", "good"]) == 0
    fakes.write(fake_papers, "good", accept="method >= 0.5 on every seed")
    fakes.forget("good")
    assert papers.find("good").status == "implemented"
    assert "another acceptance" in papers.find("good").problem
    assert cli.main(["reproduce", "good"]) == 0
    assert fakes.calls(fake_papers) == ["good", "good"]


def test_a_damaged_record_measures_again(fake_papers, results):
    results.mkdir()
    (results / "good.json").write_text('{"slug": "go')
    assert cli.main(["reproduce", "good"]) == 0
    assert json.loads((results / "good.json").read_text())["holds"] is True


def test_numbers_that_are_not_finite_survive(fake_papers, results):
    fakes.write(fake_papers, "bad", value="float('nan')")
    assert cli.main(["reproduce", "bad", "--seeds", "1"]) == 1
    record = json.loads((results / "bad.json").read_text())
    assert record["measures"][0]["method"] == ["NaN"]
    assert math.isnan(papers.Result.from_json(record).measures[0].method[0])


def test_json_is_one_document_whatever_papers_print(fake_papers, results, capsys):
    fakes.write(fake_papers, "good", body="print('chatter')")
    assert cli.main(["reproduce", "--all", "--json"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert "chatter" in err
    assert document["holds"] is False
    assert document["folder"] == str(results)
    assert [(p["slug"], p["state"], p["holds"]) for p in document["papers"]] == [
        ("bad", "measured", False),
        ("crash", "crashed", None),
        ("fine", "measured", True),
        ("good", "measured", True),
    ]
    assert document["papers"][1]["error"] == "RuntimeError: no luck"
    assert document["papers"][2]["record"] == json.loads((results / "fine.json").read_text())


def test_out(fake_papers, tmp_path, results):
    assert cli.main(["reproduce", "good", "--out", str(tmp_path / "a" / "b")]) == 0
    assert (tmp_path / "a" / "b" / "good.json").exists()
    assert not results.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name one or more papers"),
        (["good", "--all"], "name one or more papers"),
        (["god"], "no paper 'god' in the catalogue; near it: good"),
        (["good", "absent"], "paper 'absent' is catalogued but not implemented yet"),
        (["--area", "none"], "no area 'none'; there are: fake"),
        (["good", "--seeds", "0"], "--seeds: got 0, takes 1 or more"),
        (["good", "--seed", "-1"], "--seed: got -1, takes 0 or more"),
        (["good", "--jobs", "0"], "--jobs: got 0, takes 1 or more"),
    ],
)
def test_a_wrong_request_is_one_line_and_measures_nothing(fake_papers, capsys, argv, message):
    assert cli.main(["reproduce", *argv]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"papyrax: error: {message}")
    assert err.count("\n") == 1
    assert fakes.calls(fake_papers) == []


def test_a_folder_that_cannot_be_written_fails_before_any_work(fake_papers, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["reproduce", "good", "--out", str(tmp_path / "file")]) == 2
    assert "cannot write results to" in capsys.readouterr().err
    assert fakes.calls(fake_papers) == []


def test_interrupt_keeps_what_is_finished(fake_papers, results, capsys):
    fakes.write(fake_papers, "crash", body="raise KeyboardInterrupt")
    assert cli.main(["reproduce", "good", "crash", "fine"]) == 130
    assert os.listdir(results) == ["good.json"]
    assert "Traceback" not in capsys.readouterr().err


def test_jobs_run_in_processes_of_their_own(fake_papers, results):
    # Each waits until the other has started, so neither can be alone.
    for mine, other in (("good", "fine"), ("fine", "good")):
        body = (
            f"end = time.time() + 60\n"
            f"    while '{other}' not in open({str(fake_papers / 'calls')!r}).read():\n"
            f"        time.sleep(0.02)\n"
            f"        assert time.time() < end"
        )
        fakes.write(fake_papers, mine, body=body)
    fakes.write(fake_papers, "crash", body="os.kill(os.getpid(), signal.SIGKILL)")
    process = start(fake_papers, "reproduce", "--all", "--jobs", "2", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    document = json.loads(out)
    assert [p["holds"] for p in document["papers"]] == [False, None, True, True]
    assert document["papers"][1]["error"] == "its process was killed by SIGKILL"
    assert sorted(os.listdir(results)) == ["bad.json", "crash.log", "fine.json", "good.json"]


def test_killed_between_papers_and_started_again(fake_papers, results):
    fakes.write(fake_papers, "good", body="time.sleep(60)")
    process = start(fake_papers, "reproduce", "fine", "good", start_new_session=True)
    end = time.time() + 60
    while fakes.calls(fake_papers) != ["fine", "good"]:
        assert time.time() < end
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert os.listdir(results) == ["fine.json"]
    fakes.write(fake_papers, "good")
    assert cli.main(["reproduce", "fine", "good"]) == 0
    assert fakes.calls(fake_papers) == ["fine", "good", "good"]


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_children_end_with_their_parent(fake_papers, results, how):
    for slug in ("good", "fine"):
        pid = str(fake_papers / f"pid_{slug}")
        body = f"open({pid!r}, 'w').write(str(os.getpid())); time.sleep(90)"
        fakes.write(fake_papers, slug, body=body)
    process = start(fake_papers, "reproduce", "good", "fine", "-j", "2", start_new_session=True)
    end = time.time() + 60
    while len(found := [p for p in fake_papers.glob("pid_*") if p.read_text()]) < 2:
        assert time.time() < end
        time.sleep(0.02)
    if how == "killed":
        os.kill(process.pid, signal.SIGKILL)
    else:  # as Ctrl-C in a terminal does: everybody gets it
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode == (-signal.SIGKILL if how == "killed" else cli.INTERRUPTED)
    while any(_alive(int(path.read_text())) for path in found):
        assert time.time() < end
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process that nobody has waited for still has a number.
    status = pathlib.Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_one_line():
    assert pool.one_line(ValueError("a\nb")) == "ValueError: a"
    assert pool.one_line(KeyError()) == "KeyError"
