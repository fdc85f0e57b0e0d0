"""The report: one HTML page that needs nothing but a browser."""

import importlib.resources
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from papyrax.papers import Measure, Paper, Result
from papyrax.papers.catalog import area_name
from papyrax.train.numbers import duration

from .axes import median, number
from .cite import bibtex
from .collect import VERDICTS, Item, Verdict
from .plot import escape, figure_html, strip_html, swatch

MARKS = {"holds": "✓ ", "fails": "✗ ", "stale": "↻ "}
# Nothing is loaded from anywhere, and the browser is told to see to it.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)

CodeLink = Callable[[Item], str | None]


def no_link(item: Item) -> str | None:
    """A `CodeLink` for a page that stands alone."""
    return None


def render(items: Sequence[Item], code_link: CodeLink = no_link) -> str:
    """The report as HTML.

    The same items give the same page, byte for byte.

    Args:
      items: the papers, measured or not, in any order.
      code_link: where the code of a paper can be read: from the item to an address, or None.

    Returns:
      The page. It loads nothing: style, script and pictures are inside.
    """
    ordered = sorted(items, key=lambda item: (area_title(item.entry.area), item.entry.slug))
    measured = [item for item in ordered if item.result is not None]
    rest = [item for item in ordered if item.result is None]
    rest.sort(key=lambda item: list(VERDICTS).index(item.verdict))
    count = Counter(item.verdict for item in ordered)
    total = len(ordered)
    title = f"Measured claims of {total} papers" if total != 1 else "The measured claim of a paper"
    body = [
        '<a class="skip" href="#papers">Skip to the papers</a>',
        f'<header class="head wrap"><p class="mark">papyrax</p><h1>{title}</h1>'
        '<p class="lede">Each claim is measured again at a scale that fits one machine: the method '
        "and its baseline on the same seeds, judged by an acceptance that was set before.</p>",
        _tally(count),
        _shelf(ordered),
        "</header>",
        _filters(ordered, count),
        '<main class="wrap" id="papers">',
        '<p class="none" hidden>No paper matches. <button type="button">Clear the filters</button>'
        "</p>",
        *_areas(measured, code_link),
        _rest(rest),
        "</main>",
        _footer(),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · papyrax</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{_asset('page.css')}</style></head><body>"
    )
    return f"{head}\n{chr(10).join(body)}\n<script>{_asset('page.js')}</script></body></html>\n"


def area_title(area: str) -> str:
    """The name of an area as a heading: "continual" is "Continual"."""
    words = area_name(area)
    return words[:1].upper() + words[1:]


def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _badge(item: Item) -> str:
    verdict = item.verdict
    return f'<span class="badge {verdict}">{MARKS.get(verdict, "")}{VERDICTS[verdict]}</span>'


def _link(address: str | None, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>' if address else escape(text)


def _tally(count: Mapping[Verdict, int]) -> str:
    names: dict[Verdict, str] = {
        "holds": "hold",
        "fails": "do not hold",
        "stale": "to be measured again",
        "implemented": "implemented, not measured",
        "catalogued": "catalogued",
    }
    if count["holds"] == 1:
        names["holds"] = "holds"
    if count["fails"] == 1:
        names["fails"] = "does not hold"
    rows = [
        f'<li><i class="k-{verdict}"></i><b>{count[verdict]}</b>{names[verdict]}</li>'
        for verdict in VERDICTS
        if count[verdict]
    ]
    return f'<ul class="tally">{"".join(rows)}</ul>'


def _shelf(items: Sequence[Item]) -> str:
    """One cell a paper. The list below says the same, so readers who hear the page skip it."""
    cells = [
        f'<a class="k-{item.verdict}" href="#{escape(item.entry.slug)}" tabindex="-1" '
        f'title="{escape(item.entry.title)}"></a>'
        for item in items
    ]
    return f'<div class="shelf" aria-hidden="true">{"".join(cells)}</div>'


def _filters(items: Sequence[Item], count: Mapping[Verdict, int]) -> str:
    areas = Counter(item.entry.area for item in items)
    area_options = "".join(
        f'<option value="{escape(area)}">{escape(area_title(area))} ({areas[area]})</option>'
        for area in sorted(areas, key=area_title)
    )
    verdict_options = "".join(
        f'<option value="{verdict}">{words} ({count[verdict]})</option>'
        for verdict, words in VERDICTS.items()
        if count[verdict]
    )
    return (
        '<div class="filters" role="search" hidden><form class="wrap">'
        '<label><span>Search</span><input type="search" name="search" autocomplete="off" '
        'placeholder="Search titles, ideas, parts"></label>'
        '<label><span>Area</span><select name="area"><option value="">All areas</option>'
        f"{area_options}</select></label>"
        '<label><span>Verdict</span><select name="verdict"><option value="">All verdicts</option>'
        f"{verdict_options}</select></label>"
        '<p class="count" role="status"></p></form></div>'
    )


def _areas(items: Sequence[Item], code_link: CodeLink) -> list[str]:
    if not items:
        return [
            '<p class="lede" style="padding-top:40px">No claim has been measured yet: '
            "<code>papyrax reproduce --all</code> measures them.</p>"
        ]
    parts: list[str] = []
    for area in dict.fromkeys(item.entry.area for item in items):
        inside = [item for item in items if item.entry.area == area]
        articles = "\n".join(_article(item, code_link) for item in inside)
        parts.append(
            f'<section data-group><h2 class="area-name">{escape(area_title(area))}</h2>'
            f"\n{articles}</section>"
        )
    return parts


def _article(item: Item, code_link: CodeLink) -> str:
    entry, paper, result = item.entry, item.paper, item.result
    assert paper is not None
    assert result is not None
    facts = [_badge(item), f"<span>{paper.year}</span>"]
    if paper.venue.casefold() != "arxiv":
        facts.append(f"<span>{escape(paper.venue)}</span>")
    if paper.arxiv:
        facts.append(_link(f"https://arxiv.org/abs/{paper.arxiv}", f"arXiv {paper.arxiv}"))
    if address := code_link(item):
        facts.append(_link(address, f"papers/{entry.slug}.py"))
    if repo := paper.code or entry.repo:
        facts.append(_link(f"https://github.com/{repo}", "authors\u2019 code"))
    measures = "".join(_measure(measure, paper, result) for measure in result.measures)
    notes = f'<p class="notes"><b>Note.</b> {escape(result.notes)}</p>' if result.notes else ""
    if item.verdict == "stale":
        notes += (
            '<p class="notes problem">These numbers were judged by an acceptance that has changed '
            f"since: {escape(item.record.get('acceptance', ''))}</p>"
        )
    return (
        f'<article class="paper" id="{escape(entry.slug)}" data-verdict="{item.verdict}" '
        f'data-area="{escape(entry.area)}"><p class="meta">{"".join(facts)}</p>'
        f'<h3 class="find"><a href="#{escape(entry.slug)}">{escape(paper.title)}</a></h3>'
        f'<p class="by find">{escape(paper.authors)}</p>'
        f'<p class="claim find">{escape(paper.claim.text)}</p>'
        f'<div class="cols">{figure_html(result.figure)}{measures}</div>{notes}'
        f"{_run_line(result, item.record)}{_details(paper, item.record)}</article>"
    )


def _measure(measure: Measure, paper: Paper, result: Result) -> str:
    verdict = "✓ holds" if measure.holds else "✗ does not hold"
    mark = f'<span class="{"yes" if measure.holds else "no"}">{verdict}</span>'
    rows = [(0, paper.claim.method, measure.method)]
    if measure.baseline:
        rows.append((1, paper.claim.baseline, measure.baseline))
    columns = max(len(values) for _, _, values in rows)
    one_a_seed = columns == len(result.seeds)
    heads = [f"seed {s}" for s in result.seeds] if one_a_seed else ["value"]
    middle = columns > 1
    head = "".join(f'<th scope="col">{name}</th>' for name in heads + ["median"] * middle)
    body = []
    for index, name, values in rows:
        # One number for all seeds stands in one cell across them.
        span = f' colspan="{columns}"' if len(values) < columns else ""
        cells = "".join(f"<td{span}>{number(v)}</td>" for v in values)
        cells += f'<td class="mid">{number(median(values))}</td>' * middle
        body.append(f'<tr><th scope="row">{swatch(index)} {escape(name)}</th>{cells}</tr>')
    return (
        f'<section class="measure"><h4>{escape(measure.name)}{mark}</h4>'
        f"{strip_html(measure)}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(measure.name)}">'
        f'<table style="--n:{columns + middle}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
        f'</div><p class="rule"><b>Rule:</b> {escape(measure.accept)}</p></section>'
    )


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]}\u2013{seeds[-1]}"
    return ("seeds " if len(seeds) > 1 else "seed ") + ", ".join(map(str, seeds))


def _device(device: Any) -> str:
    if not isinstance(device, Mapping):
        return str(device)
    kind, platform = device.get("kind"), device.get("platform")
    name = str(kind or platform or "unknown device")
    count = device.get("count", 1)
    return name if count == 1 else f"{count} × {name}"


def _run_line(result: Result, record: Mapping[str, Any]) -> str:
    facts = [f"{result.budget} budget", _seeds(result.seeds)]
    if isinstance(seconds := record.get("seconds"), int | float):
        facts.append(duration(seconds))
    if device := record.get("device"):
        facts.append(_device(device))
    if isinstance(versions := record.get("versions"), Mapping) and "jax" in versions:
        facts.append(f"jax {versions['jax']}")
    if commit := record.get("commit"):
        sha, _, changes = str(commit).partition("+")
        facts.append(f"commit {sha[:10]}" + (" with changes" if changes else ""))
    return f'<p class="run">{escape(" · ".join(facts))}</p>'


def _details(paper: Paper, record: Mapping[str, Any]) -> str:
    formula = f"<pre>{escape(paper.formula.strip())}</pre>" if paper.formula.strip() else ""
    parts = "".join(f"<li><code>{escape(name)}</code></li>" for name in paper.parts)
    parts = f'<ul class="parts find">{parts}</ul>' if parts else ""
    run = {"acceptance": paper.claim.accept}
    run |= {name: record[name] for name in ("date", "commit") if record.get(name)}
    if isinstance(versions := record.get("versions"), Mapping):
        run["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    if isinstance(device := record.get("device"), Mapping):
        run["device"] = ", ".join(f"{name} {value}" for name, value in device.items())
    rows = "".join(
        f"<dt>{escape(name.capitalize())}</dt><dd>{escape(text)}</dd>" for name, text in run.items()
    )
    return (
        '<div class="more">'
        f'<details><summary>Idea and formula</summary><p class="find">{escape(paper.idea)}</p>'
        f"{formula}{parts}</details>"
        f"<details><summary>How it was measured</summary><p>{escape(paper.claim.setup)}</p>"
        f"<dl>{rows}</dl></details>"
        f"<details><summary>Cite</summary><pre>{escape(bibtex(paper))}</pre>"
        '<button type="button" class="copy" hidden>Copy BibTeX</button></details></div>'
    )


def _rest(items: Sequence[Item]) -> str:
    if not items:
        return ""
    rows = []
    for item in items:
        entry = item.entry
        problem = f'<p class="problem">{escape(item.problem)}</p>' if item.problem else ""
        rows.append(
            f'<li id="{escape(entry.slug)}" data-verdict="{item.verdict}" '
            f'data-area="{escape(entry.area)}"><div>'
            f'<span class="find">{_link(entry.url, entry.title)}</span>'
            f'<p class="find">{escape(entry.idea)}</p>{problem}</div>'
            f"<small>{escape(area_title(entry.area))} · {entry.year}</small>{_badge(item)}</li>"
        )
    return (
        '<section class="rest" data-group><h2>Without a measured claim</h2>'
        "<p>Implemented papers whose claim has not been measured, then those that are catalogued "
        f'and wait for their turn.</p><ul class="list">{chr(10).join(rows)}</ul></section>'
    )


def _footer() -> str:
    return (
        '<footer class="wrap"><p>Verdicts are computed from the numbers by the rule beside '
        "them. A claim that does not hold here did not hold at this scale; the paper\u2019s own "
        "setting may differ.</p></footer>"
    )
