"""`papyrax report`: one HTML page of all recorded results."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import urllib.parse
import webbrowser
from collections import Counter
from typing import Annotated

import tyro

from papyrax.train import files, report, terminal
from papyrax.train.errors import UserError
from papyrax.train.report.page import CodeLink


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one HTML page of all recorded results: plots, numbers, verdicts, citations.

    The page is a single file that needs no network: open it in a browser, send it, print it.
    Papers without a result are listed at its end.
    """

    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="FILE")] = pathlib.Path("report.html")
    """The file to write."""
    results: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = (
        None
    )
    """The folder of recorded results. By default that of `papyrax reproduce`; for papers that have
    none there, what came with the package."""
    open: bool = False
    """Open the page in a browser."""

    def run(self) -> int:
        """Writes the page."""
        if self.results is not None and not self.results.is_dir():
            raise UserError(f"--results: there is no folder {self.results}")
        items = report.collect(self.results)
        for item in items:
            if item.problem:
                terminal.warn(f"paper {item.entry.slug!r}: {item.problem}")
        page = report.render(items, code_link(self.out))
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(self.out, page)
        except OSError as error:
            raise UserError(f"cannot write {self.out}: {error.strerror or error}") from None
        print(self.out)
        count = Counter(item.verdict for item in items)
        measured = sum(item.result is not None for item in items)
        terminal.console(stderr=True).print(
            f"{measured} measured, {count['holds']} hold, {len(items)} in all", soft_wrap=True
        )
        if self.open and not webbrowser.open(self.out.resolve().as_uri()):
            terminal.warn(f"no browser was found; open {self.out} in one")
        return 0


def code_link(out: pathlib.Path) -> CodeLink:
    """Where a page links the code of a paper to.

    Args:
      out: the file of the page.

    Returns:
      A function from an item to an address: in the public repository, where the package names one;
      else that of the module's file, as seen from the page.
    """
    repository = _repository()

    def link(item: report.Item) -> str | None:
        if item.paper is None:
            return None
        if repository:
            return f"{repository}/blob/main/papers/{item.entry.slug}.py"
        spec = importlib.util.find_spec(f"papyrax.papers.{item.entry.slug}")
        if spec is None or spec.origin is None:
            return None
        try:
            path = os.path.relpath(spec.origin, out.resolve().parent)
        except ValueError:  # on another drive
            return pathlib.Path(spec.origin).as_uri()
        return urllib.parse.quote(pathlib.PurePath(path).as_posix())

    return link


def _repository() -> str | None:
    try:
        urls = importlib.metadata.metadata("papyrax").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    named = dict(url.split(", ", 1) for url in urls if ", " in url)
    found = {name.casefold(): url.rstrip("/") for name, url in named.items()}
    return found.get("repository") or found.get("source")
