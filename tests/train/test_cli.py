import ast
import dataclasses
import gc
import pathlib
import subprocess
import sys
import threading
import types

import pytest

from papyrax.train import cli
from papyrax.train.errors import UserError


@pytest.fixture
def command(monkeypatch):
    """Puts a command `papers` in the place of the real one; `command.act` is what it does."""
    made = types.SimpleNamespace(act=lambda self: 0)

    @dataclasses.dataclass(frozen=True)
    class Papers:
        """Does what the test says."""

        number: int = 1
        """A number."""
        area: str | None = None
        """An area."""
        flag: bool = False
        """A flag."""

        def run(self) -> int:
            return made.act(self)

    module = types.ModuleType("papyrax.train.commands.papers")
    module.Papers = Papers
    module.__spec__ = types.SimpleNamespace(name=module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def test_help_lists_the_commands(capsys, command):
    for argv in ([], ["-h"], ["--help"], ["help"]):
        assert cli.main(argv) == 0
        out, err = capsys.readouterr()
        assert "papers" in out
        assert "usage: papyrax" in out
        assert not err
        assert max(map(len, out.splitlines())) <= 88


def test_a_command_without_a_module_is_hidden(capsys, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "nothing_here", "does not exist")
    assert "nothing_here" not in cli.commands()
    assert cli.main(["nothing_here"]) == 2
    assert "no command 'nothing_here'" in capsys.readouterr().err


def test_every_module_is_listed():
    import pkgutil

    from papyrax.train import commands

    assert {m.name for m in pkgutil.iter_modules(commands.__path__)} <= set(cli.COMMANDS)


def test_version(capsys):
    import papyrax

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"papyrax {papyrax.__version__}\n"


def test_unknown_command(capsys, command):
    assert cli.main(["paper"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "papyrax: error: no command 'paper'; did you mean 'papers'?\n")


def test_arguments_reach_the_command(command):
    seen = []
    command.act = lambda self: seen.append(self) or 7
    assert cli.main(["papers", "--number", "5", "--area", "x", "--flag"]) == 7
    assert (seen[0].number, seen[0].area, seen[0].flag) == (5, "x", True)


def test_a_command_may_read_its_arguments_itself(monkeypatch, command):
    seen = []
    command.act = lambda self: seen.append(self.number) or 0
    kind = sys.modules["papyrax.train.commands.papers"].Papers
    kind.parse = classmethod(lambda cls, arguments: cls(number=len(arguments)))
    assert cli.main(["papers", "a", "--b", "c"]) == 0
    assert seen == [3]


def test_help_of_a_command(capsys, command):
    assert cli.main(["papers", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Does what the test says." in out
    assert "--area STR" in out
    assert "--no-flag" not in out


@pytest.mark.parametrize("argv", [["--number", "x"], ["--nope"], ["--number"], ["stray"]])
def test_parse_errors_are_short_and_fail(capsys, command, argv):
    assert cli.main(["papers", *argv]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    assert 0 < len(err.splitlines()) < 12


def test_user_error_is_one_line(capsys, command):
    def act(self):
        raise UserError("no such thing;\n   there are others")

    command.act = act
    assert cli.main(["papers"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "papyrax: error: no such thing; there are others\n")


def test_other_errors_keep_their_traceback(command):
    def act(self):
        raise RuntimeError("a defect")

    command.act = act
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["papers"])


def test_interrupt(capsys, command):
    def act(self):
        raise KeyboardInterrupt

    command.act = act
    assert cli.main(["papers"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_sources_are_parsed_while_other_threads_parse():
    """As tyro does for the help of a command: what CPython 3.11 cannot do without conftest.py."""
    source, stop = pathlib.Path(__file__).read_text(), threading.Event()

    def parse():
        while not stop.is_set():
            ast.parse(source)

    threads = [threading.Thread(target=parse) for _ in range(3)]
    before, interval = gc.get_threshold(), sys.getswitchinterval()
    try:
        gc.set_threshold(50)
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert ast.parse(source)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        gc.set_threshold(*before)
        sys.setswitchinterval(interval)


def test_listing_the_commands_loads_neither_jax_nor_tyro():
    code = (
        "import sys; from papyrax.train.cli import main; main(['--help']);"
        "print([m for m in ('jax', 'flax', 'optax', 'tyro', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["papers", "--bogus"], "--bogus"),
        (["reproduce", "mala", "--seeds", "x"], "--seeds"),
        (["reproduce", "mala", "--budget", "huge"], "--budget"),
        (["show"], "PAPER"),
    ],
)
def test_an_argument_that_does_not_parse_is_one_line(capsys, arguments, named):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("papyrax: error: ")
    assert named in err
