"""Citations."""

import re

from papyrax.papers import Paper

_SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
_JOURNALS = re.compile(r"journal|transactions|letters|review|tmlr|jmlr|tpami|\bieee t|nature", re.I)


def bibtex(paper: Paper) -> str:
    """The BibTeX entry of a paper.

    Args:
      paper: its record.

    Returns:
      An entry whose key is the paper's slug; `@misc` for what stands on arXiv alone.

    >>> from papyrax.papers import Claim, Paper
    >>> claim = Claim("", "", "", "", "")
    >>> paper = Paper("mala", "MALA", "A. One, B. Two", 2025, "2501.00001", "", "", "", (), claim)
    >>> print(bibtex(paper))
    @misc{mala,
      title         = {{MALA}},
      author        = {A. One and B. Two},
      year          = {2025},
      eprint        = {2501.00001},
      archivePrefix = {arXiv},
    }
    """
    names = re.sub(r",?\s+et al\.?$", ", others", paper.authors.strip())
    authors = [name for name in re.split(r",\s*(?:and\s+)?|\s+and\s+", names) if name]
    fields = [
        ("title", "{" + _tex(paper.title) + "}"),
        ("author", " and ".join(map(_tex, authors))),
    ]
    kind = "misc"
    if paper.venue.casefold() != "arxiv":
        journal = bool(_JOURNALS.search(paper.venue))
        kind = "article" if journal else "inproceedings"
        fields.append(("journal" if journal else "booktitle", _tex(paper.venue)))
    fields.append(("year", str(paper.year)))
    if paper.arxiv:
        fields += [("eprint", paper.arxiv), ("archivePrefix", "arXiv")]
    lines = [f"  {name:13} = {{{value}}}," for name, value in fields]
    return "\n".join([f"@{kind}{{{paper.slug},", *lines, "}"])


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
