"""`papyrax tables`: writes the tables that are made from results."""

import dataclasses
import pathlib

from papyrax.papers import records, tables
from papyrax.train import files, terminal
from papyrax.train.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tables:
    """Write the tables of README.md and the whole of papers/README.md from the recorded results.

    They are made from papers/results of the source checkout alone. With --check nothing is written,
    and the exit status is 1 when a file is stale.
    """

    check: bool = False
    """Only say whether the files are fresh."""

    def run(self) -> int:
        """Writes the files, or checks them."""
        root = records.checkout()
        if root is None:
            raise UserError("the tables are part of the source checkout, and this is none")
        rows = tables.rows()
        for row in rows:
            if row.state.problem:
                message = f"paper {row.entry.slug!r}: {row.state.problem}"
                if row.state.status == "catalogued":  # the tables would lose it
                    raise UserError(message)
                terminal.warn(message)
        stale = False
        for path, text in _texts(root, rows).items():
            fresh = path.is_file() and path.read_text(encoding="utf-8") == text
            stale = stale or not fresh
            if not fresh and not self.check:
                files.write_atomic(path, text)
            state = "fresh" if fresh else "stale" if self.check else "written"
            print(f"{path.relative_to(root)}: {state}")
        return 1 if stale and self.check else 0


def _texts(root: pathlib.Path, rows: tuple[tables.Row, ...]) -> dict[pathlib.Path, str]:
    readme = root / "README.md"
    try:
        text = tables.replace(readme.read_text(encoding="utf-8"), tables.coverage(rows))
    except (OSError, ValueError) as error:
        raise UserError(f"README.md: {error}") from None
    return {readme: text, root / "papers" / "README.md": tables.catalogue(rows)}
