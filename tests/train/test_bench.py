"""`papyrax bench`: what its tables say, from programs whose times and memory are known."""

import platform
import re
import subprocess
import sys

import pytest

from papyrax.train import cli
from papyrax.train.benchmarks import attention, rivals, turns
from papyrax.train.benchmarks.rivals import PROGRAMS, Problem, Program

PROBLEM = Problem(tokens=16, batch=1, heads=2, dim=4, causal=True, dtype="float32")


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """A note of every time that memory is to be kept; the process of other tests does not."""
    asked = []
    monkeypatch.setattr(turns, "keep_memory", lambda: asked.append(True))
    return asked


class Clock:
    """Time that passes only where a program says so; on the CPU half as fast."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now / 2

    def maker(self, *seconds, lacks=()):
        """Programs that take so long in turn, after a longer first run."""

        def make(problem, what):
            if what in lacks:
                raise NotImplementedError(f"no rule\nfor {what}")
            turns = iter([9.0, *seconds])

            def run():
                self.now += next(turns)

            return Program(run, 3 << 20)

        return make


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_of_papyrax_over_the_other_and_what_is_lacking_is_said(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    other = clock.maker(0.010, 0.080, 0.010, lacks=("hvp",))
    makers = [("papyrax", clock.maker(0.030, 0.080, 0.020)), ("other", other)]
    lines = list(attention.compare(PROBLEM, 3, makers))
    rows = [cells(line) for line in lines if line.startswith("| ") and "program" not in line]
    assert [row[:2] for row in rows] == [
        [what, name] for what in PROGRAMS for name, _ in makers if (what, name) != ("hvp", "other")
    ]
    for _, name, *numbers in rows:
        # The ratios of the turns are 3, 1 and 2.
        if name == "other":
            assert numbers == ["10.00", "5.00", "2.00", "2.00", "3.0"]
        else:
            assert numbers == ["30.00", "15.00", "", "", "3.0"]
    assert lines[-1] == "- no hvp of other: NotImplementedError: no rule for hvp"


@pytest.mark.parametrize(("power", "exponent"), [(1, "1.00"), (2, "2.00")])
def test_growth_is_fitted(power, exponent):
    sizes = [1024, 2048, 4096]
    row = cells(attention._fitted("hvp", sizes, [(n / 1024) ** power for n in sizes]))
    assert row[-1] == exponent
    if power == 1:
        assert row[4:6] == ["0.0 + 1.00 per 1024", "0.0%"]
    else:
        assert float(row[5].rstrip("%")) > 3, "it is not a line"


def test_programs_that_take_too_much_memory_are_named_and_not_run(monkeypatch):
    monkeypatch.setattr(attention, "PROGRAMS", ("value",))
    makers = [m for m in rivals.libraries() if m[0] in ("papyrax", "jax.nn xla")]
    lines = list(attention.compare(PROBLEM._replace(tokens=1024, limit=5 << 20), 1, makers))
    assert [cells(line)[1] for line in lines if line.startswith("| value")] == ["papyrax"]
    want = r"- no value of jax\.nn xla: MemoryError: takes \d+ MiB, more than 5"
    assert re.fullmatch(want, lines[-1])


def test_the_command_prints_and_writes_the_tables(monkeypatch, memory, tmp_path, capsys):
    monkeypatch.setattr(attention, "PROGRAMS", ("value",))
    out = tmp_path / "table.md"
    words = [
        "bench",
        "attention",
        "--tokens",
        "16",
        "--dim",
        "8",
        "--repeats",
        "1",
        "--memory-at",
        "512",
        "1024",
        "--out",
    ]
    assert cli.main([*words, str(out)]) == 0
    assert memory
    text = out.read_text()
    assert capsys.readouterr().out == text
    assert "### 16 tokens, 1 x 1 heads of 8, all pairs, float32" in text
    rows = [cells(line) for line in text.splitlines() if line.startswith("| value")]
    assert [row[1] for row in rows[:2]] == ["papyrax", "jax.nn xla"]
    assert float(rows[1][4]) > 0
    assert float(rows[-1][-1]) < 1.3, "memory is linear"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["attention", "--repeats", "0"], "--repeats: got 0"),
        (["attention", "--tokens", "0"], "--tokens: got 0"),
        (["attention", "--dim", "64", "0"], "--dim: got 0"),
        (["attention", "--memory-limit", "0"], "--memory-limit: got 0"),
        (["attention", "--out", "nowhere/table.md"], "--out: there is no folder nowhere"),
        (["losses"], "attention"),
    ],
)
def test_wrong_requests(words, message, capsys):
    assert cli.main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_memory_that_is_kept_is_not_asked_for_again():
    code = """
import resource, sys
import numpy as np
from papyrax.train.benchmarks.turns import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for how in ("keep", "plain"):
        done = subprocess.run([sys.executable, "-c", code, how], capture_output=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < 10 < faults["plain"]
