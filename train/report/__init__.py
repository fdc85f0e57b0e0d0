"""The report: recorded results as one HTML page, and as a picture.

`render(collect())` is the page; `save_figure` draws a few results for a README, and
`spectral_density_figure` makes a `papyrax.papers.Figure` of a curvature spectrum.
"""

from .cite import bibtex
from .collect import VERDICTS, Item, Verdict, collect
from .page import render
from .picture import save_figure
from .plot import figure_html
from .spectrum import spectral_density_figure

__all__ = [
    "VERDICTS",
    "Item",
    "Verdict",
    "bibtex",
    "collect",
    "figure_html",
    "render",
    "save_figure",
    "spectral_density_figure",
]
