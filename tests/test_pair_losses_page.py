"""The page of losses that compare examples says what there is."""

import importlib.util
import inspect
import pathlib
import re

from papyrax import losses

ROOT = pathlib.Path(__file__).parents[1]


def test_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("pairs", ROOT / "docs" / "list_pair_losses.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.render(), "run `python docs/list_pair_losses.py`"


def test_no_loss_over_devices_is_forgotten():
    """Each loss with a ring is listed, but for the divergences of regression."""
    text = (ROOT / "docs" / "pair_losses.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    functions = {n for n in losses.__all__ if inspect.isfunction(getattr(losses, n))}
    ring = {n for n in functions if "ring" in inspect.signature(getattr(losses, n)).parameters}
    assert len(ring) > 25
    assert {n for n in ring - listed if "cs_" not in n} == {"conr_loss"}
