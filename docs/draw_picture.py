"""Draw README's picture from the recorded results of three papers.

python docs/draw_picture.py FILE.png PAPER PAPER PAPER
"""

import sys

from papyrax import papers
from papyrax.train.report import save_figure

TITLES = {
    "adahessian": "Badly scaled problems",
    "mala": "Queries that grow",
    "stablemax_perpgrad": "Grokking at once",
}


def main() -> None:
    """Draw the papers named on the command line."""
    path, *slugs = sys.argv[1:]
    records = [papers.recorded(slug) for slug in slugs]
    if None in records:
        sys.exit("no result is recorded yet: run `papyrax reproduce " + " ".join(slugs) + "`")
    results = [papers.Result.from_json(record) for record in records if record]
    save_figure(results, path, titles=[TITLES.get(slug, slug) for slug in slugs])


if __name__ == "__main__":
    main()
