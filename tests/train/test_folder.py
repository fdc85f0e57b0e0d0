"""A run's folder: what is left of it where a run fails."""

import fcntl

import pytest
from engine import small

from papyrax.train import config as C
from papyrax.train import feed, fit, folder
from papyrax.train.errors import UserError


def fail_at(monkeypatch, call):
    """Lets the `call`-th batch fail, when it is about to go into its step."""
    calls = []

    def prepare(batch):
        calls.append(batch)
        if len(calls) == call:
            raise MemoryError("no more")
        return before(batch)

    before = feed.prepare
    monkeypatch.setattr(feed, "prepare", prepare)


def test_a_run_that_cannot_be_leaves_nothing(tmp_path):
    out = tmp_path / "deep" / "run"
    with pytest.raises(UserError, match="did you mean"):
        fit(small(out=str(out), loss=C.Part("sofmax_cross_entropy")))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path, monkeypatch):
    fail_at(monkeypatch, 1)
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("why this run")
    (out / "metrics.jsonl").write_text("")
    with pytest.raises(MemoryError):
        fit(small(out=str(out)))
    assert {path.name for path in out.iterdir()} == {"notes.txt", "metrics.jsonl"}
    assert (out / "notes.txt").read_text() == "why this run"


def test_all_that_a_run_makes_goes_with_it(tmp_path, monkeypatch):
    """Here the first step fails, when config, log and checkpoints have been made."""
    out = tmp_path / "run"
    fail_at(monkeypatch, 1)
    entered = folder.Folder._clear
    seen = set()

    def clear(self):
        seen.update(path.name for path in out.iterdir())
        entered(self)

    monkeypatch.setattr(folder.Folder, "_clear", clear)
    with pytest.raises(MemoryError):
        fit(small(out=str(out)))
    assert seen == folder.MADE
    assert list(tmp_path.iterdir()) == []


def test_after_the_first_step_everything_stays(tmp_path, monkeypatch):
    fail_at(monkeypatch, 2)
    with pytest.raises(MemoryError):
        fit(small(out=str(tmp_path / "run")))
    assert {path.name for path in (tmp_path / "run").iterdir()} >= folder.MADE
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_folder_of_another_run_is_left_alone(tmp_path):
    config = small(out=str(tmp_path / "run"))
    with folder.open_folder(config):
        with pytest.raises(UserError, match="another run is writing to"):
            fit(config)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    # Also that of one that went in between, with its lock, and of one that has begun meanwhile.
    for begins in (False, True):
        check_taken_away(config, tmp_path / "run" / ".lock", begins)


def check_taken_away(config, lock, begins):
    locked = fcntl.flock

    def flock(file, operation):
        lock.unlink()
        if begins:
            lock.touch()
        locked(file, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(UserError, match="another run is writing to"):
            folder.open_folder(config)
    assert lock.exists() is begins


def test_without_locks_nothing_is_taken_away(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError):
        fit(small(out=str(tmp_path / "run"), loss=C.Part("sofmax_cross_entropy")))
    assert (tmp_path / "run").exists()
