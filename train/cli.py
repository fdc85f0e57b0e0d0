"""The command `papyrax`: finds the command that was asked for and runs it.

A command is a module `papyrax.train.commands.<name>` with a frozen dataclass of the same name,
capitalized (`commands/show.py` has `Show`). Its fields are the arguments, read by tyro; its
docstring is the help; `run(self) -> int` does the work and returns the exit status. Only the module
that was asked for is imported, so listing the commands loads neither JAX nor tyro. A command whose
arguments depend on its first word reads them itself, by a class method `parse(arguments)`.

Exit status: 0 done; 1 done, and the answer is no (an acceptance fails, a table is stale); 2 the
request was wrong (`UserError`); 130 interrupted.
"""

import contextlib
import difflib
import glob
import importlib
import importlib.util
import inspect
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

import papyrax
from papyrax.train.errors import UserError

COMMANDS = {
    "papers": "list the catalogue of papers and what stands for each of them",
    "show": "show one paper: idea, formula, parts, claim, last result, citation",
    "reproduce": "measure the claims of papers and record the results",
    "report": "write one HTML page of all recorded results",
    "train": "train a model with the parts of the papers you name",
    "plan": "say what a training run would need, before it runs",
    "bench": "measure papyrax against other libraries on this machine",
    "doctor": "check this machine: versions, devices, kernels",
    "tables": "write the tables of README.md from the recorded results",
}
"""Every command and its line of help; one whose module does not exist is hidden."""

INTERRUPTED = 130
BROKEN_PIPE = 141


def commands() -> dict[str, str]:
    """The commands that exist and their line of help, in the order they are listed."""
    package = "papyrax.train.commands"
    return {
        name: text
        for name, text in COMMANDS.items()
        if importlib.util.find_spec(f"{package}.{name}") is not None
    }


def usage() -> str:
    """What `papyrax --help` prints."""
    found = commands()
    width = max(map(len, found), default=0)
    return "\n".join(
        [
            "usage: papyrax [-h] [--version] COMMAND ...",
            "",
            "Losses, attention and second-order optimization from 267 papers,",
            "as parts that compose in JAX.",
            "",
            "commands:",
            *(f"  {name:{width}}  {text}" for name, text in found.items()),
            "",
            "`papyrax COMMAND --help` says what a command takes.",
        ]
    )


def description(command: type) -> str:
    """The docstring of a command in lines that fit the terminal.

    tyro joins the lines of a paragraph, and breaks none; it keeps those that begin with a space.
    """
    width = min(shutil.get_terminal_size().columns, 88)
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    lines = textwrap.TextWrapper(width, initial_indent=" ", subsequent_indent=" ")
    return "\n".join(lines.fill(" ".join(p.split())) for p in paragraphs)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      argv: the arguments after the program's name; those of the process by default.

    Returns:
      The exit status.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no "±" gets a "?" instead of an error.
            stream.reconfigure(errors="replace")
    _expect_no_tpu()
    try:
        status = _run(argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"papyrax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("papyrax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has left (`papyrax papers | head`). Python flushes the stream once
        # more at exit, so it needs somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _expect_no_tpu() -> None:
    """Keep libtpu, where it is installed to compile for TPUs without one, from looking for one.

    It asks the network for the machine's metadata, prints a page of warnings when there is none,
    and takes over the handling of signals.
    """
    if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"):
        return
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    gpu = glob.glob("/dev/nvidia*") or glob.glob("/dev/kfd") or glob.glob("/dev/dxg")
    if importlib.util.find_spec("libtpu") and not gpu:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _first_message(box: str) -> str:
    """What tyro says of an argument, out of the box that it draws: title, message, help."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("╭╮╰╯│─| ")
        if "╭" in line:  # the frame, with the title in it
            parts += [[text], []]
        elif text.strip("-"):
            parts[-1].append(text)
        else:  # a rule
            parts.append([])
    said = [" ".join(part) for part in parts if part]
    return said[1].rstrip(".") if len(said) > 1 else "the arguments do not parse"


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, *arguments = argv
    if name in ("-V", "--version"):
        print(f"papyrax {papyrax.__version__}")
        return 0
    found = commands()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(found)}"
        raise UserError(f"no command {name!r}; {hint}")
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise UserError(
            "the command line needs tyro and rich: pip install 'papyrax[train]'"
        ) from error
    command = getattr(importlib.import_module(f"papyrax.train.commands.{name}"), name.capitalize())
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if hasattr(command, "parse"):  # its defaults depend on its first word
                parsed = command.parse(arguments)
            else:
                parsed = tyro.cli(
                    command,
                    prog=f"papyrax {name}",
                    description=description(command),
                    args=arguments,
                    config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
                )
    except SystemExit as end:
        if end.code in (0, None):  # --help
            return 0
        hint = f"`papyrax {name} --help` says what it takes"
        raise UserError(f"{_first_message(said.getvalue())}; {hint}") from None
    status: int = parsed.run()
    return status
