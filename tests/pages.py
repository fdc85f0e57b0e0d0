"""Pages of results, for the tests of the report: their parts, and a strict reader."""

from html.parser import HTMLParser

from papyrax.papers import Figure, Line, Measure, Result

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def words(self):
        return "".join(t for tag, t in self.text if tag not in ("script", "style"))


def figure(lines=None, **options):
    """A figure of two lines, or of these."""
    if lines is None:
        lines = [
            ("ours", [1, 2, 3], [[3, 2, 1], [3, 2.5, 1.5]]),
            ("theirs", [1, 2, 3], [[3, 3, 3]]),
        ]
    return Figure("A figure", "step", "loss", tuple(Line(*line) for line in lines), **options)


def result(slug, holds=True, drawn=None, **options):
    """What a paper measured, with a figure."""
    measures = (
        Measure("test accuracy", (0.95, 0.96), "method >= 0.9", holds, (0.5, 0.75)),
        Measure("error", (1e-9,), "<= 1e-6", True),
    )
    return Result(slug, "quick", (0, 1), measures, drawn or figure(), **options)
