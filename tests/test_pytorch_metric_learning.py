"""The table of what stands for what in pytorch-metric-learning names what there is."""

import inspect
import json
import pathlib
import re

import papyrax

ROOT = pathlib.Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| (`.*`) \| `([\w.]+)` \| (.*?) ?\|$",
    (ROOT / "docs" / "pytorch_metric_learning.md").read_text(),
    re.MULTILINE,
)


def test_names_and_arguments():
    assert len(ROWS) > 50
    for _, name, note in ROWS:
        room, _, function = name.rpartition(".")
        thing = getattr(getattr(papyrax, room or "losses"), function)
        for argument in re.findall(r"`(\w+)=", note):
            assert argument in inspect.signature(thing).parameters, (name, argument)


def test_every_loss_is_compared():
    entries = json.loads((ROOT / "tests/core/losses/authors_pairs.json").read_text())
    compared = {name.split()[0] for name in entries}
    listed = {name for _, name, _ in ROWS if "." not in name} - {"key_queue_push"}
    assert len(listed) > 25
    assert not listed - compared
